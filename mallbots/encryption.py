"""Encryption of what Temporal keeps of orders: commands, replies, failures, summaries.

Each payload is sealed by itself with XAES-256-GCM (https://c2sp.org/XAES-256-GCM): AES-256-GCM under a key that
is derived for it from ours and its nonce. The nonce has 192 bits, so that one key does for more payloads than any
mall makes; with the 96 bits of GCM alone it would have to be changed after four thousand million.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from temporalio.api.common.v1 import Payload
from temporalio.api.failure.v1 import Failure
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import DataConverter, DefaultFailureConverter, PayloadCodec, PayloadConverter

from kernel.errors import Misconfigured
from mallbots.keyring import Key, read_keys
from mallbots.settings import Settings

ENCODING: Final = b"binary/encrypted"
CIPHER: Final = b"XAES-256-GCM"
KEY_ID: Final = "encryption-key-id"

_NONCE_BYTES: Final = 24
_GCM_NONCE_BYTES: Final = 12
_LONGEST_MESSAGE: Final = 500
_MOST_BYTES: Final = 3000


class EncryptionCodec(PayloadCodec):
    """Encrypts with the first key, decrypts with any, and lets pass what is not encrypted. A payload is bound to
    its namespace: moved to another, it does not decrypt."""

    def __init__(self, keys: Sequence[Key], namespace: str) -> None:
        self._newest = keys[0]
        self._keys = {key.id: key for key in keys}
        self._namespace = namespace

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """The same payloads, encrypted."""
        return [self._encrypted(payload) for payload in payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """The same payloads as they were before `encode`.

        Raises `Misconfigured` for one that was encrypted with a key that is not here, or that is not as it was
        when it was encrypted.
        """
        return [self._decrypted(payload) for payload in payloads]

    def _encrypted(self, payload: Payload) -> Payload:
        key, nonce = self._newest, os.urandom(_NONCE_BYTES)
        metadata = {"encoding": ENCODING, "encryption-cipher": CIPHER, KEY_ID: key.id.encode()}
        return Payload(
            metadata=metadata,
            data=nonce + seal(key.secret, nonce, payload.SerializeToString(), self._bound_to(key)),
        )

    def _decrypted(self, payload: Payload) -> Payload:
        if payload.metadata.get("encoding") != ENCODING:
            return payload
        id = payload.metadata.get(KEY_ID, b"").decode(errors="replace")
        if id not in self._keys:
            raise Misconfigured(
                f"a payload was encrypted with the key {id!r}, which is not in MALLBOTS_TEMPORAL_ENCRYPTION_KEYS"
            )
        nonce, sealed = payload.data[:_NONCE_BYTES], payload.data[_NONCE_BYTES:]
        opened = open_sealed(self._keys[id].secret, nonce, sealed, self._bound_to(self._keys[id]))
        if opened is None:
            raise Misconfigured(
                f"a payload does not decrypt with the key {id!r}: it was altered, or encrypted with another key "
                f"of this id, or for another namespace than {self._namespace}"
            )
        return Payload.FromString(opened)

    def _bound_to(self, key: Key) -> bytes:
        return f"mallbots\n{self._namespace}\n{key.id}".encode()


class EncryptedFailures(DefaultFailureConverter):
    """Puts what a failure says into a payload, which the codec encrypts.

    Of a failure that is retried Temporal keeps 4 KiB; of one that has more it drops what is encrypted, and nobody
    learns why the order is stuck. So stack traces are left out, which the worker logs anyway, and long texts cut.
    """

    def to_failure(self, exception: BaseException, payload_converter: PayloadConverter, failure: Failure) -> None:
        """Write an exception, with those that caused it as far as there is room."""
        super().to_failure(exception, payload_converter, failure)
        told = {"message": failure.message[:_LONGEST_MESSAGE], "stack_trace": ""}
        failure.encoded_attributes.CopyFrom(payload_converter.to_payloads([told])[0])
        # The code, which stays readable, is the best that a list of failures can show without a key.
        failure.message, failure.stack_trace = failure.application_failure_info.type or "Encoded failure", ""
        if failure.ByteSize() > _MOST_BYTES:
            failure.ClearField("cause")


def data_converter(settings: Settings) -> DataConverter:
    """How every client and worker of ours writes and reads payloads: encrypted, if there are keys."""
    if settings.temporal_encryption_keys is None:
        return pydantic_data_converter
    return replace(
        pydantic_data_converter,
        payload_codec=encryption_codec(settings),
        # Messages of failures tell of customers and products, too.
        failure_converter_class=EncryptedFailures,
    )


def encryption_codec(settings: Settings) -> EncryptionCodec:
    """The codec of these settings. Raises `Misconfigured` if there are no keys."""
    if settings.temporal_encryption_keys is None:
        raise Misconfigured("MALLBOTS_TEMPORAL_ENCRYPTION_KEYS is not set: payloads are not encrypted")
    return EncryptionCodec(
        read_keys(settings.temporal_encryption_keys.get_secret_value()), settings.temporal_namespace
    )


def seal(key: bytes, nonce: bytes, plain: bytes, bound_to: bytes) -> bytes:
    """`plain` encrypted by XAES-256-GCM, and authenticated together with `bound_to`. `key` has 32 bytes; `nonce`
    has 24, and must be random."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(_derived(key, nonce)).encrypt(nonce[_GCM_NONCE_BYTES:], plain, bound_to)


def open_sealed(key: bytes, nonce: bytes, sealed: bytes, bound_to: bytes) -> bytes | None:
    """What `seal` was given; None if anything of it is not the same."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    if len(nonce) != _NONCE_BYTES:
        return None
    try:
        return AESGCM(_derived(key, nonce)).decrypt(nonce[_GCM_NONCE_BYTES:], sealed, bound_to)
    except InvalidTag:
        return None


def _derived(key: bytes, nonce: bytes) -> bytes:
    """The key of one message: two blocks of a counter, a label and half of the nonce, under CMAC."""
    from cryptography.hazmat.primitives.ciphers.algorithms import AES
    from cryptography.hazmat.primitives.cmac import CMAC

    derived = b""
    for counter in (b"\x00\x01", b"\x00\x02"):
        mac = CMAC(AES(key))
        mac.update(counter + b"X\x00" + nonce[:_GCM_NONCE_BYTES])
        derived += mac.finalize()
    return derived

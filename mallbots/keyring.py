"""The keys that payloads in Temporal are encrypted with, as `MALLBOTS_TEMPORAL_ENCRYPTION_KEYS` names them."""

import base64
import binascii
import re
from dataclasses import dataclass, field
from typing import Final

from kernel.errors import Misconfigured

KEY_BYTES: Final = 32

_VARIABLE: Final = "MALLBOTS_TEMPORAL_ENCRYPTION_KEYS"
_ID: Final = r"[A-Za-z0-9._-]{1,64}"


@dataclass(frozen=True)
class Key:
    """A key, and the id that each payload says it by."""

    id: str
    secret: bytes = field(repr=False)


def read_keys(text: str) -> list[Key]:
    """The keys of `ID:KEY,ID:KEY`, the newest first; at least one.

    Raises `Misconfigured`, which says which rule the text breaks at which key, and shows no key.
    """
    keys: dict[str, Key] = {}
    for number, one in enumerate(text.split(","), 1):
        id, colon, encoded = one.strip().partition(":")
        if not colon or not re.fullmatch(_ID, id):
            raise Misconfigured(
                f"{_VARIABLE}: key {number} is not ID:KEY, where ID is 1 to 64 letters, digits, dots, dashes or "
                "underscores"
            )
        if id in keys:
            raise Misconfigured(f"{_VARIABLE}: the id {id} stands there twice")
        keys[id] = Key(id, _secret(id, encoded))
    return list(keys.values())


def _secret(id: str, encoded: str) -> bytes:
    try:
        secret = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        secret = b""
    if len(secret) != KEY_BYTES:
        raise Misconfigured(
            f"{_VARIABLE}: the key of {id} is not {KEY_BYTES} bytes in Base64: `openssl rand -base64 32` makes one"
        )
    return secret

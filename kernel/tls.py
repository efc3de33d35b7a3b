"""TLS with the servers that we need: the files that settings name, and what went wrong in one sentence."""

import ssl
from pathlib import Path
from typing import Final

from kernel.errors import Misconfigured


def read_pem(path: Path, setting: str) -> bytes:
    """What a PEM file holds. Raises `Misconfigured`, which names the `setting`, if it is no such file."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise Misconfigured(f"{setting}: {path} can not be read: {error.strerror}") from error
    if b"-----BEGIN " not in content:
        raise Misconfigured(f"{setting}: {path} holds no PEM")
    return content


def check_pair(certificate: Path, key: Path, setting: str) -> None:
    """Return if the key belongs to the certificate. Raises `Misconfigured`, which names the key's `setting`, if
    not, and if the key has a password: nobody is there to type it."""
    try:
        # Without a callback OpenSSL would ask for a password at the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key, password=lambda: "")
    except (ssl.SSLError, ValueError) as error:
        raise Misconfigured(f"{setting}: {key} is not the key of {certificate}, or has a password") from error


def client_context(ca: Path | None, certificate: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    """What a client needs to verify a server that `ca` signed (without: one that this machine trusts), and to show
    a certificate of its own, if one is given. Raises `OSError` if a file is no good."""
    context = ssl.create_default_context(cafile=ca)
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    return context


HUNG_UP: Final = "it hangs up: does it want another certificate of us?"
"""What to say of a connection that ends while TLS begins: who refuses a certificate may not be heard to say so."""


def trouble(error: BaseException | None) -> str | None:
    """What is wrong with TLS, if an error or one that caused it says so; None if that is not it."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {error.verify_message.rstrip('.')}"
        if isinstance(error, ssl.SSLError):
            reason = (error.reason or str(error)).replace("_", " ").lower()
            if "certificate required" in reason or "handshake failure" in reason:
                return "it wants a client's certificate"
            if "alert" in reason:
                return f"it does not take our certificate: {reason}"
            return f"TLS fails: {reason}"
        error = error.__cause__ or error.__context__
    return None

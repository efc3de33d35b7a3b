"""TLS by settings: what our own servers show, and whom our clients of the API trust.

Files that are renewed while a server works are taken for the connections that come after.
"""

import logging
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

from kernel.errors import Misconfigured
from kernel.tls import client_context
from mallbots.settings import Settings

Made = TypeVar("Made")

_log = logging.getLogger(__name__)


class Renewing(Generic[Made]):
    """What is made of these files, and made anew when one of them was replaced.

    Raises what `make` raises when it is made first; later, what was made before is kept until the files are good.
    """

    def __init__(self, make: Callable[[], Made], *files: Path | None) -> None:
        self._make = make
        self._files = [file for file in files if file is not None]
        self._stamps = self._now()
        self.made = make()

    def renew(self) -> bool:
        """Look at the files. Whether `made` is another now."""
        now = self._now()
        if now == self._stamps:
            return False
        self._stamps = now
        try:
            self.made = self._make()
        except (OSError, Misconfigured) as error:
            _log.warning("the renewed certificate is not taken: %s", error)
            return False
        _log.info("the certificate was renewed: %s", self._files[0])
        return True

    def _now(self) -> list[tuple[int, int] | None]:
        return [_stamp(file) for file in self._files]


def _stamp(file: Path) -> tuple[int, int] | None:
    """What changes when a file is replaced."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino


def uvicorn_tls(settings: Settings) -> dict[str, Any]:
    """The options by which uvicorn serves the API by TLS; none if it speaks plainly. With a CA for clients, each
    must show a certificate that it signed.

    Raises `Misconfigured`, which names the setting, if a file is missing or no good.
    """
    certificate, key, client_ca = settings.api_tls_certificate, settings.api_tls_key, settings.api_tls_client_ca
    if certificate is None and key is None and client_ca is None:
        return {}

    def make() -> ssl.SSLContext:
        settings.pem_pair("api_tls_certificate", "api_tls_key")
        settings.pem("api_tls_client_ca")
        if certificate is None:
            raise Misconfigured("MALLBOTS_API_TLS_CLIENT_CA needs MALLBOTS_API_TLS_CERTIFICATE, which is not set")
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=client_ca)
        context.load_cert_chain(certificate, key)
        if client_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    renewing = Renewing(make, certificate, key, client_ca)
    listening = renewing.made

    def choose(connection: ssl.SSLObject, name: str | None, asked: ssl.SSLContext) -> None:
        renewing.renew()
        connection.context = renewing.made

    # Called at every connection, before a certificate is shown.
    listening.sni_callback = choose
    return {"ssl_context_factory": lambda config, default: listening}


def child_verification(settings: Settings) -> ssl.SSLContext | bool:
    """What httpx takes as `verify` to ask the API whether it works, by whoever started it on this machine: there
    is no doubt who answers, and the certificate is for the name that others use.

    Raises `Misconfigured` if the API would not let us ask.
    """
    if settings.api_tls_certificate is None:
        return True
    if settings.api_tls_client_ca is not None and settings.api_tls_client_certificate is None:
        raise Misconfigured(
            "MALLBOTS_API_TLS_CLIENT_CA needs MALLBOTS_API_TLS_CLIENT_CERTIFICATE, which is not set: this machine "
            "is a client of the API, too"
        )
    settings.pem_pair("api_tls_client_certificate", "api_tls_client_key")
    context = client_context(None, settings.api_tls_client_certificate, settings.api_tls_client_key)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def api_verification(settings: Settings) -> ssl.SSLContext | bool:
    """What httpx takes as `verify` to reach our API: whom it trusts, and what it shows.

    Raises `Misconfigured`, which names the setting, if a file is missing or no good.
    """
    own = settings.pem_pair("api_tls_client_certificate", "api_tls_client_key")
    if settings.pem("api_tls_ca") is None and own is None:
        return True
    return client_context(settings.api_tls_ca, settings.api_tls_client_certificate, settings.api_tls_client_key)

"""Certificates of a test's own."""

from dataclasses import dataclass, field
from pathlib import Path

import trustme

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Pair:
    """Files of a certificate with its chain, and of its key."""

    certificate: Path
    key: Path

    def replace_by(self, other: "Pair") -> None:
        """Renew the files, as tools do: by moving others into their place."""
        other.certificate.rename(self.certificate)
        other.key.rename(self.key)


@dataclass(frozen=True)
class Signer:
    """Somebody who signs certificates; `ca` is the file that says who."""

    directory: Path
    authority: trustme.CA = field(default_factory=trustme.CA)

    def __post_init__(self) -> None:
        self.directory.mkdir()
        self.authority.cert_pem.write_to_path(str(self.ca))

    @property
    def ca(self) -> Path:
        return self.directory / "ca.pem"

    def pair(self, name: str, *hosts: str, common_name: str | None = None) -> Pair:
        """A certificate for hosts (127.0.0.1, if none is named), in files of this name."""
        issued = self.authority.issue_cert(*(hosts or (HOST,)), common_name=common_name)
        pair = Pair(self.directory / f"{name}.pem", self.directory / f"{name}.key")
        issued.private_key_pem.write_to_path(str(pair.key))
        for number, part in enumerate(issued.cert_chain_pems):
            part.write_to_path(str(pair.certificate), append=number > 0)
        return pair


@dataclass(frozen=True)
class Certificates:
    """Whom we trust, and somebody whom we do not; what a server shows, and what we show."""

    ours: Signer
    strangers: Signer
    server: Pair
    client: Pair
    stranger: Pair


def certificates(directory: Path) -> Certificates:
    """New ones, in files of this directory."""
    ours, strangers = Signer(directory / "ours"), Signer(directory / "strangers")
    return Certificates(
        ours,
        strangers,
        ours.pair("server"),
        ours.pair("client", "client.example", common_name="mallbots"),
        strangers.pair("client", "client.example", common_name="mallbots"),
    )

"""What the tests of TLS share: certificates, and one server of each kind."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from tests.conftest import create_database
from tests.directories import server_directory
from tests.tls.certificates import Certificates
from tests.tls.certificates import certificates as new_certificates
from tests.tls.servers import DatabaseByTls, NatsByTls, PostgresByTls


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return new_certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
async def database(postgres: str, template: str, certificates: Certificates) -> AsyncIterator[DatabaseByTls]:
    """A database with every schema in it, that is reached by TLS alone, and with a certificate."""
    url = make_url(await create_database(postgres, template))
    server = PostgresByTls(certificates, url.host or "", url.port or 0)
    async with server.listening() as port:
        yield DatabaseByTls(url.set(port=port).render_as_string(hide_password=False), server.seen)


@pytest.fixture(scope="module")
async def nats(certificates: Certificates) -> AsyncIterator[NatsByTls]:
    with server_directory() as directory:
        server = NatsByTls(Path(directory), certificates)
        await server.start()
        yield server
        server.kill()

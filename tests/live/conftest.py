"""An API with its relays for the tests of this folder, and NATS servers that a test may kill."""

from collections.abc import AsyncIterator

import pytest

from kernel.database import Database
from tests.conftest import create_database
from tests.live.serving import Api, an_api
from tests.nats import NatsServer, a_nats_server


@pytest.fixture
async def own_nats() -> AsyncIterator[NatsServer]:
    """A NATS server of one test, that it may kill."""
    with a_nats_server() as server:
        await server.start()
        yield server


@pytest.fixture(scope="session")
async def live_database(postgres: str, template: str) -> AsyncIterator[Database]:
    """A database whose events only these tests write."""
    opened = Database("live", await create_database(postgres, template), pool_size=20)
    yield opened
    await opened.close()


@pytest.fixture(scope="session")
async def api(live_database: Database) -> AsyncIterator[Api]:
    """A server that tests share: none of them may stop it, or its NATS."""
    with a_nats_server() as nats:
        await nats.start()
        async with an_api(live_database, nats.url) as api:
            yield api

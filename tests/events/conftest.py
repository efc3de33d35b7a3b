"""A NATS server for the tests of this folder."""

from collections.abc import AsyncIterator

import pytest

from tests.nats import NatsServer, a_nats_server


@pytest.fixture
async def own_nats() -> AsyncIterator[NatsServer]:
    """A NATS server of one test, that it may kill."""
    with a_nats_server() as server:
        await server.start()
        yield server


@pytest.fixture(scope="session")
async def nats_server() -> AsyncIterator[NatsServer]:
    """A NATS server that tests share: none of them may kill it."""
    with a_nats_server() as server:
        await server.start()
        yield server

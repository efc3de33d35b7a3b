"""A NATS server for the tests of this folder, and a domain with a log of its own for each test."""

from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from events.stream import Limits, event_stream
from kernel.database import Database
from mallbots.migrations import migrate_database
from mallbots.settings import DATABASES
from tests.events.mall import Mall
from tests.nats import NatsServer, a_nats_server

@pytest.fixture(scope="session")
async def nats_server() -> AsyncIterator[NatsServer]:
    """A NATS server that all tests of this folder share: none of them may kill it."""
    with a_nats_server() as server:
        await server.start()
        yield server

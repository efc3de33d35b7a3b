"""Analytics as a process: over NATS, beside others of its kind, and on tables that somebody dropped."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from consumers.analytics.consumer import CONSUMER
from events.consumer import DOMAINS
from events.relay import Relay
from kernel.database import Database
from kernel.errors import Unavailable
from mallbots.analysing import analyse, prepare
from mallbots.settings import Settings
from tests.consumers.reading import read_all
from tests.consumers.test_analytics import a_day, numbers, settings_for
from tests.events.log import STREAM_CONFIG, running
from tests.nats import a_nats_server
from tests.waiting import eventually


@pytest.fixture
async def told(fresh_database: Database) -> dict[str, Any]:
    """The numbers of a day, as they are without NATS."""
    await a_day(fresh_database)
    await read_all(CONSUMER, fresh_database)
    return await numbers(fresh_database)


@pytest.fixture
async def settings(fresh_database: Database, told: dict[str, Any]) -> AsyncIterator[Settings]:
    """A mall whose events of that day are relayed."""
    with a_nats_server() as nats:
        await nats.start()
        relays = [Relay(domain, fresh_database, nats.url, STREAM_CONFIG).run() for domain in DOMAINS]
        async with running(*relays):
            yield settings_for(fresh_database).model_copy(update={"nats_url": SecretStr(nats.url)})


async def execute(database: Database, statement: str) -> None:
    async with database.transaction() as connection:
        await connection.execute(text(statement))


async def tells(database: Database, told: dict[str, Any]) -> bool:
    """Whether Analytics has these numbers."""
    try:
        return await numbers(database) == told
    except Unavailable:
        return False


FALSIFY = "UPDATE analytics.sale_lines SET cents = cents + 1"


async def test_of_many_that_start_at_once_one_makes_the_tables_and_all_find_them_whole(
    fresh_database: Database, told: dict[str, Any], settings: Settings
) -> None:
    await execute(fresh_database, "DROP SCHEMA analytics CASCADE")

    async def tables() -> int:
        """Which tables one that starts finds, or makes."""
        await prepare(settings)
        async with fresh_database.transaction() as connection:
            table = await connection.execute(text("SELECT 'analytics.orders'::regclass::oid::bigint"))
            return int(table.scalar_one())

    assert len(set(await asyncio.gather(*(tables() for _ in range(4))))) == 1
    async with running(*(analyse(settings) for _ in range(3))):
        await eventually(lambda: tells(fresh_database, told))


async def test_a_rebuild_is_whole_although_others_are_at_work_and_nothing_new_happens(
    fresh_database: Database, told: dict[str, Any], settings: Settings
) -> None:
    async with running(analyse(settings)):
        await execute(fresh_database, FALSIFY)
        async with running(analyse(settings, rebuild=True)):
            await eventually(lambda: tells(fresh_database, told))
        await execute(fresh_database, FALSIFY)
        await prepare(settings, rebuild=True)
        await eventually(lambda: tells(fresh_database, told))


async def test_a_rebuild_that_meets_somebody_in_the_tables_begins_when_they_are_done(
    fresh_database: Database, told: dict[str, Any], settings: Settings
) -> None:
    await execute(fresh_database, FALSIFY)
    async with AsyncExitStack() as stack:
        with suppress(Unavailable):
            async with fresh_database.transaction() as reader:
                await reader.execute(text("SELECT count(*) FROM analytics.robot_lists"))
                await stack.enter_async_context(running(analyse(settings, rebuild=True)))
                waits = text("SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'relation'")
                await eventually(lambda: reader.scalar(waits))
                # Now each waits for the other, until PostgreSQL ends one of them: first it looks at the rebuild.
                await reader.execute(text("SELECT count(*) FROM analytics.orders"))
        await eventually(lambda: tells(fresh_database, told))

"""The event store: versions without gaps, one winner, cause on record."""

import asyncio
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from domains.depot.messages import EVENTS, ShoppingListCancelled
from events.store import Causation, EventStore, caused_by
from kernel.database import Database
from kernel.errors import ConcurrencyConflict, Unavailable
from kernel.ids import new_id

STORE = EventStore("depot", EVENTS)


def event(reason: str) -> ShoppingListCancelled:
    return ShoppingListCancelled(order_id=UUID(int=1), reason=reason)


async def test_what_was_appended_is_loaded_in_order(database: Database) -> None:
    stream = f"test-{new_id()}"
    async with database.transaction() as connection:
        await STORE.append(connection, stream, 0, [event("first"), event("second")])
    async with database.transaction() as connection:
        await STORE.append(connection, stream, 2, [event("third")])
        assert await STORE.load(connection, stream) == [event("first"), event("second"), event("third")]


async def test_of_two_who_saw_the_same_version_one_wins(database: Database) -> None:
    stream = f"test-{new_id()}"

    async def append(reason: str) -> None:
        async with database.transaction() as connection:
            seen = len(await STORE.load(connection, stream))
            await both_have_seen.wait()
            await STORE.append(connection, stream, seen, [event(reason)])

    both_have_seen = asyncio.Barrier(2)
    outcomes = await asyncio.gather(append("a"), append("b"), return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["ConcurrencyConflict", "NoneType"]
    async with database.transaction() as connection:
        assert len(await STORE.load(connection, stream)) == 1


async def test_of_several_events_saved_together_all_are_saved_or_none(database: Database) -> None:
    stream = f"test-{new_id()}"
    async with database.transaction() as connection:
        await STORE.append(connection, stream, 0, [event("first")])
    with pytest.raises(ConcurrencyConflict):
        async with database.transaction() as connection:
            await STORE.append(connection, stream, 0, [event("late"), event("later")])
    async with database.transaction() as connection:
        assert await STORE.load(connection, stream) == [event("first")]


async def test_events_carry_the_order_and_the_step_that_caused_them(database: Database) -> None:
    stream, order_id = f"test-{new_id()}", new_id()
    with caused_by(Causation(correlation_id=order_id, causation_id="depot.cancel/run/1")):
        async with database.transaction() as connection:
            await STORE.record(connection, [(stream, event("caused")), (stream, event("twice"))])
    async with database.transaction() as connection:
        rows = await connection.execute(
            text(
                "SELECT version, correlation_id, causation_id FROM depot.events"
                " WHERE stream = :stream ORDER BY version"
            ),
            {"stream": stream},
        )
        assert [tuple(row) for row in rows] == [
            (1, order_id, "depot.cancel/run/1"),
            (2, order_id, "depot.cancel/run/1"),
        ]


async def test_a_database_that_is_away_is_told_as_unavailable() -> None:
    nobody = Database("orders", "postgresql+asyncpg://mallbots:x@127.0.0.1:1/none")
    with pytest.raises(Unavailable, match="orders database does not answer"):
        await nobody.ping()
    await nobody.close()


@pytest.mark.parametrize(
    "state",
    [
        pytest.param("53100", id="disk full"),
        pytest.param("53200", id="out of memory"),
        pytest.param("53300", id="too many connections"),
        pytest.param("57014", id="statement given up"),
        pytest.param("58030", id="disk does not answer"),
        pytest.param("40001", id="transactions in each other's way"),
        pytest.param("55P03", id="lock not available"),
    ],
)
async def test_a_database_that_can_not_go_on_is_told_as_unavailable(database: Database, state: str) -> None:
    with pytest.raises(Unavailable, match="the test database"):
        async with database.transaction() as connection:
            await connection.execute(text(f"DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{state}'; END $$"))


async def test_a_database_that_only_reads_is_told_as_unavailable(database: Database) -> None:
    async def append() -> None:
        async with database.transaction() as connection:
            await connection.execute(text("SET TRANSACTION READ ONLY"))
            await STORE.append(connection, f"test-{new_id()}", 0, [event("first")])

    with pytest.raises(Unavailable, match="test database does not answer"):
        await append()


async def test_a_statement_that_is_wrong_is_no_outage(database: Database) -> None:
    with pytest.raises(DBAPIError, match="smallint out of range"):
        async with database.transaction() as connection:
            await connection.execute(text("SELECT CAST(1 << 20 AS smallint)"))

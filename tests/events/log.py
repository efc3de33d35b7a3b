"""A domain's log in a test's own database, and what writes, relays and reads it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domains.depot.messages import EVENTS, ShoppingListCancelled
from events.recorded import RecordedEvent
from events.relay import Relay
from events.store import EventStore
from events.stream import Limits, connected, event_stream
from kernel.database import Database
from kernel.errors import Unavailable
from kernel.ids import new_id
from mallbots.audit_look import whole_stream
from tests.waiting import eventually

STORE = EventStore("depot", EVENTS)
STREAM_CONFIG = event_stream(Limits(timedelta(days=1), 1 << 30))


async def append(connection: AsyncConnection, stream: UUID, *reasons: str) -> None:
    """Append an event for each reason to the stream of a list, in the transaction of the connection."""
    events = [ShoppingListCancelled(order_id=stream, reason=reason) for reason in reasons]
    await STORE.record(connection, [(f"list-{stream}", event) for event in events])


async def write(database: Database, stream: UUID, *reasons: str) -> None:
    """Append an event for each reason to the stream of a list."""
    async with database.transaction() as connection:
        await append(connection, stream, *reasons)


async def write_many(database: Database, streams: int, events: int) -> None:
    """So many streams with so many events each, a transaction each, many at once."""
    slots = asyncio.Semaphore(10)

    async def one() -> None:
        stream = new_id()
        for number in range(events):
            async with slots:
                await write(database, stream, str(number))

    await asyncio.gather(*(one() for _ in range(streams)))


@asynccontextmanager
async def running(*work: Any) -> AsyncIterator[None]:
    """Do all of this side by side for as long as the block lasts."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome


def relay(database: Database, nats_url: str) -> Any:
    """A relay of Depot's log at work."""
    return Relay("depot", database, nats_url, STREAM_CONFIG).run()


async def recorded(database: Database) -> list[tuple[UUID, str, int]]:
    """Every event of Depot, archived or not: its id, stream and version."""
    async with database.transaction() as connection:
        rows = await connection.execute(text("SELECT id, stream, version FROM depot.all_events"))
        return [(row.id, row.stream, row.version) for row in rows]


async def published(nats_url: str) -> list[RecordedEvent]:
    """Everything that is in the stream now, in its order; empty while there is none."""
    try:
        return await whole_stream(nats_url)
    except Unavailable:
        return []


async def all_published(database: Database, nats_url: str, timeout: float = 20) -> list[RecordedEvent]:
    """The stream once it has as many events as are recorded."""
    number = len(await recorded(database))

    async def are() -> bool:
        return await _count(nats_url) >= number

    await eventually(are, timeout)
    return await published(nats_url)


async def _count(nats_url: str) -> int:
    try:
        async with connected(nats_url, "test") as nats:
            return (await nats.jetstream.stream_info("MALLBOTS")).state.messages
    except Exception:
        return 0


def assert_once_and_in_order(found: list[RecordedEvent], rows: list[tuple[UUID, str, int]]) -> None:
    """Each event of the table is in the stream exactly once, and each stream's events in order."""
    assert sorted(event.id for event in found) == sorted(row[0] for row in rows)
    versions: dict[str, list[int]] = {}
    for event in found:
        versions.setdefault(event.stream, []).append(event.version)
    for stream, seen in versions.items():
        assert seen == list(range(1, len(seen) + 1)), stream
    for before, after in pairwise(found):
        assert before.position < after.position
        assert after.previous == before.position

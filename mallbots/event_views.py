"""Events as operators look at them: a stream and its fold, the live tail, how far everybody is, dead letters."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from pydantic import BaseModel

from consumers.homes import HomeName
from consumers.watch import Progress, Retried, Watch, numberings
from domains.orders.model import Order
from domains.payments.model import Payment
from domains.published import PUBLISHED
from events.dead_letters import DeadLetter
from events.log import EventLog
from events.numbering import Numbering
from events.recorded import ROOT, RecordedEvent
from events.stream import connected, first_sequence, follow, last_sequence
from kernel.database import Database
from kernel.errors import InvalidInput, NotFound, Unavailable
from kernel.messages import DomainName
from mallbots.settings import DatabaseName, Settings

STREAMS: Final = {
    pattern.partition("-")[0]: domain for domain, published in PUBLISHED.items() for pattern in published.streams
}
"""The domain of a stream, by the first word of its name."""
TYPES: Final = {event.__name__ for published in PUBLISHED.values() for event in published.events}

_SOURCED: Final[Mapping[str, type[Order] | type[Payment]]] = {"order": Order, "payment": Payment}
_PAUSE: Final = 1.0


@dataclass(frozen=True)
class Shown:
    """The events of a stream, and what they come to if the domain is event-sourced."""

    events: list[RecordedEvent]
    fold: BaseModel | None


async def show_stream(settings: Settings, stream: str, until_version: int | None = None) -> Shown:
    """A stream up to a version, or whole. Raises `NotFound`, and `InvalidInput` for a name that no stream has."""
    kind = stream.partition("-")[0]
    if kind not in STREAMS:
        known = ", ".join(f"{name}-…" for name in STREAMS)
        raise InvalidInput(f"{stream} is not the name of a stream: they are {known}", "stream")
    domain = STREAMS[kind]
    async with _open(settings, domain) as database, database.transaction() as connection:
        events = await EventLog(domain).of_stream(connection, stream)
    events = [event for event in events if until_version is None or event.version <= until_version]
    if not events:
        raise NotFound(f"there is no stream {stream}")
    return Shown(events, _fold(kind, events))


def _fold(kind: str, events: list[RecordedEvent]) -> BaseModel | None:
    aggregate = _SOURCED.get(kind)
    if aggregate is None:
        return None
    known = PUBLISHED[STREAMS[kind]].events
    return aggregate.fold(read for event in events if (read := event.read_one_of(known))).view


async def tail(
    settings: Settings, *, order_id: UUID | None = None, event_type: str | None = None, after: int | None = None
) -> AsyncIterator[RecordedEvent | Unavailable]:
    """Events as they come, those of an order from its first, the others from now on or behind a position; an
    outage is told and waited for. Ends never.

    Raises `InvalidInput` for a type that there is not, or a position that lies in the future.
    """
    if event_type is not None and event_type not in TYPES:
        raise InvalidInput(f"there is no event {event_type}, only {', '.join(sorted(TYPES))}", "type")
    pattern = f"{ROOT}.*.{event_type}.*" if event_type else f"{ROOT}.>"
    while True:
        try:
            async with connected(settings.nats_address(), "tail") as nats:
                last = await last_sequence(nats.jetstream)
                if after is None:
                    after = await first_sequence(nats.jetstream) - 1 if order_id else last
                if after > last:
                    raise InvalidInput(f"position {after} lies in the future: the last one is {last}", "after")
                async for events in follow(nats, after, [pattern]):
                    for event in events:
                        after = event.sequence
                        if order_id in (None, event.correlation_id):
                            yield event
        except Unavailable as outage:
            yield outage
            await asyncio.sleep(_PAUSE)


async def relay_progress(settings: Settings) -> list[Progress]:
    """How far the relay of each domain is, as the stream says; while NATS is away, as the relay noted it last."""
    async with _watch(settings) as watch:
        return await watch.relays()


async def consumer_progress(settings: Settings) -> list[Progress]:
    """How far each consumer is in each domain that it listens to; of its partitions, the one farthest behind."""
    async with _watch(settings) as watch:
        return await watch.consumers()


async def log_numbering(settings: Settings) -> dict[DomainName, Numbering]:
    """How each domain's log is numbered, up to the last event that is in it or was read of it."""
    async with _databases(settings) as database:
        return await numberings(database)


async def all_dead_letters(settings: Settings) -> list[DeadLetter]:
    """The dead letters of every consumer."""
    async with _watch(settings) as watch:
        return await watch.dead_letters()


async def retry_dead_letters(
    settings: Settings, consumer: str | None, event_id: UUID | None, patience: float
) -> Retried:
    """Send dead letters again and wait up to `patience` seconds for what comes of it.

    Raises `InvalidInput` for a consumer that there is not, `NotFound` if there is no such letter.
    """
    async with _watch(settings) as watch:
        return await watch.retry(consumer, event_id, patience)


@asynccontextmanager
async def _watch(settings: Settings) -> AsyncIterator[Watch]:
    async with _databases(settings) as database:
        yield Watch(settings.nats_address(), database)


@asynccontextmanager
async def _databases(settings: Settings) -> AsyncIterator[Callable[[HomeName], Database]]:
    """Opens the database of a name, once."""
    async with AsyncExitStack() as stack:
        opened: dict[HomeName, Database] = {}

        def database(name: HomeName) -> Database:
            if name not in opened:
                opened[name] = Database(name, settings.database_url(name), pool_size=1)
                stack.push_async_callback(opened[name].close)
            return opened[name]

        yield database


@asynccontextmanager
async def _open(settings: Settings, name: DatabaseName) -> AsyncIterator[Database]:
    database = Database(name, settings.database_url(name), pool_size=1)
    try:
        yield database
    finally:
        await database.close()

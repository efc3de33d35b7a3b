"""Events as operators look at them: a stream and its fold, the live tail, how far everybody is, dead letters."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import text

from domains.orders.model import Order
from domains.payments.model import Payment
from domains.published import PUBLISHED
from events.consumer import DOMAINS
from events.dead_letters import DeadLetter, ask_for_retry, dead_letters
from events.log import EventLog
from events.recorded import ROOT, START, LogPosition, RecordedEvent
from events.stream import connected, first_sequence, follow, last_sequence, newest
from kernel.database import Database
from kernel.errors import InvalidInput, NotFound, Unavailable
from kernel.ids import now
from kernel.messages import DomainName
from mallbots.consuming import ALL_ROLES, Role
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


@dataclass(frozen=True)
class Progress:
    """How far a reader of a domain's log is behind: so many events, the oldest of them so many seconds old."""

    reader: str
    domain: DomainName
    waiting: int
    seconds: float


async def relay_progress(settings: Settings) -> list[Progress]:
    """How far the relay of each domain is, as the stream says; while NATS is away, as the relay noted it last."""
    try:
        async with connected(settings.nats_address(), "status") as nats:
            last = {domain: await newest(nats.jetstream, f"{ROOT}.{domain}.>") for domain in DOMAINS}
    except Unavailable:
        last = {}
    progress = []
    for domain in DOMAINS:
        async with _open(settings, domain) as database, database.transaction() as connection:
            event = last.get(domain)
            noted = f"SELECT transaction_id, position FROM {domain}.relay_position"
            row = (await connection.execute(text(noted))).first()
            position = event.position if event else LogPosition(*row) if row else START
            waiting = await EventLog(domain).waiting(connection, position)
        progress.append(Progress("relay", domain, waiting.events, _age(waiting.since)))
    return progress


async def consumer_progress(settings: Settings) -> list[Progress]:
    """How far each consumer is in each domain that it listens to; of its partitions, the one farthest behind.

    (A consumer notes where it is when it handles an event, and once a second while it passes others over.)
    """
    progress = []
    for name, role in ALL_ROLES.items():
        consumer = role.consumer(settings)
        async with _open(settings, role.database) as database, database.transaction() as connection:
            farthest = text(
                "SELECT DISTINCT ON (domain) domain, transaction_id, position"
                f" FROM {consumer.schema}.consumer_positions WHERE consumer = :consumer"
                " ORDER BY domain, transaction_id, position"
            )
            known = await connection.scalar(text(f"SELECT to_regclass('{consumer.schema}.consumer_positions')"))
            rows = (await connection.execute(farthest, {"consumer": name})).all() if known else ()
            positions = {row.domain: LogPosition(row.transaction_id, row.position) for row in rows}
        for domain in consumer.domains:
            async with _open(settings, domain) as database, database.transaction() as connection:
                waiting = await EventLog(domain).waiting(connection, positions.get(domain, START))
            progress.append(Progress(name, domain, waiting.events, _age(waiting.since)))
    return progress


async def all_dead_letters(settings: Settings) -> list[DeadLetter]:
    """The dead letters of every consumer."""
    letters = []
    for role in _homes(settings):
        async with _open(settings, role.database) as database:
            letters += await dead_letters(database, role.consumer(settings).schema)
    return letters


@dataclass(frozen=True)
class Retried:
    """What became of the dead letters that were sent again: handled, failed once more, or not taken up."""

    handled: int
    failed: list[DeadLetter]
    not_taken: int


async def retry_dead_letters(
    settings: Settings, consumer: str | None, event_id: UUID | None, patience: float
) -> Retried:
    """Send dead letters again and wait up to `patience` seconds for what comes of it.

    Raises `InvalidInput` for a consumer that there is not, `NotFound` if there is no such letter.
    """
    if consumer is not None and consumer not in ALL_ROLES:
        raise InvalidInput(f"there is no consumer {consumer}, only {', '.join(ALL_ROLES)}", "consumer")
    asked: set[UUID] = set()
    for role in _homes(settings):
        async with _open(settings, role.database) as database:
            asked |= set(await ask_for_retry(database, role.consumer(settings).schema, consumer, event_id))
    if not asked:
        raise NotFound("there is no such dead letter")
    deadline = time.monotonic() + patience
    while True:
        left = [letter for letter in await all_dead_letters(settings) if letter.event_id in asked]
        waiting = [letter for letter in left if letter.retry_asked_at is not None]
        if not waiting or time.monotonic() > deadline:
            failed = [letter for letter in left if letter.error and letter.retry_asked_at is None]
            return Retried(len(asked) - len({letter.event_id for letter in left}), failed, len(waiting))
        await asyncio.sleep(0.2)


def _homes(settings: Settings) -> list[Role]:
    """One role for each schema that keeps dead letters."""
    return list({role.consumer(settings).schema: role for role in ALL_ROLES.values()}.values())


def _age(since: datetime | None) -> float:
    return (now() - since).total_seconds() if since else 0.0


@asynccontextmanager
async def _open(settings: Settings, name: DatabaseName) -> AsyncIterator[Database]:
    database = Database(name, settings.database_url(name), pool_size=1)
    try:
        yield database
    finally:
        await database.close()

"""How far everybody who reads events is behind, and the dead letters of all of them."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import text

from consumers.homes import HOMES, Home, HomeName
from events.consumer import DOMAINS
from events.dead_letters import DeadLetter, ask_for_retry, dead_letters
from events.log import EventLog
from events.numbering import Numbering, numbering
from events.recorded import ROOT, START, LogPosition, RecordedEvent
from events.stream import connected, newest
from kernel.database import Database
from kernel.errors import InvalidInput, NotFound, Unavailable
from kernel.ids import now
from kernel.messages import DomainName

LETTER_HOMES: Final = {home.consumer.schema: home for home in HOMES.values()}
"""One home for each schema that keeps dead letters."""


@dataclass(frozen=True)
class Progress:
    """How far a reader of a domain's log is behind: so many events, the oldest of them so many seconds old."""

    reader: str
    domain: DomainName
    waiting: int
    seconds: float


@dataclass(frozen=True)
class Retried:
    """What became of the dead letters that were sent again: handled, failed once more, or not taken up."""

    handled: int
    failed: list[DeadLetter]
    not_taken: int


class Watch:
    """Looks at the readers of events. `database` gives the database of a name."""

    def __init__(self, nats_url: str, database: Callable[[HomeName], Database]) -> None:
        self._nats_url = nats_url
        self._database = database

    async def relays(self) -> list[Progress]:
        """How far the relay of each domain is, as the stream says; while NATS is away, as the relay noted it last.
        Raises `Unavailable` if a domain's database is."""
        published: dict[DomainName, RecordedEvent] = {}
        with suppress(Unavailable):
            published = await self.published()
        return [await self.relay(domain, published.get(domain)) for domain in DOMAINS]

    async def published(self) -> dict[DomainName, RecordedEvent]:
        """The newest event of each domain in the stream. Raises `Unavailable` while NATS is away."""
        async with connected(self._nats_url, "status") as nats:
            last = {domain: await newest(nats.jetstream, f"{ROOT}.{domain}.>") for domain in DOMAINS}
        return {domain: event for domain, event in last.items() if event is not None}

    async def relay(self, domain: DomainName, published: RecordedEvent | None) -> Progress:
        """How far the relay of a domain is, whose newest event in the stream is given, if it is known. Raises
        `Unavailable`."""
        async with self._database(domain).transaction() as connection:
            noted = f"SELECT transaction_id, position FROM {domain}.relay_position"
            row = (await connection.execute(text(noted))).first()
            position = published.position if published else LogPosition(*row) if row else START
            waiting = await EventLog(domain).waiting(connection, position)
        return Progress("relay", domain, waiting.events, _age(waiting.since))

    async def consumers(self) -> list[Progress]:
        """How far each consumer is. Raises `Unavailable`."""
        return [progress for home in HOMES.values() for progress in await self.consumer(home)]

    async def consumer(self, home: Home) -> list[Progress]:
        """How far a consumer is in each domain that it listens to; of its partitions, the one farthest behind.
        Raises `Unavailable`.

        (A consumer notes where it is when it handles an event, and once a second while it passes others over.)
        """
        consumer = home.consumer
        async with self._database(home.database).transaction() as connection:
            farthest = text(
                "SELECT DISTINCT ON (domain) domain, transaction_id, position"
                f" FROM {consumer.schema}.consumer_positions WHERE consumer = :consumer"
                " ORDER BY domain, transaction_id, position"
            )
            known = await connection.scalar(text(f"SELECT to_regclass('{consumer.schema}.consumer_positions')"))
            rows = (await connection.execute(farthest, {"consumer": consumer.name})).all() if known else ()
            positions = {row.domain: LogPosition(row.transaction_id, row.position) for row in rows}
        progress = []
        for domain in consumer.domains:
            async with self._database(domain).transaction() as connection:
                waiting = await EventLog(domain).waiting(connection, positions.get(domain, START))
            progress.append(Progress(consumer.name, domain, waiting.events, _age(waiting.since)))
        return progress

    async def dead_letters(self) -> list[DeadLetter]:
        """The dead letters of every consumer. Raises `Unavailable`."""
        return [letter for home in LETTER_HOMES.values() for letter in await self.dead_letters_of(home)]

    async def how_many_dead_letters(self, home: Home) -> dict[str, int]:
        """How many dead letters each consumer keeps in this home's schema; the home's own is always told. Raises
        `Unavailable`."""
        counted = (
            f"SELECT consumer, count(*) AS letters FROM {home.consumer.schema}.dead_letters GROUP BY consumer"
        )
        async with self._database(home.database).transaction() as connection:
            rows = await connection.execute(text(counted))
            return {home.consumer.name: 0} | {row.consumer: row.letters for row in rows}

    async def dead_letters_of(self, home: Home) -> list[DeadLetter]:
        """The dead letters of every consumer that keeps them in this home's schema. Raises `Unavailable`."""
        return await dead_letters(self._database(home.database), home.consumer.schema)

    async def retry(self, consumer: str | None, event_id: UUID | None, patience: float) -> Retried:
        """Send dead letters again (of a consumer, of an event's stream, or all), and wait up to `patience` seconds
        for what comes of it.

        Raises `InvalidInput` for a consumer that there is not, `NotFound` if there is no such letter, and
        `Unavailable`.
        """
        if consumer is not None and consumer not in HOMES:
            raise InvalidInput(f"there is no consumer {consumer}, only {', '.join(HOMES)}", "consumer")
        homes = LETTER_HOMES.values() if consumer is None else [HOMES[consumer]]
        asked: set[UUID] = set()
        for home in homes:
            database = self._database(home.database)
            asked |= set(await ask_for_retry(database, home.consumer.schema, consumer, event_id))
        if not asked:
            raise NotFound("there is no such dead letter")
        deadline = time.monotonic() + patience
        while True:
            letters = [letter for home in homes for letter in await self.dead_letters_of(home)]
            left = [letter for letter in letters if letter.event_id in asked]
            waiting = [letter for letter in left if letter.retry_asked_at is not None]
            if not waiting or time.monotonic() > deadline:
                failed = [letter for letter in left if letter.error and letter.retry_asked_at is None]
                return Retried(len(asked) - len({letter.event_id for letter in left}), failed, len(waiting))
            await asyncio.sleep(0.2)


async def numberings(database: Callable[[HomeName], Database]) -> dict[DomainName, Numbering]:
    """How each domain's log is numbered, up to the last event that is in it or that any consumer has read. Raises
    `Unavailable` if a domain's database is away; a consumer whose database is, is not asked."""
    # The readers first: meanwhile they go on.
    reached: Counter[DomainName] = Counter()
    for home in HOMES.values():
        with suppress(Unavailable):
            async with database(home.database).transaction() as connection:
                table = f"{home.consumer.schema}.consumer_positions"
                if await connection.scalar(text(f"SELECT to_regclass('{table}')")):
                    for row in await connection.execute(text(f"SELECT domain, transaction_id FROM {table}")):
                        reached[row.domain] = max(reached[row.domain], row.transaction_id)
    found = {}
    for domain in DOMAINS:
        async with database(domain).transaction() as connection:
            numbers = await numbering(connection, domain)
        found[domain] = Numbering(max(numbers.last, reached[domain]), numbers.next)
    return found


def _age(since: datetime | None) -> float:
    return (now() - since).total_seconds() if since else 0.0

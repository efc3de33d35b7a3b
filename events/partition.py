"""One partition of a consumer at work: reads on from its position, and lets each event take effect once."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

from opentelemetry import metrics
from sqlalchemy import text

from events.consumer import Consumer
from events.dead_letters import DeadLetters
from events.log import EventLog
from events.recorded import ROOT, LogPosition, RecordedEvent
from events.spans import about, taking_effect
from events.stream import Connection, at, connected, follow, last_sequence, oldest, stop_if_cancelled
from kernel.database import Database
from kernel.errors import Misconfigured, Unavailable
from kernel.ids import now
from kernel.messages import DomainName

MOST_ATTEMPTS: Final = 5
FIRST_BACKOFF: Final = 0.1

_MOST_AT_ONCE: Final = 200
_LINGER: Final = 0.05
_SAVE_PASSED_OVER: Final = 1.0
_LOOK_FOR_RETRIES: Final = 1.0
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0

_log = logging.getLogger(__name__)
_meter = metrics.get_meter("mallbots.consumer")
_handled = _meter.create_counter("mallbots.consumer.handled", "{event}", "Events that took effect")
_set_aside = _meter.create_counter("mallbots.consumer.set_aside", "{event}", "Events set aside as dead letters")
_delay = _meter.create_histogram(
    "mallbots.consumer.delay",
    "s",
    "Time from the record of an event to its effect",
    explicit_bucket_boundaries_advisory=(0.05, 0.1, 0.25, 0.5, 1, 5, 30, 60, 300, 3600),
)


@dataclass(frozen=True)
class Feed:
    """Where events come from: NATS, and behind it the tables of the domains."""

    nats_url: str
    domains: Mapping[DomainName, Database]


@dataclass
class _Place:
    """How far the log of one domain is read."""

    position: LogPosition
    sequence: int

    def move_to(self, event: RecordedEvent) -> None:
        """This event is read. One that came from the table does not say where it is in the stream."""
        self.position = event.position
        self.sequence = event.sequence or self.sequence


class Partition:
    """The reader of one partition. If two processes run it, one of them fails at its next write."""

    def __init__(self, consumer: Consumer, number: int, database: Database, feed: Feed) -> None:
        self._consumer = consumer
        self._number = number
        self._database = database
        self._feed = feed
        self._name = f"{consumer.name}/{number}"
        self._places: dict[DomainName, _Place] = {}
        self._saved: dict[DomainName, LogPosition] = {}
        self._saved_at = 0.0
        self._looked_at = 0.0
        self._letters = DeadLetters(consumer, number)
        table = f"{consumer.schema}.consumer_positions"
        self._partitions = text(f"SELECT count(DISTINCT partition) FROM {table} WHERE consumer = :consumer")
        self._open = text(
            f"INSERT INTO {table} (consumer, partition, domain, transaction_id, position, sequence)"
            " SELECT :consumer, number, :domain, 0, 0, 0"
            " FROM generate_series(0, CAST(:partitions AS int) - 1) AS number ON CONFLICT DO NOTHING"
        )
        self._load = text(
            f"SELECT domain, transaction_id, position, sequence FROM {table}"
            " WHERE consumer = :consumer AND partition = :partition AND domain = ANY(:domains)"
        )
        self._save = text(
            f"UPDATE {table} SET transaction_id = :transaction_id, position = :number, sequence = :sequence,"
            " moved_at = now() WHERE consumer = :consumer AND partition = :partition AND domain = :domain"
            " AND (transaction_id, position) = (:old_transaction_id, :old_number)"
        )
        self._me = {"consumer": consumer.name, "partition": number}

    async def run(self) -> None:
        """Read until cancelled, through every outage. Raises `Misconfigured` if the consumer ran before with
        another number of partitions."""
        trouble, pause = "", _FIRST_PAUSE
        while True:
            stop_if_cancelled()
            try:
                await self._open_places()
                async with connected(self._feed.nats_url, f"consumer-{self._name}") as nats:
                    after = await self._catch_up(nats)
                    async for events in follow(
                        nats, after, [f"{ROOT}.{name}.>" for name in self._consumer.domains]
                    ):
                        trouble, pause = "", _FIRST_PAUSE
                        await self._take(events)
                        if events:
                            # What comes meanwhile takes effect together.
                            await asyncio.sleep(_LINGER)
            except Unavailable as error:
                if error.message != trouble:
                    trouble = error.message
                    _log.warning("consumer %s: %s; it goes on when that is over", self._name, trouble)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _open_places(self) -> None:
        async with self._database.transaction() as connection:
            partitions = await connection.scalar(self._partitions, {"consumer": self._consumer.name})
            if partitions not in (0, self._consumer.partitions):
                raise Misconfigured(
                    f"consumer {self._consumer.name} has {partitions} partitions in its database, "
                    f"not {self._consumer.partitions}: their number is fixed once it has run"
                )
            for domain in self._consumer.domains:
                await connection.execute(
                    self._open,
                    {"consumer": self._consumer.name, "domain": domain, "partitions": self._consumer.partitions},
                )
            rows = await connection.execute(self._load, {**self._me, "domains": list(self._consumer.domains)})
            self._places = {
                row.domain: _Place(LogPosition(row.transaction_id, row.position), row.sequence) for row in rows
            }
            await self._letters.load(connection)
        self._saved = {domain: place.position for domain, place in self._places.items()}

    async def _catch_up(self, nats: Connection) -> int:
        """Read from the tables what the stream does not have; the sequence behind which to follow the stream."""
        end = await last_sequence(nats.jetstream)
        starts = [end]
        for domain, place in self._places.items():
            first = await oldest(nats.jetstream, domain)
            if first is None or first.previous is None or first.previous > place.position:
                await self._read_table(domain)
            else:
                assert first.sequence is not None
                # A stream that was made anew, or lost its end, counts anew.
                there = await at(nats.jetstream, place.sequence)
                is_valid = there is not None and there.domain == domain and there.position <= place.position
                noted = place.sequence if is_valid else 0
                starts.append(max(noted, first.sequence - 1))
        return min(starts)

    async def _read_table(self, domain: DomainName, until: LogPosition | None = None) -> None:
        """Let the events of a domain's own table take effect, all that there are or those up to `until`."""
        log, place = EventLog(domain), self._places[domain]
        while until is None or place.position < until:
            async with self._feed.domains[domain].transaction() as connection:
                page = await log.after(connection, place.position, _MOST_AT_ONCE)
            events = [event for event in page.events if until is None or event.position <= until]
            if not events:
                return
            await self._apply(events)

    async def _take(self, events: Sequence[RecordedEvent]) -> None:
        """Let delivered events take effect: those that are new, after those that were missed before them."""
        for domain, of_domain in groupby(events, key=lambda event: event.domain):
            new: list[RecordedEvent] = []
            for event in of_domain:
                assert event.previous is not None
                position = new[-1].position if new else self._places[domain].position
                if event.position <= position:
                    continue
                if event.previous > position:
                    await self._apply(new)
                    new = []
                    _log.warning(
                        "consumer %s: the stream lacks events of %s; they are read from its table",
                        self._name,
                        domain,
                    )
                    await self._read_table(domain, until=event.previous)
                new.append(event)
            await self._apply(new)
        await self._save_what_was_passed_over()
        await self._retry_letters()

    async def _apply(self, events: Sequence[RecordedEvent]) -> None:
        """Let events of one domain take effect, some together in a transaction; where one fails, each alone."""
        for start in range(0, len(events), _MOST_AT_ONCE):
            batch = events[start : start + _MOST_AT_ONCE]
            wanted = [event for event in batch if self._consumer.wants(event, self._number)]
            try:
                await self._apply_together(batch, wanted)
            except Unavailable:
                raise
            except Exception:
                for event in batch:
                    with about(event):
                        await self._apply_alone(event)

    async def _apply_together(self, batch: Sequence[RecordedEvent], wanted: Sequence[RecordedEvent]) -> None:
        last = batch[-1]
        if wanted:
            async with self._database.transaction() as connection:
                for event in wanted:
                    if await self._letters.holds_up(connection, event):
                        await self._letters.add(connection, event)
                    else:
                        with taking_effect(event, self._consumer.name):
                            await self._consumer.handle(connection, event)
                await self._move(connection, last.domain, last.position, last.sequence)
            self._saved[last.domain] = last.position
            _handled.add(len(wanted), {"consumer": self._consumer.name})
            time = now()
            for event in wanted:
                _delay.record((time - event.recorded_at).total_seconds(), {"consumer": self._consumer.name})
        self._places[last.domain].move_to(last)

    async def _apply_alone(self, event: RecordedEvent) -> None:
        """Let one event take effect, in several attempts; set it aside when they are over."""
        wanted = [event] if self._consumer.wants(event, self._number) else []
        for attempt in range(1, MOST_ATTEMPTS + 1):
            try:
                await self._apply_together([event], wanted)
                return
            except Unavailable:
                raise
            except Exception as error:
                _log.warning(
                    "consumer %s: attempt %d of event %s (%s) failed",
                    self._name,
                    attempt,
                    event.id,
                    event.subject,
                    exc_info=error,
                )
                if attempt == MOST_ATTEMPTS:
                    await self._set_aside(event, attempt, error)
                else:
                    await asyncio.sleep(FIRST_BACKOFF * 2 ** (attempt - 1))

    async def _set_aside(self, event: RecordedEvent, attempts: int, error: Exception) -> None:
        async with self._database.transaction() as connection:
            await self._letters.add(connection, event, attempts, f"{type(error).__name__}: {error}")
            await self._move(connection, event.domain, event.position, event.sequence)
        self._saved[event.domain] = event.position
        self._places[event.domain].move_to(event)
        _set_aside.add(1, {"consumer": self._consumer.name})
        _log.error(
            "consumer %s: event %s (%s) is set aside, with what follows in its stream; "
            "`mallbots events retry` sends it again",
            self._name,
            event.id,
            event.subject,
        )

    async def _move(
        self, connection: Any, domain: DomainName, position: LogPosition, sequence: int | None
    ) -> None:
        """Move the position with the transaction. Raises `Unavailable` if another process has moved it."""
        old = self._saved[domain]
        moved = await connection.execute(
            self._save,
            {
                **self._me,
                "domain": domain,
                **position._asdict(),
                "sequence": sequence or self._places[domain].sequence,
                "old_transaction_id": old.transaction_id,
                "old_number": old.number,
            },
        )
        if moved.rowcount != 1:
            raise Unavailable(f"another process works on {self._name}")

    async def _save_what_was_passed_over(self) -> None:
        """Note how far the log was read without any effect, at most once a second."""
        time = asyncio.get_running_loop().time()
        if time < self._saved_at + _SAVE_PASSED_OVER:
            return
        self._saved_at = time
        for domain, place in self._places.items():
            if place.position != self._saved[domain]:
                async with self._database.transaction() as connection:
                    await self._move(connection, domain, place.position, place.sequence)
                self._saved[domain] = place.position

    async def _retry_letters(self) -> None:
        """Handle again what somebody asked to be sent again, at most once a second."""
        time = asyncio.get_running_loop().time()
        if time > self._looked_at + _LOOK_FOR_RETRIES:
            self._looked_at = time
            await self._letters.retry(self._database)

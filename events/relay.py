"""The relay of a domain: publishes its log to JetStream, each event once, in the order of the log.

What is published already, the stream itself knows best: its last message of the domain says where to go on. So a
relay that dies between the publishing and the noting of it repeats nothing, and one that comes back to a stream
that has lost its newest messages publishes them again. Each batch is published under the condition that nobody has
published its first event meanwhile, so that a relay which lost its leadership without noticing can do no harm.
"""

import asyncio
import json
import logging
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Final
from uuid import uuid4

from nats.js import JetStreamContext
from nats.js.api import StreamConfig
from opentelemetry import metrics
from sqlalchemy import text

from events.log import EventLog
from events.recorded import ROOT, START, LogPosition, RecordedEvent
from events.spans import published
from events.store import channel
from events.stream import STREAM, Connection, connected, ensure_stream, newest, stop_if_cancelled
from kernel.database import Database, Session
from kernel.errors import Misconfigured, Unavailable
from kernel.locks import lock_key
from kernel.messages import DomainName

MOST_IN_A_BATCH: Final = 500  # NATS takes 1,000 in one atomic batch

_POLL: Final = 1.0
_POLL_WHILE_HELD_BACK: Final = 0.01
_STAND_BY: Final = 0.5
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0
_NOTE: Final = 1.0

_log = logging.getLogger(__name__)
_meter = metrics.get_meter("mallbots.relay")
_published = _meter.create_counter("mallbots.relay.published", "{event}", "Events published to JetStream")
_leading = _meter.create_gauge(
    "mallbots.relay.leading", "{relay}", "1 if this process publishes the domain's events"
)


class Relay:
    """Publishes one domain's events for as long as it runs. Of several, one is active and the others stand by."""

    def __init__(self, domain: DomainName, database: Database, nats_url: str, stream: StreamConfig) -> None:
        self.domain: DomainName = domain
        self._database = database
        self._nats_url = nats_url
        self._stream = stream
        self._event_log = EventLog(domain)
        self._notified = asyncio.Event()
        self._trouble, self._pause = "", _FIRST_PAUSE
        self._noted_at = 0.0
        self._last_note: tuple[datetime, LogPosition] | None = None
        self._noted = text(f"SELECT stream_created_at, transaction_id, position FROM {domain}.relay_position")
        self._is_recorded = text(
            f"SELECT 1 FROM {domain}.all_events"
            " WHERE (transaction_id, position) = (:transaction_id, :number) AND id = :id"
        )
        self._save = text(
            f"INSERT INTO {domain}.relay_position (id, stream_created_at, transaction_id, position)"
            " VALUES (1, :stream_created_at, :transaction_id, :number)"
            " ON CONFLICT (id) DO UPDATE SET stream_created_at = excluded.stream_created_at,"
            " transaction_id = excluded.transaction_id, position = excluded.position, published_at = now()"
            " WHERE relay_position.stream_created_at <> excluded.stream_created_at"
            " OR (relay_position.transaction_id, relay_position.position)"
            " < (excluded.transaction_id, excluded.position)"
        )

    async def run(self) -> None:
        """Relay until cancelled, through every outage of PostgreSQL and of NATS.

        Raises `Misconfigured` if the stream in NATS is not ours, or ends with an event that the domain's table
        does not have.
        """
        while True:
            try:
                async with self._database.session() as session:
                    await self._until_leading(session)
                    await self._lead(session)
            except Unavailable as error:
                if error.message != self._trouble:
                    self._trouble = error.message
                    _log.warning(
                        "relay of %s: %s; its events wait and are tried again", self.domain, error.message
                    )
            stop_if_cancelled()
            await asyncio.sleep(self._pause)
            self._pause = min(self._pause * 2, _LONGEST_PAUSE)

    async def _until_leading(self, session: Session) -> None:
        """Wait until no other relay of the domain is active; the lock goes with the session that holds it."""
        told = False
        _leading.set(0, {"domain": self.domain})
        while not await session.fetchval("SELECT pg_try_advisory_lock($1)", lock_key("relay", self.domain)):
            if not told:
                _log.info("relay of %s: another one is active; this one stands by", self.domain)
                told = True
            await asyncio.sleep(_STAND_BY)
        _log.info("relay of %s: active", self.domain)
        _leading.set(1, {"domain": self.domain})

    async def _lead(self, session: Session) -> None:
        await session.add_listener(channel(self.domain), lambda *_: self._notified.set())
        session.add_termination_listener(lambda *_: self._notified.set())
        async with connected(self._nats_url, f"relay-{self.domain}") as nats:
            created_at = await ensure_stream(nats.jetstream, self._stream)
            position = await self._resume(nats.jetstream, created_at)
            try:
                while True:
                    stop_if_cancelled()
                    self._notified.clear()
                    # After a failure one event alone, whose refusal NATS explains.
                    page = await self._event_log.after_on_session(
                        session, position, 1 if self._trouble else MOST_IN_A_BATCH
                    )
                    if session.is_closed():
                        raise Unavailable("the session that holds the relay's lock is gone")
                    if page.events:
                        await self._publish(nats, page.events, position)
                        position = page.events[-1].position
                    else:
                        await self._wait(nats, _POLL_WHILE_HELD_BACK if page.held_back else _POLL)
                    await self._note(created_at, position, at_most_every=_NOTE)
            finally:
                with suppress(Unavailable):
                    await self._note(created_at, position)

    async def _publish(self, nats: Connection, events: Sequence[RecordedEvent], previous: LogPosition) -> None:
        """Publish all of these or none. Raises `Unavailable`.

        (A server whose disk fills may keep the first of them: where to go on is read from the stream then.)
        """
        batch = str(uuid4()) if len(events) > 1 else None
        extra = {"Nats-Expected-Last-Subject-Sequence": str(await _last_before(nats.jetstream, events[0]))}
        with published(events) as contexts:
            for number, (event, context) in enumerate(zip(events, contexts, strict=True), 1):
                headers = event.headers(previous) | context | extra
                if batch:
                    headers |= {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)}
                if number == len(events):
                    await _commit(nats, event, headers | ({"Nats-Batch-Commit": "1"} if batch else {}))
                else:
                    await nats.client.publish(event.subject, event.data, headers=headers)
                previous, extra = event.position, {}
        _published.add(len(events), {"domain": self.domain})
        self._trouble, self._pause = "", _FIRST_PAUSE

    async def _resume(self, jetstream: JetStreamContext, created_at: datetime) -> LogPosition:
        """Where to go on: behind the domain's last event in the stream. If the stream has none, then either it is
        new, and all events are published, or they got too old for it, and what we noted holds."""
        last = await newest(jetstream, f"{ROOT}.{self.domain}.>")
        if last is not None:
            async with self._database.transaction() as connection:
                is_ours = await connection.scalar(self._is_recorded, {**last.position._asdict(), "id": last.id})
            if not is_ours:
                raise Misconfigured(
                    f"the stream {STREAM} ends with an event of {self.domain} that its table does not have "
                    f"({last.id}): was one of them restored? Delete the stream, and all is published anew"
                )
            return last.position
        async with self._database.transaction() as connection:
            noted = (await connection.execute(self._noted)).first()
        if noted is None or noted.stream_created_at != created_at:
            return START
        return LogPosition(noted.transaction_id, noted.position)

    async def _note(self, created_at: datetime, position: LogPosition, at_most_every: float = 0) -> None:
        """Note how far the stream is filled, for those who ask, and for when it has dropped all of it."""
        time = asyncio.get_running_loop().time()
        if (created_at, position) == self._last_note or time < self._noted_at + at_most_every:
            return
        async with self._database.transaction() as connection:
            await connection.execute(self._save, {"stream_created_at": created_at, **position._asdict()})
        self._last_note, self._noted_at = (created_at, position), time

    async def _wait(self, nats: Connection, at_most: float) -> None:
        waits = [asyncio.create_task(event.wait()) for event in (self._notified, nats.closed)]
        try:
            await asyncio.wait(waits, timeout=at_most, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if nats.closed.is_set():
            raise Unavailable("NATS closed the connection")


async def _last_before(jetstream: JetStreamContext, event: RecordedEvent) -> int:
    """The sequence of the last message under an event's own subject, 0 if there is none. Raises `Unavailable` if
    that is the event already, or a later one."""
    last = None if event.version == 1 else await newest(jetstream, event.subject)
    if last is None:
        return 0
    if last.version >= event.version:
        raise Unavailable("another relay has published meanwhile")
    assert last.sequence is not None
    return last.sequence


async def _commit(nats: Connection, event: RecordedEvent, headers: dict[str, str]) -> None:
    """Publish the last event of a batch, and hear what became of all."""
    answer = json.loads((await nats.request(event.subject, event.data, headers)).data)
    if "error" in answer:
        raise Unavailable(f"NATS does not take events into {STREAM}: {answer['error']['description']}")

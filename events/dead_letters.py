"""Events that a consumer could not handle, set aside so that the rest goes on, until somebody sends them again.

What follows in the same stream is set aside, too, so that the stream's order is kept when they are.
"""

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import JSON, bindparam, text
from sqlalchemy.ext.asyncio import AsyncConnection

from events.consumer import Consumer
from events.recorded import LogPosition, RecordedEvent
from events.spans import taking_effect
from kernel.database import Database
from kernel.errors import Unavailable
from kernel.messages import DomainName

_log = logging.getLogger(__name__)

_COLUMNS = (
    "event_id, domain, transaction_id, position, stream, version, type, schema_version, data::text AS data,"
    " correlation_id, causation_id, trace_context, recorded_at, attempts, error"
)


class DeadLetters:
    """The dead letters of one partition of a consumer."""

    def __init__(self, consumer: Consumer, partition: int) -> None:
        self._consumer = consumer
        self._me = {"consumer": consumer.name, "partition": partition}
        self._streams: set[tuple[DomainName, str]] = set()
        table = f"{consumer.schema}.dead_letters"
        mine = "consumer = :consumer AND partition = :partition"
        self._all_streams = text(f"SELECT DISTINCT domain, stream FROM {table} WHERE {mine}")
        self._add = text(
            f"INSERT INTO {table} (consumer, partition, event_id, domain, transaction_id, position, stream,"
            "  version, type, schema_version, data, correlation_id, causation_id, trace_context, recorded_at,"
            "  attempts, error)"
            " VALUES (:consumer, :partition, :event_id, :domain, :transaction_id, :number, :stream, :version,"
            "  :type, :schema_version, CAST(:data AS jsonb), :correlation_id, :causation_id, :trace_context,"
            "  :recorded_at, :attempts, :error) ON CONFLICT DO NOTHING"
        ).bindparams(bindparam("trace_context", type_=JSON(none_as_null=True)))
        self._asked = text(
            f"SELECT DISTINCT domain, stream FROM {table} WHERE {mine} AND retry_asked_at IS NOT NULL"
        )
        self._next = text(
            f"SELECT {_COLUMNS} FROM {table} WHERE {mine} AND domain = :domain AND stream = :stream"
            " ORDER BY version LIMIT 1 FOR UPDATE"
        )
        self._any = text(
            f"SELECT 1 FROM {table} WHERE {mine} AND domain = :domain AND stream = :stream"
            " ORDER BY version LIMIT 1 FOR UPDATE"
        )
        self._delete = text(f"DELETE FROM {table} WHERE consumer = :consumer AND event_id = :event_id")
        self._failed = text(
            f"UPDATE {table} SET attempts = attempts + 1, error = :error, set_aside_at = now(),"
            "  retry_asked_at = NULL WHERE consumer = :consumer AND event_id = :event_id"
        )
        self._not_asked = text(
            f"UPDATE {table} SET retry_asked_at = NULL WHERE {mine} AND domain = :domain AND stream = :stream"
        )

    async def load(self, connection: AsyncConnection) -> None:
        """Learn which streams are held up."""
        rows = await connection.execute(self._all_streams, self._me)
        self._streams = {(row.domain, row.stream) for row in rows}

    async def holds_up(self, connection: AsyncConnection, event: RecordedEvent) -> bool:
        """Whether an earlier event of the same stream was set aside, and still is: another process, about to hear
        that it has lost the partition, may have handled it."""
        if (event.domain, event.stream) not in self._streams:
            return False
        values = {**self._me, "domain": event.domain, "stream": event.stream}
        return await connection.scalar(self._any, values) is not None

    async def add(
        self, connection: AsyncConnection, event: RecordedEvent, attempts: int = 0, error: str | None = None
    ) -> None:
        """Set an event aside; without an error it only waits for an earlier one."""
        values = {
            **self._me,
            "event_id": event.id,
            "domain": event.domain,
            **event.position._asdict(),
            "stream": event.stream,
            "version": event.version,
            "type": event.type,
            "schema_version": event.schema_version,
            "data": event.data.decode(),
            "correlation_id": event.correlation_id,
            "causation_id": event.causation_id,
            "trace_context": event.trace_context,
            "recorded_at": event.recorded_at,
            "attempts": attempts,
            "error": error,
        }
        await connection.execute(self._add, values)
        self._streams.add((event.domain, event.stream))

    async def retry(self, database: Database) -> None:
        """Handle the streams again that somebody asked for, each from its first dead letter on until one fails."""
        if not self._streams:
            return
        async with database.transaction() as connection:
            asked = (await connection.execute(self._asked, self._me)).all()
        for row in asked:
            stream = {**self._me, "domain": row.domain, "stream": row.stream}
            while await self._retry_next(database, stream):
                pass

    async def _retry_next(self, database: Database, stream: dict[str, Any]) -> bool:
        """Handle the first dead letter of a stream again; whether to go on with the next."""
        letter: dict[str, Any] = {"consumer": self._consumer.name, "event_id": None}
        try:
            async with database.transaction() as connection:
                row = (await connection.execute(self._next, stream)).first()
                if row is None:
                    self._streams.discard((stream["domain"], stream["stream"]))
                    return False
                letter["event_id"] = row.event_id
                event = _event(row)
                with taking_effect(event, self._consumer.name):
                    await self._consumer.handle(connection, event)
                await connection.execute(self._delete, letter)
                return True
        except Unavailable:
            raise
        except Exception as error:
            _log.warning(
                "consumer %s: event %s failed again", self._consumer.name, letter["event_id"], exc_info=error
            )
            async with database.transaction() as connection:
                await connection.execute(self._failed, {**letter, "error": f"{type(error).__name__}: {error}"})
                await connection.execute(self._not_asked, stream)
            return False


class DeadLetter(BaseModel):
    """A dead letter as operators see it. Without an `error` it waits for an earlier one of its stream."""

    consumer: str
    event_id: UUID
    subject: str
    attempts: int
    error: str | None
    set_aside_at: datetime
    retry_asked_at: datetime | None


async def dead_letters(database: Database, schema: str) -> list[DeadLetter]:
    """Every dead letter of the consumers that keep theirs in `schema`, by stream."""
    rows = (
        f"SELECT consumer, event_id, concat_ws('.', 'mallbots', domain, type, stream) AS subject, attempts, error,"
        f" set_aside_at, retry_asked_at FROM {schema}.dead_letters ORDER BY consumer, stream, version"
    )
    async with database.transaction() as connection:
        if not await connection.scalar(text(f"SELECT to_regclass('{schema}.dead_letters')")):
            return []  # its owner makes its tables anew
        return [DeadLetter.model_validate(dict(row)) for row in (await connection.execute(text(rows))).mappings()]


async def ask_for_retry(
    database: Database, schema: str, consumer: str | None = None, event_id: UUID | None = None
) -> Sequence[UUID]:
    """Ask for dead letters to be handled again: all of a schema, or those of a consumer, or those of one event's
    stream. The process that runs the consumer does it within a second or two. Returns the events asked for."""
    update = (
        f"UPDATE {schema}.dead_letters AS letter SET retry_asked_at = now()"
        " WHERE consumer = coalesce(:consumer, consumer) AND (CAST(:event_id AS uuid) IS NULL OR EXISTS ("
        f"  SELECT 1 FROM {schema}.dead_letters AS chosen WHERE chosen.event_id = :event_id"
        "   AND chosen.consumer = letter.consumer AND chosen.domain = letter.domain"
        "   AND chosen.stream = letter.stream)) RETURNING event_id"
    )
    async with database.transaction() as connection:
        rows = await connection.execute(text(update), {"consumer": consumer, "event_id": event_id})
        return [row.event_id for row in rows]


def _event(row: Any) -> RecordedEvent:
    return RecordedEvent(
        id=row.event_id,
        domain=row.domain,
        position=LogPosition(row.transaction_id, row.position),
        stream=row.stream,
        version=row.version,
        type=row.type,
        schema_version=row.schema_version,
        data=row.data.encode(),
        correlation_id=row.correlation_id,
        causation_id=row.causation_id,
        trace_context=row.trace_context,
        recorded_at=row.recorded_at,
    )

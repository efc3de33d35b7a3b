"""The event store of a domain: one append-only table, written in the transaction of the change it tells of.

Within a stream, versions run 1, 2, 3 … and `(stream, version)` is unique: of two writers that saw the same
version, one wins and the other gets `ConcurrencyConflict`.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, DateTime, Identity, SmallInteger, func, select
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import Field, SQLModel, col

from events.event import Event
from kernel.errors import ConcurrencyConflict
from kernel.ids import new_id


class EventRow(SQLModel):
    """The columns of every domain's `events` table; a domain derives its own table from it."""

    position: int | None = Field(
        default=None, primary_key=True, sa_type=BigInteger, sa_column_args=(Identity(always=True),)
    )
    id: UUID = Field(unique=True)
    stream: str
    version: int
    type: str
    schema_version: int = Field(sa_type=SmallInteger)
    data: dict[str, Any] = Field(sa_type=JSONB)
    correlation_id: UUID | None = None
    causation_id: str | None = None
    recorded_at: datetime | None = Field(
        default=None,
        sa_type=DateTime(timezone=True),
        nullable=False,
        sa_column_kwargs={"server_default": func.now()},
    )


@dataclass(frozen=True)
class Cause:
    """What led to an event: the story it belongs to (the order's id) and the step that made it."""

    correlation_id: UUID | None = None
    causation_id: str | None = None


_cause: ContextVar[Cause] = ContextVar("cause", default=Cause())  # noqa: B039 - frozen


@contextmanager
def caused_by(cause: Cause) -> Iterator[None]:
    """Every event recorded inside the block carries this cause."""
    token = _cause.set(cause)
    try:
        yield
    finally:
        _cause.reset(token)


class EventStore:
    """The events of one domain. `table` is where they are; `types` are all that it has ever written."""

    def __init__(self, table: type[EventRow], types: Iterable[type[Event]]) -> None:
        self.table = table
        self._types = {event_type.__name__: event_type for event_type in types}

    async def load(self, connection: AsyncConnection, stream: str) -> list[Event]:
        """The events of a stream, oldest first; empty if there is no such stream."""
        table = self.table
        rows = await connection.scalars(select(table).where(col(table.stream) == stream).order_by(col(table.version)))
        return [self._types[row.type].model_validate(row.data) for row in rows]

    async def append(self, connection: AsyncConnection, stream: str, seen_version: int, events: Sequence[Event]) -> None:
        """Append to a stream that was at `seen_version` when the events were decided.

        Raises `ConcurrencyConflict` if it has moved on; the transaction stays usable.
        """
        await self._insert(
            connection, [(stream, seen_version + number, event) for number, event in enumerate(events, 1)]
        )

    async def record(self, connection: AsyncConnection, entries: Sequence[tuple[str, Event]]) -> None:
        """Append events of many streams at whatever version each is.

        For state kept in rows: the caller's row lock is what orders the writers of a stream.
        """
        table = self.table
        streams = {stream for stream, _ in entries}
        found = await connection.execute(
            select(col(table.stream), func.max(col(table.version)))
            .where(col(table.stream).in_(streams))
            .group_by(col(table.stream))
        )
        versions: Counter[str] = Counter({stream: version for stream, version in found})
        rows = []
        for stream, event in entries:
            versions[stream] += 1
            rows.append((stream, versions[stream], event))
        await self._insert(connection, rows)

    async def _insert(self, connection: AsyncConnection, entries: Sequence[tuple[str, int, Event]]) -> None:
        cause = _cause.get()
        rows = [
            {
                "id": new_id(),
                "stream": stream,
                "version": version,
                "type": type(event).__name__,
                "schema_version": event.schema_version,
                "data": event.model_dump(mode="json"),
                "correlation_id": cause.correlation_id,
                "causation_id": cause.causation_id,
            }
            for stream, version, event in entries
        ]
        if not rows:
            return
        statement = (
            insert(self.table)
            .on_conflict_do_nothing(index_elements=["stream", "version"])
            .returning(col(self.table.position))
        )
        written = await connection.execute(statement, rows)
        if len(written.all()) != len(rows):
            raise ConcurrencyConflict(f"{rows[0]['stream']} has moved on: load it and decide again")

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

from pydantic_core import to_json
from sqlalchemy import BigInteger, DateTime, Identity, SmallInteger, String, Uuid, bindparam, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import Field, SQLModel

from events.event import Event
from kernel.errors import ConcurrencyConflict
from kernel.ids import new_id
from kernel.messages import DomainName


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
class Causation:
    """What led to an event: the story it belongs to (the order's id) and the step that made it."""

    correlation_id: UUID | None = None
    causation_id: str | None = None


_cause: ContextVar[Causation] = ContextVar("cause", default=Causation())  # noqa: B039 - frozen


@contextmanager
def caused_by(cause: Causation) -> Iterator[None]:
    """Every event recorded inside the block carries this cause."""
    token = _cause.set(cause)
    try:
        yield
    finally:
        _cause.reset(token)


class EventStore:
    """The events of one domain. `schema` is where their table is; `types` are all that it has ever written."""

    def __init__(self, schema: DomainName, types: Iterable[type[Event]]) -> None:
        self._types = {event_type.__name__: event_type for event_type in types}
        events = f"{schema}.events"
        self._load = text(f"SELECT type, data FROM {events} WHERE stream = :stream ORDER BY version")
        self._versions = text(
            f"SELECT stream, max(version) AS version FROM {events} WHERE stream = ANY(:streams) GROUP BY stream"
        )
        # However many events, one statement and one parameter; ordinality keeps positions in their order.
        self._insert = text(
            f"INSERT INTO {events} (id, stream, version, type, schema_version, data, correlation_id, causation_id)"
            " SELECT id, stream, version, type, schema_version, data, :correlation_id, :causation_id"
            " FROM ROWS FROM (jsonb_to_recordset(CAST(:rows AS jsonb)) AS"
            "  (id uuid, stream varchar, version int, type varchar, schema_version smallint, data jsonb)"
            " ) WITH ORDINALITY ORDER BY ordinality ON CONFLICT (stream, version) DO NOTHING"
        ).bindparams(bindparam("correlation_id", type_=Uuid()), bindparam("causation_id", type_=String()))

    async def load(self, connection: AsyncConnection, stream: str) -> list[Event]:
        """The events of a stream, oldest first; empty if there is no such stream."""
        rows = await connection.execute(self._load, {"stream": stream})
        return [self._types[row.type].model_validate(row.data) for row in rows]

    async def append(
        self, connection: AsyncConnection, stream: str, seen_version: int, events: Sequence[Event]
    ) -> None:
        """Append to a stream that was at `seen_version` when the events were decided.

        Raises `ConcurrencyConflict` if it has moved on; the transaction stays usable.
        """
        await self._write(
            connection, [(stream, seen_version + number, event) for number, event in enumerate(events, 1)]
        )

    async def record(self, connection: AsyncConnection, entries: Sequence[tuple[str, Event]]) -> None:
        """Append events of many streams at whatever version each is.

        For state kept in rows: the caller's row lock is what orders the writers of a stream.
        """
        streams = list({stream for stream, _ in entries})
        found = await connection.execute(self._versions, {"streams": streams})
        versions: Counter[str] = Counter({row.stream: row.version for row in found})
        rows = []
        for stream, event in entries:
            versions[stream] += 1
            rows.append((stream, versions[stream], event))
        await self._write(connection, rows)

    async def _write(self, connection: AsyncConnection, entries: Sequence[tuple[str, int, Event]]) -> None:
        cause = _cause.get()
        rows = [
            {
                "id": new_id(),
                "stream": stream,
                "version": version,
                "type": type(event).__name__,
                "schema_version": event.schema_version,
                "data": event,
            }
            for stream, version, event in entries
        ]
        written = await connection.execute(
            self._insert,
            {
                "rows": to_json(rows).decode(),
                "correlation_id": cause.correlation_id,
                "causation_id": cause.causation_id,
            },
        )
        if written.rowcount != len(rows):
            raise ConcurrencyConflict(f"{entries[0][0]} has moved on: load it and decide again")

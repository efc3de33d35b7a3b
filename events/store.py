"""The event store of a domain: one append-only table, written in the transaction of the change it tells of.

Within a stream, versions run 1, 2, 3 … and `(stream, version)` is unique: of two writers that saw the same
version, one wins and the other gets `ConcurrencyConflict`.

The oldest events may lie in the archive (`events/archive.py`). Whoever reads a stream asks the small table of
archived streams beside the events, and goes to the archive only if it names the stream.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from opentelemetry import propagate
from pydantic_core import to_json
from sqlalchemy import (
    BigInteger,
    DateTime,
    Identity,
    Index,
    Integer,
    SmallInteger,
    String,
    UniqueConstraint,
    bindparam,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import Field, SQLModel

from events.event import Event
from kernel.errors import ConcurrencyConflict, Unavailable
from kernel.ids import new_id
from kernel.messages import DomainName


class EventRow(SQLModel):
    """The columns of every domain's `events` table; a domain derives its own table from it. The table is its event
    store and its outbox: `transaction_id` and `position` are the order that the relay publishes in."""

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
    trace_context: dict[str, Any] | None = Field(default=None, sa_type=JSONB)
    transaction_id: int | None = Field(
        default=None,
        sa_type=BigInteger,
        nullable=False,
        sa_column_kwargs={"server_default": text("(pg_current_xact_id()::text)::bigint")},
    )
    recorded_at: datetime | None = Field(
        default=None,
        sa_type=DateTime(timezone=True),
        nullable=False,
        sa_column_kwargs={"server_default": func.now()},
    )


def event_table_args(schema: DomainName) -> tuple[Any, ...]:
    """The rules of a domain's `events` table, for `__table_args__`."""
    return (
        UniqueConstraint("stream", "version"),
        Index("ix_events_log", "transaction_id", "position", unique=True),
        {"schema": schema},
    )


@dataclass(frozen=True)
class Causation:
    """What led to an event: the story it belongs to (that of its order, if it is not said) and
    the step that made it."""

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


def channel(domain: DomainName) -> str:
    """The channel of PostgreSQL's NOTIFY that says that a domain has new events."""
    return f"{domain}_events"


def assert_whole(stream: str, versions: Sequence[int], first: int, last: int) -> None:
    """Raise `Unavailable` unless the archive has the versions from `first` to `last` of a stream: their month is
    detached then, and to fold what is left would be wrong."""
    if list(versions) != list(range(first, last + 1)):
        raise Unavailable(f"events of {stream} are not in the archive: attach the partition of their month again")


class EventStore:
    """The events of one domain. `schema` is where their table is; `types` are all that it has ever written."""

    def __init__(self, schema: DomainName, types: Iterable[type[Event]]) -> None:
        self._types = {event_type.__name__: event_type for event_type in types}
        events = f"{schema}.events"
        # Before them, if some are archived, a row with nothing but the version of the last that is.
        self._load = text(
            f"SELECT version, type, schema_version, data FROM {events}"
            " WHERE stream = :stream AND version <= coalesce(:until_version, version)"
            f" UNION ALL SELECT version, NULL, NULL, NULL FROM {schema}.archived_streams WHERE stream = :stream"
            " ORDER BY version"
        ).bindparams(bindparam("until_version", type_=Integer()))
        self._load_archived = text(
            f"SELECT version, type, schema_version, data FROM {schema}.archived_events"
            " WHERE stream = :stream AND version <= :last ORDER BY version"
        )
        # By the end of the index: a product has more events each day.
        self._versions = text(
            "SELECT known.stream, coalesce("
            f"(SELECT version FROM {events} WHERE events.stream = known.stream ORDER BY version DESC LIMIT 1),"
            f" (SELECT version FROM {schema}.archived_streams AS archived WHERE archived.stream = known.stream),"
            " 0) AS version FROM unnest(CAST(:streams AS varchar[])) AS known (stream)"
        )
        # However many events, one statement and one parameter; ordinality keeps positions in their order.
        # Readers of the log see a stream's events in the order of their transactions, so one that began to write
        # before the stream's last event was written can not follow it: it is sent back for a younger transaction.
        # (An event that is archived was written before any transaction began that still runs.)
        # What no trace led to, as a robot's taking of a list, belongs to that of the event before in its story.
        self._insert = text(
            f"WITH written AS (INSERT INTO {events}"
            "  (id, stream, version, type, schema_version, data, correlation_id, causation_id, trace_context)"
            "  SELECT new.id, new.stream, new.version, new.type, new.schema_version, new.data,"
            "   new.correlation_id, :causation_id, coalesce(CAST(:trace_context AS jsonb),"
            "   CASE WHEN last.correlation_id = new.correlation_id THEN last.trace_context END)"
            "  FROM ROWS FROM (jsonb_to_recordset(CAST(:rows AS jsonb)) AS"
            "   (id uuid, stream varchar, version int, type varchar, schema_version smallint, data jsonb,"
            "    correlation_id uuid)"
            "  ) WITH ORDINALITY AS new"
            f"  LEFT JOIN {events} AS last ON last.stream = new.stream AND last.version = new.version - 1"
            f"  LEFT JOIN {schema}.archived_streams AS archived ON archived.stream = new.stream"
            "  WHERE coalesce(last.transaction_id, 0) <= pg_current_xact_id()::text::bigint"
            "  AND new.version > coalesce(archived.version, 0)"
            "  ORDER BY new.ordinality ON CONFLICT (stream, version) DO NOTHING RETURNING 1"
            f") SELECT count(*), pg_notify('{channel(schema)}', '') FROM written"
        ).bindparams(
            bindparam("causation_id", type_=String()),
            bindparam("trace_context", type_=String()),
        )

    async def load(
        self, connection: AsyncConnection, stream: str, until_version: int | None = None
    ) -> list[Event]:
        """The events of a stream, oldest first, up to a version if one is given; empty if there is no such stream.
        Those that were written as an older schema version are upcast.

        Raises `Unavailable` if a month that it needs is detached from the archive.
        """
        found = await connection.execute(self._load, {"stream": stream, "until_version": until_version})
        rows = list(found)
        if rows and rows[0].type is None:
            last = min(rows[0].version, until_version or rows[0].version)
            older = list(await connection.execute(self._load_archived, {"stream": stream, "last": last}))
            assert_whole(stream, [row.version for row in older], 1, last)
            rows[:1] = older
        return [self._types[row.type].read(row.schema_version, row.data) for row in rows]

    async def append(
        self, connection: AsyncConnection, stream: str, seen_version: int, events: Sequence[Event]
    ) -> None:
        """Append to a stream that was at `seen_version` when the events were decided.

        Raises `ConcurrencyConflict` if it has moved on, or was moved to `seen_version` by a transaction that began
        to write after this one. Roll the transaction back: it may hold some of the events.
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
        trace_context: dict[str, str] = {}
        propagate.inject(trace_context)
        rows = [
            {
                "id": new_id(),
                "stream": stream,
                "version": version,
                "type": type(event).__name__,
                "schema_version": event.schema_version,
                "data": event,
                "correlation_id": cause.correlation_id or getattr(event, "order_id", None),
            }
            for stream, version, event in entries
        ]
        written = await connection.execute(
            self._insert,
            {
                "rows": to_json(rows).decode(),
                "causation_id": cause.causation_id,
                "trace_context": to_json(trace_context).decode() if trace_context else None,
            },
        )
        if written.one()[0] != len(rows):
            raise ConcurrencyConflict(f"{entries[0][0]} has moved on: load it and decide again")

"""The log of a domain: its events one after the other, for whoever reads on from where it was.

The order is that of the transactions that wrote them, and nothing is shown before every older transaction has
ended: of two that overlap, the one that began to write first may commit last, and a reader who went by the numbers
alone would have passed its events by then. (The technique: compare with `pg_snapshot_xmin`, the oldest transaction
that still runs.)

The archive (`events/archive.py`) has the beginning of the log, and the table of events the rest. So a reader whose
position is that of an event in the table needs no archive; any other asks the archive first.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from pydantic_core import from_json
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from events.recorded import LogPosition, RecordedEvent
from events.store import assert_whole
from kernel.database import Session
from kernel.errors import Unavailable
from kernel.messages import DomainName

BATCH: Final = 500
MOST_COUNTED: Final = 100_000


class Page(NamedTuple):
    """The next events of a log. `held_back`: there are more, but an older transaction still runs."""

    events: list[RecordedEvent]
    held_back: bool


_COLUMNS: Final = (
    "id, transaction_id, position, stream, version, type, schema_version, data::text AS data,"
    " correlation_id, causation_id, trace_context::text AS trace_context, recorded_at"
)


class EventLog:
    """The log of one domain, to be read on a connection to its database."""

    def __init__(self, domain: DomainName) -> None:
        self.domain: DomainName = domain
        # Before them, if some are archived, a row with nothing but the version of the last that is.
        self._of_stream = text(
            f"SELECT {_COLUMNS} FROM {domain}.events WHERE stream = :stream AND version > :version"
            " UNION ALL SELECT NULL, NULL, NULL, NULL, version, NULL, NULL, NULL, NULL, NULL, NULL, NULL"
            f" FROM {domain}.archived_streams WHERE stream = :stream AND version > :version"
            " ORDER BY version"
        )
        self._of_stream_archived = text(
            f"SELECT {_COLUMNS} FROM {domain}.archived_events"
            " WHERE stream = :stream AND version > :version AND version <= :last ORDER BY version"
        )
        # It begins with the event at the position itself, if the table has that.
        from_there = (
            f"SELECT {_COLUMNS}, transaction_id < pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS settled"
            f" FROM {domain}.events WHERE (transaction_id, position) >= (%s, %s)"
            " ORDER BY transaction_id, position LIMIT %s + 1"
        )
        archived = (
            f"SELECT {_COLUMNS}, true AS settled FROM {domain}.archived_events"
            " WHERE (transaction_id, position) > (%s, %s) ORDER BY transaction_id, position LIMIT %s"
        )
        # Of the month of the position, and of those before it, such a reader has all.
        detached = (
            f"SELECT relname FROM pg_class WHERE relnamespace = '{domain}'::regnamespace AND relkind = 'r'"
            " AND NOT relispartition AND relname ~ '^archived_events_[0-9]{4}_[0-9]{2}$'"
            " AND relname > 'archived_events_' || coalesce("
            "(SELECT to_char(recorded_at AT TIME ZONE 'UTC', 'YYYY_MM')"
            f" FROM {domain}.archived_events WHERE (transaction_id, position) = (%s, %s)), '')"
            " ORDER BY relname LIMIT 1"
        )
        names, numbers = (":transaction_id", ":number", ":limit"), ("$1", "$2", "$3")
        self._from, self._archived = text(from_there % names), text(archived % names)
        self._from_on_session, self._archived_on_session = from_there % numbers, archived % numbers
        self._detached, self._detached_on_session = text(detached % names[:2]), detached % numbers[:2]
        self._waiting = text(
            "SELECT count(*) AS events, min(recorded_at) AS since FROM ("
            + " UNION ALL ".join(
                f"(SELECT recorded_at FROM {domain}.{table}"
                " WHERE (transaction_id, position) > (:transaction_id, :number)"
                f" ORDER BY transaction_id, position LIMIT {MOST_COUNTED})"
                for table in ("archived_events", "events")
            )
            + f" LIMIT {MOST_COUNTED}) AS waiting"
        )

    async def after(self, connection: AsyncConnection, position: LogPosition, limit: int = BATCH) -> Page:
        """Up to `limit` events behind a position, in the order of the log.

        Raises `Unavailable` if a month behind the position is detached from the archive.
        """
        values = {**position._asdict(), "limit": limit}
        rows = (await connection.execute(self._from, values)).mappings().all()
        if _begins_at(rows, position):
            return self._page(rows[1:])
        _assert_attached(await connection.scalar(self._detached, position._asdict()))
        older = (await connection.execute(self._archived, values)).mappings().all()
        return self._page(older or rows[:limit])

    async def after_on_session(self, session: Session, position: LogPosition, limit: int = BATCH) -> Page:
        """As `after`, for whoever has a session: one round trip instead of three."""
        rows = await session.fetch(self._from_on_session, *position, limit)
        if _begins_at(rows, position):
            return self._page(rows[1:])
        detached = await session.fetch(self._detached_on_session, *position)
        _assert_attached(detached[0]["relname"] if detached else None)
        return self._page(await session.fetch(self._archived_on_session, *position, limit) or rows[:limit])

    async def of_stream(
        self, connection: AsyncConnection, stream: str, after_version: int = 0
    ) -> list[RecordedEvent]:
        """The events of one stream behind a version, oldest first; empty if there are none.

        Raises `Unavailable` if a month that it needs is detached from the archive.
        """
        values = {"stream": stream, "version": after_version}
        rows = list((await connection.execute(self._of_stream, values)).mappings())
        if rows and rows[0]["id"] is None:
            last = rows[0]["version"]
            found = await connection.execute(self._of_stream_archived, {**values, "last": last})
            older = list(found.mappings())
            assert_whole(stream, [row["version"] for row in older], after_version + 1, last)
            rows[:1] = older
        return [self._event(row) for row in rows]

    async def waiting(self, connection: AsyncConnection, position: LogPosition) -> Any:
        """How many `events` are behind a position (`MOST_COUNTED` stands for more, too), and `since` when the
        oldest of them is recorded (or None)."""
        return (await connection.execute(self._waiting, position._asdict())).one()

    def _page(self, rows: Sequence[Any]) -> Page:
        events = [self._event(row) for row in rows if row["settled"]]
        return Page(events, held_back=len(events) < len(rows))

    def _event(self, row: Any) -> RecordedEvent:
        return RecordedEvent(
            id=row["id"],
            domain=self.domain,
            position=LogPosition(row["transaction_id"], row["position"]),
            stream=row["stream"],
            version=row["version"],
            type=row["type"],
            schema_version=row["schema_version"],
            data=row["data"].encode(),
            correlation_id=row["correlation_id"],
            causation_id=row["causation_id"],
            trace_context=from_json(row["trace_context"]) if row["trace_context"] else None,
            recorded_at=row["recorded_at"],
        )


def _assert_attached(detached: str | None) -> None:
    if detached is not None:
        raise Unavailable(
            f"{detached} is detached from the archive: attach it again, or rename it to go on without its events"
        )


def _begins_at(rows: Sequence[Any], position: LogPosition) -> bool:
    return bool(rows) and (rows[0]["transaction_id"], rows[0]["position"]) == position

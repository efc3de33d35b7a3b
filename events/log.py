"""The log of a domain: its events one after the other, for whoever reads on from where it was.

The order is that of the transactions that wrote them, and nothing is shown before every older transaction has
ended: of two that overlap, the one that began to write first may commit last, and a reader who went by the numbers
alone would have passed its events by then. (The technique: compare with `pg_snapshot_xmin`, the oldest transaction
that still runs.)
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from pydantic_core import from_json
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from events.recorded import LogPosition, RecordedEvent
from kernel.database import Session
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
        self._of_stream = text(
            f"SELECT {_COLUMNS} FROM {domain}.events"
            " WHERE stream = :stream AND version > :version ORDER BY version"
        )
        after = (
            f"SELECT {_COLUMNS}, transaction_id < pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS settled"
            f" FROM {domain}.events WHERE (transaction_id, position) > (%s, %s)"
            " ORDER BY transaction_id, position LIMIT %s"
        )
        self._after = text(after % (":transaction_id", ":number", ":limit"))
        self._after_on_session = after % ("$1", "$2", "$3")
        self._waiting = text(
            "SELECT count(*) AS events, min(recorded_at) AS since FROM ("
            f" SELECT recorded_at FROM {domain}.events"
            " WHERE (transaction_id, position) > (:transaction_id, :number)"
            f" ORDER BY transaction_id, position LIMIT {MOST_COUNTED}) AS waiting"
        )

    async def after(self, connection: AsyncConnection, position: LogPosition, limit: int = BATCH) -> Page:
        """Up to `limit` events behind a position, in the order of the log."""
        rows = await connection.execute(self._after, {**position._asdict(), "limit": limit})
        return self._page(rows.mappings().all())

    async def after_on_session(self, session: Session, position: LogPosition, limit: int = BATCH) -> Page:
        """As `after`, for whoever has a session: one round trip instead of three."""
        return self._page(await session.fetch(self._after_on_session, *position, limit))

    async def of_stream(
        self, connection: AsyncConnection, stream: str, after_version: int = 0
    ) -> list[RecordedEvent]:
        """The events of one stream behind a version, oldest first; empty if there are none."""
        rows = await connection.execute(self._of_stream, {"stream": stream, "version": after_version})
        return [self._event(row) for row in rows.mappings()]

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

"""The archive of a domain's events: what was recorded months ago leaves the table that everybody writes to.

`events` stays small and plain, so that `(stream, version)` and `id` are unique in it; `archived_events` has a
partition for each month, that can be dumped, moved to cheap disks or detached. Nothing is ever deleted here.

What is moved is always the beginning of the log: an event stays if any event before it does. So the archive is
older than the table, event by event, in the log and in every stream, and a reader knows from what it found in the
table whether it needs the archive. Each batch is one statement: whoever looks sees an event in one of the two.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from events.store import EventRow
from kernel.database import Database
from kernel.errors import Conflict
from kernel.locks import lock_key
from kernel.messages import DomainName

BATCH: Final = 2000

Months = Mapping[datetime, int]
"""Numbers of events by the month that they were recorded in, which its first moment stands for (UTC)."""


@dataclass(frozen=True)
class Sizes:
    """Bytes on the disk, indexes included: of `events`, and of each partition of the archive by its name."""

    events: int
    partitions: Mapping[str, int]


def first_kept(now: datetime, keep_months: int) -> datetime:
    """The first moment of the month that is `keep_months` before that of `now`, in UTC: what was recorded before
    may be archived.

    With 1, the least that is right, an event is at least four weeks old by then: no transaction that saw less of
    its stream still runs.
    """
    if keep_months < 1:
        raise ValueError("at least one whole month stays")
    return _month_after(now.astimezone(UTC), -keep_months)


def partition_of(month: datetime) -> str:
    """The name of the partition that a month is archived in."""
    return f"archived_events_{month:%Y_%m}"


class Archive:
    """The archive of one domain. Several processes may work on it at once, and be killed at any time."""

    def __init__(self, domain: DomainName, database: Database) -> None:
        self.domain: DomainName = domain
        self._database = database
        self._lock = {"key": lock_key("archive", domain)}
        columns = ", ".join(EventRow.model_fields)
        published = "(transaction_id, position) <= (:published_id, :published_number)"
        month = "date_trunc('month', recorded_at, 'UTC')"
        self._waiting = text(
            f"SELECT {month} AS month, count(*) AS events FROM {domain}.events"
            f" WHERE recorded_at < :before AND {published} GROUP BY month ORDER BY month"
        )
        self._published = text(
            f"SELECT transaction_id AS published_id, position AS published_number FROM {domain}.relay_position"
        )
        # Nothing that an older transaction may still precede is moved: it would be behind its readers.
        self._move = text(
            "WITH front AS ("
            "  SELECT position, bool_or(recorded_at >= :before) OVER (ORDER BY transaction_id, position) AS stays"
            f"  FROM (SELECT transaction_id, position, recorded_at FROM {domain}.events"
            "   WHERE transaction_id >= :since"
            "   AND transaction_id < pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
            f"   AND {published} ORDER BY transaction_id, position LIMIT :batch) AS oldest"
            f"), moved AS (DELETE FROM {domain}.events USING front"
            "  WHERE events.position = front.position AND NOT stays RETURNING events.*"
            f"), kept AS (INSERT INTO {domain}.archived_events ({columns}) SELECT {columns} FROM moved"
            f"), noted AS (INSERT INTO {domain}.archived_streams (stream, version)"
            "  SELECT stream, max(version) FROM moved GROUP BY stream"
            "  ON CONFLICT (stream) DO UPDATE SET version = excluded.version"
            f") SELECT {month} AS month, count(*) AS events, max(transaction_id) AS last FROM moved GROUP BY month"
        )
        self._sizes = text(
            f"SELECT relname AS name, pg_total_relation_size(oid) AS bytes FROM pg_class"
            f" WHERE oid = '{domain}.events'::regclass UNION ALL"
            " SELECT relname, pg_total_relation_size(oid) FROM pg_class JOIN pg_inherits ON oid = inhrelid"
            f" WHERE inhparent = '{domain}.archived_events'::regclass"
        )
        self._attached = text("SELECT relispartition FROM pg_class WHERE oid = to_regclass(:name)")

    async def waiting(self, before: datetime) -> Months:
        """How many events, by month, were recorded before a time and are published. Raises `Unavailable`."""
        async with self._database.transaction() as connection:
            return await self._months(connection, {"before": before, **await self._position(connection)})

    async def move(self, before: datetime, moved: Callable[[Months], None] = lambda months: None) -> None:
        """Move what was recorded before a time and is published to the archive, oldest first, in batches, and tell
        of each. Once more moves what is left.

        Raises `Conflict` if a month that is needed is there but detached, and `Unavailable`.
        """
        async with self._database.transaction() as connection:
            # Read once: what is published from now on may be of a month that was not opened.
            bounds = {"before": before, **await self._position(connection)}
            months = await self._months(connection, bounds)
        for month in months:
            await self._open(month)
        since = 0
        while True:
            async with self._database.transaction() as connection:
                await self._take_turn(connection)
                values = {"since": since, "batch": BATCH}
                rows = (await connection.execute(self._move, bounds | values)).all()
            if not rows:
                return
            since = max(row.last for row in rows)
            moved({row.month: row.events for row in rows})

    async def sizes(self) -> Sizes:
        """How large the table and the archived months are. Raises `Unavailable`."""
        async with self._database.transaction() as connection:
            sizes = {row.name: row.bytes for row in await connection.execute(self._sizes)}
        return Sizes(sizes.pop("events"), sizes)

    async def _position(self, connection: AsyncConnection) -> dict[str, int | None]:
        """How far the relay has published; nothing compares with None, and nothing is archived then."""
        row = (await connection.execute(self._published)).mappings().one_or_none()
        return dict(row or {"published_id": None, "published_number": None})

    async def _months(self, connection: AsyncConnection, bounds: Mapping[str, Any]) -> Months:
        rows = await connection.execute(self._waiting, bounds)
        return {row.month: row.events for row in rows}

    async def _open(self, month: datetime) -> None:
        """Make the partition of a month if it is missing. (Not by PARTITION OF, which would wait for every reader
        of the archive, and let the next ones wait.)"""
        following = _month_after(month, 1)
        archive, name = f"{self.domain}.archived_events", f"{self.domain}.{partition_of(month)}"
        async with self._database.transaction() as connection:
            await self._take_turn(connection)
            is_attached = await connection.scalar(self._attached, {"name": name})
            if is_attached is None:
                await connection.execute(text(f"CREATE TABLE {name} (LIKE {archive} INCLUDING ALL)"))
                bounds = f"FROM ('{month.isoformat()}') TO ('{following.isoformat()}')"
                await connection.execute(
                    text(f"ALTER TABLE {archive} ATTACH PARTITION {name} FOR VALUES {bounds}")
                )
            elif not is_attached:
                raise Conflict(f"{name} is detached: attach it again, or rename it, to archive more of that month")

    async def _take_turn(self, connection: AsyncConnection) -> None:
        """One transaction at a time archives."""
        await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), self._lock)


def _month_after(at: datetime, months: int) -> datetime:
    year, month = divmod(at.year * 12 + at.month - 1 + months, 12)
    return datetime(year, month + 1, 1, tzinfo=UTC)

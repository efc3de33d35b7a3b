"""What may be asked of Analytics, in a window of time. Each number follows the events within moments."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypeVar

import asyncpg
from pydantic import BaseModel, Field
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from kernel.database import Database
from kernel.errors import Unavailable
from kernel.ids import now
from kernel.messages import Currency

Row = TypeVar("Row", bound=BaseModel)


class Window(BaseModel):
    """A span of time: `since` belongs to it, `until` does not."""

    since: datetime = Field(serialization_alias="from")
    until: datetime = Field(serialization_alias="to")


class Counts(BaseModel):
    """How many orders were placed, and how many came to what."""

    placed: int
    approved: int
    rejected: int
    cancelled: int
    completed: int
    expired: int


class Minute(Counts):
    """Orders in the minute, or the longer step, that begins so."""

    minute: datetime


class StoreSales(BaseModel):
    """What a store sold, counted as `Sales` are."""

    store: str
    currency: Currency
    pieces: int
    cents: int = Field(description="In minor units of the currency")
    refunded_cents: int = Field(description="What was refunded of it since, and is not in `cents` any more")


class Sales(BaseModel):
    """What a store sold in an hour: the lines of orders that were approved in it and neither cancelled nor expired
    since, without what was missing and what was refunded."""

    store: str
    hour: datetime
    currency: Currency
    pieces: int
    cents: int = Field(description="In minor units of the currency")
    refunded_cents: int = Field(description="What was refunded of it since, and is not in `cents` any more")


class Refusals(BaseModel):
    """How many orders were refused for a reason."""

    code: str = Field(examples=["insufficient_stock"])
    orders: int


class MissingProduct(BaseModel):
    """A product that robots did not find: how many pieces, in how many orders. It is called what it was called
    the last time."""

    sku: str
    name: str
    store: str
    pieces: int
    orders: int


class Took(BaseModel):
    """How long so many orders took: half of them at most p50, 95 % at most p95. Null if there are none."""

    orders: int
    p50_seconds: float | None
    p95_seconds: float | None


class TookInStep(Took):
    """How long orders took that became ready in the minute, or the longer step, that begins so."""

    minute: datetime


class Times(BaseModel):
    """From placed to ready, of orders that became ready in the window; to completed, of those completed in it."""

    to_ready: Took
    to_completed: Took


class RobotUse(BaseModel):
    """What a robot did. One that falls silent is offline, but has its list until that is taken from it."""

    robot: str
    online_seconds: float
    busy_seconds: float
    use: float | None = Field(description="busy / online; null if it was not online")
    lists_completed: int
    pieces_picked: int


# Steps are counted from the window's beginning, so that they are those of whoever asks, in any time zone.
_STEP = "date_bin(make_interval(mins => :step), {at}, date_trunc('minute', CAST(:since AS timestamptz), 'UTC'))"
_COUNTS = """
 count(*) FILTER (WHERE what = 'placed') AS placed, count(*) FILTER (WHERE what = 'approved') AS approved,
 count(*) FILTER (WHERE what = 'rejected') AS rejected, count(*) FILTER (WHERE what = 'cancelled') AS cancelled,
 count(*) FILTER (WHERE what = 'completed') AS completed, count(*) FILTER (WHERE what = 'expired') AS expired
FROM analytics.orders, LATERAL (VALUES ('placed', placed_at), ('approved', approved_at), ('rejected', rejected_at),
 ('cancelled', cancelled_at), ('completed', completed_at), ('expired', expired_at)) AS reached (what, at)
WHERE at >= :since AND at < :until
"""
_MINUTES = f"SELECT {_STEP.format(at='at')} AS minute, {_COUNTS} GROUP BY 1 ORDER BY 1 LIMIT :limit"
_SOLD = """
 currency, sum(quantity)::bigint AS pieces, sum(cents)::bigint AS cents,
 sum(refunded_cents)::bigint AS refunded_cents
FROM (
 SELECT store, sold_at, currency, quantity, cents, 0 AS refunded_cents FROM analytics.sale_lines
 UNION ALL
 SELECT store, sold_at, currency, -quantity, -cents, cents FROM analytics.refund_lines WHERE withdrawn_at IS NULL
) AS lines WHERE sold_at >= :since AND sold_at < :until
"""
_SALES = (
    f"SELECT store, date_trunc('hour', sold_at, 'UTC') AS hour, {_SOLD}"
    " GROUP BY 1, 2, 3 ORDER BY 2, 1, 3 LIMIT :limit"
)
_SALES_BY_STORE = f"SELECT store, {_SOLD} GROUP BY 1, 2 ORDER BY cents DESC, 1, 2 LIMIT :limit"
_REFUSALS = """
SELECT refusal_code AS code, count(*) AS orders FROM analytics.orders
WHERE rejected_at >= :since AND rejected_at < :until GROUP BY 1 ORDER BY 2 DESC, 1
"""
_MISSING = """
SELECT sku, (array_agg(name ORDER BY missing_at DESC, event_id))[1] AS name,
 (array_agg(store ORDER BY missing_at DESC, event_id))[1] AS store, sum(quantity)::bigint AS pieces,
 count(DISTINCT order_id) AS orders
FROM analytics.missing_items WHERE missing_at >= :since AND missing_at < :until
GROUP BY sku ORDER BY pieces DESC, sku LIMIT :limit
"""
_TOOK = """
 count(*) AS orders, percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds) AS p50_seconds,
 percentile_cont(0.95) WITHIN GROUP (ORDER BY seconds) AS p95_seconds
FROM (SELECT {end} AS at, extract(epoch FROM {end} - placed_at)::float AS seconds FROM analytics.orders
 WHERE {end} >= :since AND {end} < :until) AS took
"""
_READY_IN_STEPS = (
    f"SELECT {_STEP.format(at='at')} AS minute, {_TOOK.format(end='ready_at')} GROUP BY 1 ORDER BY 1 LIMIT :limit"
)
_ROBOTS = """
WITH online AS (
 SELECT robot, sum(extract(epoch FROM least(coalesce(offline_at, :now), :until) - greatest(online_at, :since)))
  AS seconds
 FROM analytics.robot_shifts WHERE online_at < least(:until, :now) AND coalesce(offline_at, :now) > :since
 GROUP BY robot
), busy AS (
 SELECT robot, sum(extract(epoch FROM least(coalesce(ended_at, :now), :until) - greatest(assigned_at, :since)))
  AS seconds, count(*) FILTER (WHERE completed AND ended_at >= :since AND ended_at < :until) AS lists
 FROM analytics.robot_lists WHERE assigned_at < least(:until, :now) AND coalesce(ended_at, :now) > :since
 GROUP BY robot
), picked AS (
 SELECT robot, sum(quantity)::bigint AS pieces FROM analytics.picks
 WHERE picked_at >= :since AND picked_at < :until GROUP BY robot
)
SELECT robot, coalesce(online.seconds, 0)::float AS online_seconds,
 coalesce(busy.seconds, 0)::float AS busy_seconds,
 (coalesce(busy.seconds, 0) / nullif(online.seconds, 0))::float AS use, coalesce(lists, 0) AS lists_completed,
 coalesce(pieces, 0) AS pieces_picked
FROM online FULL JOIN busy USING (robot) FULL JOIN picked USING (robot) ORDER BY robot
"""


class Analytics:
    """The numbers, from Analytics' database. Raises `Unavailable` while they are being made anew."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def orders(self, window: Window, limit: int, step: int = 1) -> list[Minute]:
        """Orders in each `step` minutes, the oldest first; those in which nothing happened are left out."""
        return await self._read(Minute, _MINUTES, window, limit=limit, step=step)

    async def counts(self, window: Window) -> Counts:
        """All orders of the window."""
        (counts,) = await self._read(Counts, f"SELECT {_COUNTS}", window)
        return counts

    async def sales(self, window: Window, limit: int) -> list[Sales]:
        """Sales by store and hour, the oldest first."""
        return await self._read(Sales, _SALES, window, limit=limit)

    async def sales_by_store(self, window: Window, limit: int) -> list[StoreSales]:
        """Sales by store, the largest first."""
        return await self._read(StoreSales, _SALES_BY_STORE, window, limit=limit)

    async def refusals(self, window: Window) -> list[Refusals]:
        """Refused orders by reason, the most frequent first."""
        return await self._read(Refusals, _REFUSALS, window)

    async def missing_items(self, window: Window, limit: int) -> list[MissingProduct]:
        """The products that were missing, those with the most pieces first."""
        return await self._read(MissingProduct, _MISSING, window, limit=limit)

    async def times(self, window: Window) -> Times:
        """How long orders took."""
        (ready,) = await self._read(Took, f"SELECT {_TOOK.format(end='ready_at')}", window)
        (completed,) = await self._read(Took, f"SELECT {_TOOK.format(end='completed_at')}", window)
        return Times(to_ready=ready, to_completed=completed)

    async def times_to_ready(self, window: Window, limit: int, step: int) -> list[TookInStep]:
        """From placed to ready, in each `step` minutes in which orders became so, the oldest first."""
        return await self._read(TookInStep, _READY_IN_STEPS, window, limit=limit, step=step)

    async def robots(self, window: Window) -> list[RobotUse]:
        """What each robot did, by name. Who is online or busy now is so until now."""
        return await self._read(RobotUse, _ROBOTS, window, now=now())

    async def _read(self, kind: type[Row], query: str, window: Window, **values: Any) -> list[Row]:
        parameters: Mapping[str, Any] = {"since": window.since, "until": window.until, **values}
        try:
            async with self._database.transaction() as connection:
                rows = (await connection.execute(text(query), parameters)).mappings()
                return [kind.model_validate(dict(row)) for row in rows]
        except ProgrammingError as error:
            missing = asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError
            if error.orig is not None and isinstance(error.orig.__cause__, missing):
                raise Unavailable("Analytics has no tables: `mallbots analytics` makes them anew") from error
            raise

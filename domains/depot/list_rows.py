"""The rows of shopping lists, in a transaction of the service's.

Whoever locks both locks the list before its robot; a robot that takes a list waits for none.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import UUID as PG_UUID
from sqlalchemy.ext.asyncio import AsyncConnection

from domains.depot.copies import StoreCopies
from domains.depot.messages import (
    ListGlance,
    ListStatus,
    Progress,
    ShoppingListAssigned,
    ShoppingListReleased,
    ShoppingListScheduled,
    Stop,
    Untaken,
)
from domains.depot.model import ShoppingList, plan_stops
from kernel.errors import NotFound
from kernel.messages import PricedLine

_LEFT_TO_OTHERS: Final = 10.0

_LIST = (
    "SELECT order_id, status, robot, released_at, assign_round, shop_round, amended, reason, returned_at,"
    " changed_at, (SELECT trace_context FROM depot.events"
    "  WHERE stream = 'list-' || shopping_lists.order_id AND version = 1) AS trace_context"
    " FROM depot.shopping_lists"
)
_IS_HELD = "status IN ('assigned', 'collected')"
_IS_DUTY = f"({_IS_HELD} OR (status = 'cancelled' AND returned_at IS NULL))"

# The first to speak of an order makes its row; others wait here for its commit and then find it.
_CLAIM = text(
    "INSERT INTO depot.shopping_lists (order_id, status, reason) VALUES (:order_id, :status, :reason)"
    " ON CONFLICT DO NOTHING RETURNING order_id"
)
_LOCK = text(f"{_LIST} WHERE order_id = :order_id FOR UPDATE")
_FIND = text(f"{_LIST} WHERE order_id = :order_id")
_DUTY = text(f"{_LIST} WHERE robot = :robot AND {_IS_DUTY}")
_HELD_BY = text(f"SELECT order_id FROM depot.shopping_lists WHERE robot = :robot AND {_IS_HELD}")
_ALL_DUTIES = text(f"{_LIST} WHERE {_IS_DUTY}")
# For a moment, what staff recalled a robot from is left to the others that could have it.
_IS_FOR_OTHERS = (
    "robot = :robot AND recalled_at > now() - make_interval(secs => :left_to_others) AND EXISTS ("
    "SELECT FROM depot.robots AS other WHERE other.name <> :robot AND other.status = 'idle'"
    " AND other.held_since IS NULL"
    f" AND NOT EXISTS (SELECT FROM depot.shopping_lists AS theirs WHERE theirs.robot = other.name AND {_IS_DUTY}))"
)
_OLDEST_RELEASED = text(
    f"{_LIST} WHERE status = 'released' AND ({_IS_FOR_OTHERS}) IS NOT TRUE"
    " ORDER BY released_at, order_id LIMIT 1 FOR UPDATE SKIP LOCKED"
)
_UNDER_WAY: Final[tuple[ListStatus, ...]] = ("scheduled", "released", "assigned", "collected")
_HOW_MANY = text(
    "SELECT status, count(*) AS lists FROM depot.shopping_lists WHERE status = ANY(:statuses) GROUP BY status"
)
_WAITING = text(
    "SELECT count(*) FROM (SELECT FROM depot.shopping_lists WHERE status = 'released' LIMIT :most) AS w"
)
_UNTAKEN = text(
    "SELECT order_id, changed_at AS since, count(*) OVER () AS lists FROM depot.shopping_lists"
    " WHERE status = 'released' AND changed_at < now() - make_interval(secs => :seconds)"
    " ORDER BY changed_at, order_id LIMIT 1"
)
_SOME = f"{_LIST} WHERE (CAST(:before AS uuid) IS NULL OR order_id < :before)"
_NEWEST = text(f"{_SOME} ORDER BY order_id DESC LIMIT :limit")
_NEWEST_IN = text(f"{_SOME} AND status = ANY(:statuses) ORDER BY order_id DESC LIMIT :limit")
_ITEMS = text(
    "SELECT order_id, stop, store, sku, name, quantity, round, picked, missing FROM depot.shopping_list_items"
    ' WHERE order_id = ANY(:order_ids) ORDER BY order_id, stop, sku COLLATE "C"'
).bindparams(bindparam("order_ids", type_=ARRAY(PG_UUID)))
_ADD_ITEMS = text(
    "INSERT INTO depot.shopping_list_items (order_id, stop, sku, store, name, quantity, round)"
    " VALUES (:order_id, :stop, :sku, :store, :name, :quantity, :round)"
)
_REPORT = text(
    "UPDATE depot.shopping_list_items SET picked = :picked, missing = :missing"
    " WHERE order_id = :order_id AND stop = :stop AND sku = :sku"
)
_SET = text(
    "UPDATE depot.shopping_lists SET status = :status, robot = :robot, amended = :amended, reason = :reason,"
    " changed_at = now() WHERE order_id = :order_id"
)
_SET_RELEASED_AT = text(
    "UPDATE depot.shopping_lists SET released_at = coalesce(released_at, now()) WHERE order_id = :order_id"
)
_SET_RECALLED_AT = text("UPDATE depot.shopping_lists SET recalled_at = now() WHERE order_id = :order_id")
_SET_RETURNED = text(
    "UPDATE depot.shopping_lists SET returned_at = now(), changed_at = now() WHERE order_id = :order_id"
)
# An attempt that was given up may come through after its successors.
_WAIT_ASSIGN = text(
    "UPDATE depot.shopping_lists SET assign_round = greatest(assign_round, :round) WHERE order_id = :order_id"
)
_WAIT_SHOP = text(
    "UPDATE depot.shopping_lists SET shop_round = greatest(shop_round, :round) WHERE order_id = :order_id"
)
_PROGRESS = text(
    "SELECT order_id, robot, shop_round, coalesce(sum(picked), 0) AS picked,"
    " sum(quantity - coalesce(missing, 0)) AS total"
    " FROM depot.shopping_lists JOIN depot.shopping_list_items USING (order_id)"
    " WHERE robot = ANY(:robots) AND status = 'assigned' AND shop_round IS NOT NULL GROUP BY order_id"
)
_GLANCES = text(
    "SELECT order_id, status, robot, stores, pieces, picked, missing, since, version"
    " FROM depot.shopping_lists"
    " CROSS JOIN LATERAL (SELECT array_agg(DISTINCT store) AS stores, sum(quantity) AS pieces,"
    "  coalesce(sum(picked), 0) AS picked, coalesce(sum(missing), 0) AS missing"
    "  FROM depot.shopping_list_items AS items WHERE items.order_id = shopping_lists.order_id) AS pieces"
    " CROSS JOIN LATERAL (SELECT max(version) AS version, max(recorded_at) FILTER (WHERE type = ANY(:entries))"
    "  AS since FROM depot.all_events WHERE stream = 'list-' || shopping_lists.order_id) AS told"
    " WHERE order_id = ANY(:order_ids) AND pieces IS NOT NULL"
).bindparams(bindparam("order_ids", type_=ARRAY(PG_UUID)))
_ENTRIES = [event.__name__ for event in (ShoppingListScheduled, ShoppingListReleased, ShoppingListAssigned)]


async def claim(
    connection: AsyncConnection, order_id: UUID, status: ListStatus, reason: str | None = None
) -> bool:
    """Make the row of an order; whether this was the first to do so."""
    values = {"order_id": order_id, "status": status, "reason": reason}
    return (await connection.execute(_CLAIM, values)).first() is not None


async def lock(connection: AsyncConnection, order_id: UUID) -> ShoppingList:
    """The list of an order, held until the transaction ends. Raises `NotFound`."""
    return await _one(connection, _LOCK, order_id)


async def find(connection: AsyncConnection, order_id: UUID) -> ShoppingList:
    """The list of an order. Raises `NotFound`."""
    return await _one(connection, _FIND, order_id)


async def duty_of(connection: AsyncConnection, robot: str) -> ShoppingList | None:
    """The list that a robot holds, or the cancelled one that it has to take back."""
    found = await _several(connection, _DUTY, {"robot": robot})
    return found[0] if found else None


async def duties(connection: AsyncConnection) -> dict[str, ShoppingList]:
    """What `duty_of` tells, of every robot that has something to do."""
    found = await _several(connection, _ALL_DUTIES, {})
    return {shopping.robot: shopping for shopping in found if shopping.robot is not None}


async def held_by(connection: AsyncConnection, robot: str) -> UUID | None:
    """The order of the list that a robot holds."""
    order_id: UUID | None = (await connection.execute(_HELD_BY, {"robot": robot})).scalar()
    return order_id


async def lock_oldest_released(connection: AsyncConnection, robot: str) -> ShoppingList | None:
    """The list that has waited longest for a robot, of those that nobody else looks at. One that this robot was
    just recalled from is left to others, if there are any."""
    values = {"robot": robot, "left_to_others": _LEFT_TO_OTHERS}
    found = await _several(connection, _OLDEST_RELEASED, values)
    return found[0] if found else None


async def waiting(connection: AsyncConnection, most: int) -> int:
    """How many lists wait for a robot, counted up to `most`."""
    number: int = (await connection.execute(_WAITING, {"most": most})).scalar_one()
    return number


async def untaken(connection: AsyncConnection, seconds: float) -> Untaken | None:
    """The lists that wait for a robot for longer than so many seconds."""
    row = (await connection.execute(_UNTAKEN, {"seconds": seconds})).mappings().first()
    return None if row is None else Untaken.model_validate(dict(row))


async def how_many(connection: AsyncConnection) -> dict[ListStatus, int]:
    """How many lists there are in each state, of those that are not shopped yet."""
    rows = await connection.execute(_HOW_MANY, {"statuses": list(_UNDER_WAY)})
    return dict.fromkeys(_UNDER_WAY, 0) | {row.status: row.lists for row in rows}


async def newest(
    connection: AsyncConnection, statuses: Sequence[ListStatus] | None, before: UUID | None, limit: int
) -> list[ShoppingList]:
    """Lists, those of the newest orders first."""
    values = {"before": before, "limit": limit}
    if statuses is None:
        return await _several(connection, _NEWEST, values)
    return await _several(connection, _NEWEST_IN, {**values, "statuses": list(statuses)})


async def plan(connection: AsyncConnection, lines: Iterable[PricedLine]) -> list[Stop]:
    """Where to pick these lines, as the shelves are called now."""
    lines = list(lines)
    return plan_stops(lines, await StoreCopies(connection).signs(line.sku for line in lines))


async def add_stops(
    connection: AsyncConnection, order_id: UUID, stops: Sequence[Stop], *, behind: int = 0, round: int = 0
) -> None:
    """Add stops to a list behind those that it has."""
    rows = [
        {"order_id": order_id, "stop": number, "store": stop.store, "round": round, **item.model_dump()}
        for number, stop in enumerate(stops, behind + 1)
        for item in stop.items
    ]
    if rows:
        await connection.execute(_ADD_ITEMS, rows)


async def report(
    connection: AsyncConnection, order_id: UUID, stop: int, sku: str, *, picked: int, missing: int
) -> None:
    """Write down what became of an item."""
    values = {"order_id": order_id, "stop": stop, "sku": sku, "picked": picked, "missing": missing}
    await connection.execute(_REPORT, values)


async def save(connection: AsyncConnection, shopping_list: ShoppingList) -> None:
    """Write down the list's status, robot, word and reason."""
    values = shopping_list.model_dump(include={"order_id", "status", "robot", "amended", "reason"})
    await connection.execute(_SET, values)


async def set_released_at(connection: AsyncConnection, order_id: UUID) -> None:
    """The list waits for a robot from now on, unless it has before."""
    await connection.execute(_SET_RELEASED_AT, {"order_id": order_id})


async def set_recalled_at(connection: AsyncConnection, order_id: UUID) -> None:
    """Staff take the list from its robot now."""
    await connection.execute(_SET_RECALLED_AT, {"order_id": order_id})


async def set_returned(connection: AsyncConnection, order_id: UUID) -> None:
    """Nothing of the list is carried any more."""
    await connection.execute(_SET_RETURNED, {"order_id": order_id})


async def wait_for_assignment(connection: AsyncConnection, order_id: UUID, round: int) -> None:
    """A step of the saga waits for a robot."""
    await connection.execute(_WAIT_ASSIGN, {"order_id": order_id, "round": round})


async def wait_for_shopping(connection: AsyncConnection, order_id: UUID, round: int) -> None:
    """A step of the saga waits until every item is reported."""
    await connection.execute(_WAIT_SHOP, {"order_id": order_id, "round": round})


async def progress(connection: AsyncConnection, robots: Iterable[str]) -> list[Progress]:
    """How far these robots are, of those whose list a step of the saga waits for."""
    rows = await connection.execute(_PROGRESS, {"robots": list(robots)})
    return [Progress.model_validate(dict(row)) for row in rows.mappings()]


async def glances(connection: AsyncConnection, order_ids: Iterable[UUID]) -> list[ListGlance]:
    """How far the lists of these orders are, of those that have one."""
    rows = await connection.execute(_GLANCES, {"order_ids": list(order_ids), "entries": _ENTRIES})
    return [ListGlance.model_validate(dict(row)) for row in rows.mappings()]


async def _one(connection: AsyncConnection, query: Any, order_id: UUID) -> ShoppingList:
    found = await _several(connection, query, {"order_id": order_id})
    if not found:
        raise NotFound(f"order {order_id} has no shopping list")
    return found[0]


async def _several(connection: AsyncConnection, query: Any, values: Mapping[str, Any]) -> list[ShoppingList]:
    rows = (await connection.execute(query, values)).mappings().all()
    if not rows:
        return []
    items: dict[UUID, list[Mapping[str, Any]]] = {row["order_id"]: [] for row in rows}
    for item in (await connection.execute(_ITEMS, {"order_ids": list(items)})).mappings():
        items[item["order_id"]].append(dict(item))
    return [ShoppingList.model_validate({**row, "items": items[row["order_id"]]}) for row in rows]

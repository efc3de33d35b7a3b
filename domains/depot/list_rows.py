"""The rows of shopping lists, in a transaction of the service's.

Whoever locks both locks the list before its robot; a robot that takes a list waits for none.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import UUID as PG_UUID
from sqlalchemy.ext.asyncio import AsyncConnection

from domains.depot.copies import StoreCopies
from domains.depot.messages import ListStatus, Progress, Stop
from domains.depot.model import ShoppingList, plan_stops
from kernel.errors import NotFound
from kernel.messages import PricedLine

_LIST = (
    "SELECT order_id, status, robot, released_at, assign_round, shop_round, amended, reason, returned_at,"
    " changed_at FROM depot.shopping_lists"
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
_OLDEST_RELEASED = text(
    f"{_LIST} WHERE status = 'released' ORDER BY released_at, order_id LIMIT 1 FOR UPDATE SKIP LOCKED"
)
_WAITING = text(
    "SELECT count(*) FROM (SELECT FROM depot.shopping_lists WHERE status = 'released' LIMIT :most) AS w"
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


async def held_by(connection: AsyncConnection, robot: str) -> UUID | None:
    """The order of the list that a robot holds."""
    order_id: UUID | None = (await connection.execute(_HELD_BY, {"robot": robot})).scalar()
    return order_id


async def lock_oldest_released(connection: AsyncConnection) -> ShoppingList | None:
    """The list that has waited longest for a robot, of those that nobody else looks at."""
    found = await _several(connection, _OLDEST_RELEASED, {})
    return found[0] if found else None


async def waiting(connection: AsyncConnection, most: int) -> int:
    """How many lists wait for a robot, counted up to `most`."""
    number: int = (await connection.execute(_WAITING, {"most": most})).scalar_one()
    return number


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

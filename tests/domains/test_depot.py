"""Depot: an order becomes a shopping list with a stop for each store."""

from uuid import UUID

import pytest
from sqlalchemy import text

from domains.depot.messages import CancelShopping, Item, ScheduleShopping, Stop
from domains.depot.model import plan_stops
from domains.depot.service import Depot
from kernel.database import Database
from kernel.errors import OrderClosed
from kernel.ids import new_id
from tests.samples import priced


def schedule() -> ScheduleShopping:
    return ScheduleShopping(
        order_id=new_id(), lines=[priced("tea"), priced("rose", 1, store="Floral"), priced("tea", 3)]
    )


async def list_of(database: Database, order_id: UUID) -> tuple[str, int, list[str]]:
    """The list's status, its number of items, and the events of its stream."""
    values = {"order_id": order_id, "stream": f"list-{order_id}"}
    async with database.transaction() as connection:
        status = await connection.execute(
            text("SELECT status FROM depot.shopping_lists WHERE order_id = :order_id"), values
        )
        items = await connection.execute(
            text("SELECT count(*) FROM depot.shopping_list_items WHERE order_id = :order_id"), values
        )
        events = await connection.execute(
            text("SELECT type FROM depot.events WHERE stream = :stream ORDER BY version"), values
        )
        return status.scalar_one(), items.scalar_one(), [row.type for row in events]


def test_a_list_has_one_stop_for_each_store_and_one_item_for_each_product() -> None:
    assert plan_stops(schedule().lines, {}) == [
        Stop(store="Floral", items=[Item(sku="rose", name="rose", quantity=1)]),
        Stop(store="Grocery", items=[Item(sku="tea", name="tea", quantity=5)]),
    ]


async def test_a_list_scheduled_twice_is_one_list(depot: Depot, database: Database) -> None:
    command = schedule()
    for _ in range(2):
        await depot.schedule(command)
    assert await list_of(database, command.order_id) == ("scheduled", 2, ["ShoppingListScheduled"])


async def test_a_list_cancelled_twice_is_cancelled_once(depot: Depot, database: Database) -> None:
    command = schedule()
    await depot.schedule(command)
    for _ in range(2):
        await depot.cancel(CancelShopping(order_id=command.order_id, reason="payment_declined"))
    status, _, events = await list_of(database, command.order_id)
    assert (status, events) == ("cancelled", ["ShoppingListScheduled", "ShoppingListCancelled"])


async def test_a_schedule_that_comes_after_its_cancel_is_refused(depot: Depot, database: Database) -> None:
    command = schedule()
    for _ in range(2):
        await depot.cancel(CancelShopping(order_id=command.order_id, reason="cancelled by customer"))
    with pytest.raises(OrderClosed):
        await depot.schedule(command)
    assert await list_of(database, command.order_id) == ("cancelled", 0, ["ShoppingListCancelled"])

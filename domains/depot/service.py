"""What Depot can be asked to do for an order."""

from uuid import UUID

from sqlalchemy import text

from domains.depot.copies import StoreCopies
from domains.depot.messages import (
    EVENTS,
    CancelShopping,
    ScheduleShopping,
    ShoppingListCancelled,
    ShoppingListScheduled,
)
from domains.depot.model import plan_stops
from events.store import EventStore
from kernel.database import Database
from kernel.errors import OrderClosed

STORE = EventStore("depot", EVENTS)

# The first to speak of an order makes its row; others wait here for its commit and then find it.
_CLAIM = text(
    "INSERT INTO depot.shopping_lists (order_id, status) VALUES (:order_id, :status)"
    " ON CONFLICT DO NOTHING RETURNING order_id"
)
_STATUS = text("SELECT status FROM depot.shopping_lists WHERE order_id = :order_id FOR UPDATE")
_SET_CANCELLED = text(
    "UPDATE depot.shopping_lists SET status = 'cancelled', changed_at = now() WHERE order_id = :order_id"
)
_ADD_ITEMS = text(
    "INSERT INTO depot.shopping_list_items (order_id, stop, sku, store, name, quantity)"
    " VALUES (:order_id, :stop, :sku, :store, :name, :quantity)"
)


class Depot:
    """The Depot domain on its database. Every command may be repeated: the effect is that of the first."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def schedule(self, command: ScheduleShopping) -> None:
        """Make the shopping list of an order. Raises `OrderClosed` if it was cancelled before."""
        order = {"order_id": command.order_id}
        async with self._database.transaction() as connection:
            if not (await connection.execute(_CLAIM, {**order, "status": "scheduled"})).first():
                if (await connection.execute(_STATUS, order)).scalar_one() == "cancelled":
                    raise OrderClosed(f"the shopping list of order {command.order_id} has been cancelled")
                return
            signs = await StoreCopies(connection).signs(line.sku for line in command.lines)
            stops = plan_stops(command.lines, signs)
            await connection.execute(
                _ADD_ITEMS,
                [
                    {**order, "stop": number, "store": stop.store, **item.model_dump()}
                    for number, stop in enumerate(stops, 1)
                    for item in stop.items
                ],
            )
            event = ShoppingListScheduled(order_id=command.order_id, stops=stops)
            await STORE.append(connection, _stream(command.order_id), 0, [event])

    async def cancel(self, command: CancelShopping) -> None:
        """Drop the list. If there is none yet, a schedule that comes later is refused."""
        order = {"order_id": command.order_id}
        async with self._database.transaction() as connection:
            if not (await connection.execute(_CLAIM, {**order, "status": "cancelled"})).first():
                if (await connection.execute(_STATUS, order)).scalar_one() == "cancelled":
                    return
                await connection.execute(_SET_CANCELLED, order)
            event = ShoppingListCancelled(order_id=command.order_id, reason=command.reason)
            await STORE.record(connection, [(_stream(command.order_id), event)])


def _stream(order_id: UUID) -> str:
    return f"list-{order_id}"

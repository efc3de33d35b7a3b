"""What Analytics notes of each event. Times are those at which the events were recorded, so that reading them all
again gives the same numbers."""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from domains.depot.messages import (
    ItemMissing,
    ItemPicked,
    RobotOffline,
    RobotOnline,
    ShoppingListAssigned,
    ShoppingListCancelled,
    ShoppingListCompleted,
    ShoppingListReleased,
)
from domains.orders.messages import (
    OrderAdjusted,
    OrderApproved,
    OrderCancelled,
    OrderCompleted,
    OrderExpired,
    OrderPlaced,
    OrderReadied,
    OrderRefunded,
    OrderRefundWithdrawn,
    OrderRejected,
)
from events.consumer import Consumer
from events.event import Event
from events.recorded import ROOT, RecordedEvent
from kernel.messages import PricedLine

_ORDERS: Final[tuple[type[Event], ...]] = (
    OrderPlaced,
    OrderApproved,
    OrderRejected,
    OrderCancelled,
    OrderAdjusted,
    OrderReadied,
    OrderCompleted,
    OrderExpired,
    OrderRefunded,
    OrderRefundWithdrawn,
)
_DEPOT: Final[tuple[type[Event], ...]] = (
    ItemMissing,
    ItemPicked,
    RobotOffline,
    RobotOnline,
    ShoppingListAssigned,
    ShoppingListCancelled,
    ShoppingListCompleted,
    ShoppingListReleased,
)

_PLACED = text(
    "INSERT INTO analytics.orders (order_id, kiosk, currency, placed_at)"
    " VALUES (:order_id, :kiosk, :currency, :at) ON CONFLICT DO NOTHING"
)
_APPROVED = text("UPDATE analytics.orders SET approved_at = :at WHERE order_id = :order_id")
# The last word on what an order has to sell stands: one that comes again later changes nothing.
_SELLS = text(
    "UPDATE analytics.orders SET sold_version = :version WHERE order_id = :order_id"
    " AND coalesce(sold_version, 0) < :version AND cancelled_at IS NULL AND expired_at IS NULL"
)
_SOLD = text(
    "INSERT INTO analytics.sale_lines (order_id, line, store, sku, quantity, cents, currency, sold_at)"
    " SELECT order_id, :line, :store, :sku, :quantity, :cents, currency, approved_at FROM analytics.orders"
    " WHERE order_id = :order_id"
)
_REJECTED = text("UPDATE analytics.orders SET rejected_at = :at, refusal_code = :code WHERE order_id = :order_id")
_CANCELLED = text("UPDATE analytics.orders SET cancelled_at = :at WHERE order_id = :order_id")
_EXPIRED = text("UPDATE analytics.orders SET expired_at = :at WHERE order_id = :order_id")
_NOT_SOLD = text("DELETE FROM analytics.sale_lines WHERE order_id = :order_id")
_READY = text("UPDATE analytics.orders SET ready_at = :at WHERE order_id = :order_id")
_COMPLETED = text("UPDATE analytics.orders SET completed_at = :at WHERE order_id = :order_id")
_REFUNDED = text(
    "INSERT INTO analytics.refund_lines"
    " (refund_id, line, order_id, store, sku, quantity, cents, currency, sold_at)"
    " SELECT :refund_id, :line, order_id, :store, :sku, :quantity, :cents, currency, approved_at"
    " FROM analytics.orders WHERE order_id = :order_id ON CONFLICT DO NOTHING"
)
_NOT_REFUNDED = text("UPDATE analytics.refund_lines SET withdrawn_at = :at WHERE refund_id = :refund_id")
_MISSING = text(
    "INSERT INTO analytics.missing_items (event_id, order_id, store, sku, name, quantity, missing_at)"
    " VALUES (:event_id, :order_id, :store, :sku, :name, :quantity, :at) ON CONFLICT DO NOTHING"
)
_PICKED = text(
    "INSERT INTO analytics.picks (event_id, robot, quantity, picked_at)"
    " VALUES (:event_id, :robot, :quantity, :at) ON CONFLICT DO NOTHING"
)
# What an earlier event of the stream began ends here; a later one, when this comes again, goes on.
_SHIFT_ENDS = text(
    "UPDATE analytics.robot_shifts SET offline_at = :at"
    " WHERE robot = :robot AND version < :version AND offline_at IS NULL"
)
_SHIFT_BEGINS = text(
    "INSERT INTO analytics.robot_shifts (robot, version, online_at) VALUES (:robot, :version, :at)"
    " ON CONFLICT DO NOTHING"
)
_LIST_ENDS = text(
    "UPDATE analytics.robot_lists SET ended_at = :at, completed = :completed"
    " WHERE order_id = :order_id AND version < :version AND ended_at IS NULL"
)
_LIST_BEGINS = text(
    "INSERT INTO analytics.robot_lists (order_id, version, robot, assigned_at, completed)"
    " VALUES (:order_id, :version, :robot, :at, false) ON CONFLICT DO NOTHING"
)


class _Notes:
    """What is to be noted of one event."""

    def __init__(self, connection: AsyncConnection, event: RecordedEvent) -> None:
        self._connection = connection
        self._of_event = {"at": event.recorded_at, "version": event.version, "event_id": event.id}

    async def of_orders(self, event: Event | None) -> None:
        match event:
            case OrderPlaced(order_id=order_id, kiosk=kiosk, currency=currency):
                await self._write(_PLACED, order_id=order_id, kiosk=kiosk, currency=currency)
            case OrderApproved(order_id=order_id, lines=lines):
                await self._write(_APPROVED, order_id=order_id)
                await self._sell(order_id, lines)
            case OrderAdjusted(order_id=order_id, lines=lines):
                await self._sell(order_id, lines)
            case OrderRejected(order_id=order_id, refusal=refusal):
                await self._write(_REJECTED, order_id=order_id, code=refusal.code)
            case OrderCancelled(order_id=order_id):
                await self._write(_CANCELLED, order_id=order_id)
                await self._write(_NOT_SOLD, order_id=order_id)
            case OrderReadied(order_id=order_id):
                await self._write(_READY, order_id=order_id)
            case OrderCompleted(order_id=order_id):
                await self._write(_COMPLETED, order_id=order_id)
            case OrderExpired(order_id=order_id):
                await self._write(_EXPIRED, order_id=order_id)
                await self._write(_NOT_SOLD, order_id=order_id)
            case OrderRefunded(order_id=order_id, refund_id=refund_id, lines=lines):
                await self._write_lines(_REFUNDED, lines, order_id=order_id, refund_id=refund_id)
            case OrderRefundWithdrawn(refund_id=refund_id):
                await self._write(_NOT_REFUNDED, refund_id=refund_id)

    async def of_depot(self, event: Event | None) -> None:
        match event:
            case ItemMissing() as missing:
                await self._write(_MISSING, **missing.model_dump(exclude={"robot"}))
            case ItemPicked(robot=robot, quantity=quantity):
                await self._write(_PICKED, robot=robot, quantity=quantity)
            case RobotOnline(robot=robot):
                await self._write(_SHIFT_ENDS, robot=robot)
                await self._write(_SHIFT_BEGINS, robot=robot)
            case RobotOffline(robot=robot):
                await self._write(_SHIFT_ENDS, robot=robot)
            case ShoppingListAssigned(order_id=order_id, robot=robot):
                await self._write(_LIST_ENDS, order_id=order_id, completed=False)
                await self._write(_LIST_BEGINS, order_id=order_id, robot=robot)
            case ShoppingListCompleted(order_id=order_id):
                await self._write(_LIST_ENDS, order_id=order_id, completed=True)
            case ShoppingListReleased(order_id=order_id) | ShoppingListCancelled(order_id=order_id):
                await self._write(_LIST_ENDS, order_id=order_id, completed=False)

    async def _sell(self, order_id: UUID, lines: Sequence[PricedLine]) -> None:
        if await self._write(_SELLS, order_id=order_id):
            await self._write(_NOT_SOLD, order_id=order_id)
            await self._write_lines(_SOLD, lines, order_id=order_id)

    async def _write_lines(self, statement: TextClause, lines: Sequence[PricedLine], **values: object) -> None:
        for number, line in enumerate(lines, 1):
            of_line = line.model_dump(include={"store", "sku", "quantity"})
            cents = line.quantity * line.unit_price_cents
            await self._write(statement, line=number, cents=cents, **of_line, **values)

    async def _write(self, statement: TextClause, **values: object) -> int:
        """How many rows that changed."""
        return (await self._connection.execute(statement, self._of_event | values)).rowcount


async def note(connection: AsyncConnection, event: RecordedEvent) -> None:
    """Note what the numbers need of an event."""
    notes = _Notes(connection, event)
    if event.domain == "orders":
        await notes.of_orders(event.read_one_of(_ORDERS))
    else:
        await notes.of_depot(event.read_one_of(_DEPOT))


CONSUMER: Final = Consumer(
    "analytics",
    "analytics",
    (
        *(f"{ROOT}.orders.{event.__name__}.*" for event in _ORDERS),
        *(f"{ROOT}.depot.{event.__name__}.*" for event in _DEPOT),
    ),
    note,
)

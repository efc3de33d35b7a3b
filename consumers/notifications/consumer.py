"""The consumer that makes notifications of the events of an order.

In one transaction it keeps what it will need of the order (carried state: nobody is asked later), and writes the
notification. The senders, which that wakes, hand its job out on the work queue after the commit: inside the
transaction, a slow NATS would hold up the relays of the whole database server.
"""

from datetime import timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from consumers.notifications.messages import NotificationKind
from consumers.notifications.service import WAKE_SENDERS
from domains.orders.messages import OrderApproved, OrderCancelled, OrderPlaced, OrderReadied, PickupReminded
from events.consumer import Consumer
from events.recorded import RecordedEvent
from kernel.errors import NotFound
from kernel.ids import now
from kernel.messages import Message

NEWS_FOR: Final = timedelta(days=1)
"""How long an event is worth telling. A consumer that begins with the first event there is, or is back after days,
must not tell customers today what happened then."""

Told = OrderApproved | OrderReadied | PickupReminded | OrderCancelled
_EVENTS: Final = (OrderPlaced, OrderApproved, OrderReadied, PickupReminded, OrderCancelled)

_PUT_ORDER: Final = text(
    "INSERT INTO notifications.orders (order_id, customer, kiosk) VALUES (:order_id, :customer, :kiosk)"
    " ON CONFLICT DO NOTHING"
)
_PUT_PICKUP_CODE: Final = text(
    "UPDATE notifications.orders SET pickup_code = :pickup_code WHERE order_id = :order_id"
)
_ORDER: Final = text(
    "SELECT order_id, customer, kiosk, pickup_code FROM notifications.orders WHERE order_id = :order_id"
)
_ADD: Final = text(
    "INSERT INTO notifications.notifications (id, kind, order_id, customer, kiosk, pickup_code, text, created_at)"
    " VALUES (:id, :kind, :order_id, :customer, :kiosk, :pickup_code, :text, :created_at) ON CONFLICT DO NOTHING"
)


class OrderCopy(Message):
    """What is kept of an order. It has a pickup code from its approval on."""

    order_id: UUID
    customer: str | None
    kiosk: str
    pickup_code: str | None


async def handle(connection: AsyncConnection, event: RecordedEvent) -> None:
    """Keep what an event tells of its order, and write what the customer is told of it. Of an order without a
    customer nobody is told."""
    happened = event.read_one_of(_EVENTS)
    match happened:
        case OrderPlaced():
            values = happened.model_dump(include={"order_id", "customer", "kiosk"})
            await connection.execute(_PUT_ORDER, values)
        case OrderApproved():
            values = happened.model_dump(include={"order_id", "pickup_code"})
            await connection.execute(_PUT_PICKUP_CODE, values)
            await _write(connection, event, happened)
        case OrderReadied() | PickupReminded() | OrderCancelled():
            await _write(connection, event, happened)


async def _write(connection: AsyncConnection, event: RecordedEvent, happened: Told) -> None:
    row = (await connection.execute(_ORDER, {"order_id": happened.order_id})).mappings().first()
    if row is None:
        raise NotFound(f"order {happened.order_id} was never placed")
    order = OrderCopy.model_validate(dict(row))
    if order.customer is None or event.recorded_at < now() - NEWS_FOR:
        return
    kind, sentence = told(happened, order)
    values = {
        **order.model_dump(),
        "id": event.id,
        "kind": kind,
        "text": sentence,
        "created_at": event.recorded_at,
    }
    await connection.execute(_ADD, values)
    await connection.execute(WAKE_SENDERS)


def told(happened: Told, order: OrderCopy) -> tuple[NotificationKind, str]:
    """What the customer is told when this happened to the order."""
    name = f"order {order.pickup_code}" if order.pickup_code else f"order from {order.kiosk}"
    match happened:
        case OrderApproved():
            return "received", f"Thank you for your order. Your pickup code is {order.pickup_code}."
        case OrderReadied():
            return "ready", f"Your {name} is ready: collect it at the desk."
        case PickupReminded():
            return "reminder", f"Your {name} still waits for you at the desk."
        case OrderCancelled(cancellation=cancellation):
            # Told of an order that was never approved, too: its customer may have left with "we are on it", and
            # waits for news. The reason is not told: whoever gave it wrote it for colleagues.
            how = "as you wished" if cancellation.by == "customer" else "by the mall"
            return "cancelled", f"Your {name} was cancelled {how}. You pay nothing for it."


CONSUMER: Final = Consumer(
    "notifications",
    "notifications",
    tuple(f"mallbots.orders.{kind.__name__}.*" for kind in _EVENTS),
    handle,
    partitions=2,
)

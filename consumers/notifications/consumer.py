"""The consumer that makes notifications of the events of an order.

In one transaction it keeps what it will need of the order (carried state: nobody is asked later), and writes the
notification. The senders, which that wakes, hand its job out on the work queue after the commit: inside the
transaction, a slow NATS would hold up the relays of the whole database server.
"""

from datetime import timedelta
from typing import Final, get_args
from uuid import UUID

from opentelemetry import propagate
from pydantic_core import to_json
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from consumers.notifications.messages import NotificationKind
from consumers.notifications.service import WAKE_SENDERS
from consumers.wording import at, listed
from domains.orders.messages import (
    OrderAdjusted,
    OrderApproved,
    OrderCancelled,
    OrderExpired,
    OrderPlaced,
    OrderReadied,
    OrderRefunded,
    OrderRefundWithdrawn,
    PickupReminded,
)
from events.consumer import Consumer
from events.recorded import RecordedEvent
from kernel.errors import NotFound
from kernel.ids import now
from kernel.messages import Cancellation, Message
from kernel.wording import format_money

NEWS_FOR: Final = timedelta(days=1)
"""How long an event is worth telling. A consumer that begins with the first event there is, or is back after days,
must not tell customers today what happened then."""

Told = (
    OrderApproved
    | OrderAdjusted
    | OrderReadied
    | PickupReminded
    | OrderExpired
    | OrderCancelled
    | OrderRefunded
    | OrderRefundWithdrawn
)
_EVENTS: Final = (OrderPlaced, *get_args(Told))

_PUT_ORDER: Final = text(
    "INSERT INTO notifications.orders (order_id, customer, kiosk, currency)"
    " VALUES (:order_id, :customer, :kiosk, :currency) ON CONFLICT DO NOTHING"
)
_PUT_PICKUP_CODE: Final = text(
    "UPDATE notifications.orders SET pickup_code = :pickup_code WHERE order_id = :order_id"
)
_PUT_NAMES: Final = text(
    "UPDATE notifications.orders SET names = names || CAST(:names AS jsonb) WHERE order_id = :order_id"
)
_PUT_REFUND: Final = text(
    "UPDATE notifications.orders SET refunds = refunds || CAST(:refund AS jsonb) WHERE order_id = :order_id"
)
_ORDER: Final = text(
    "SELECT order_id, customer, kiosk, pickup_code, currency, names, refunds FROM notifications.orders"
    " WHERE order_id = :order_id"
)
_ADD: Final = text(
    "INSERT INTO notifications.notifications"
    " (id, kind, order_id, customer, kiosk, pickup_code, text, created_at, trace_context)"
    " VALUES (:id, :kind, :order_id, :customer, :kiosk, :pickup_code, :text, :created_at,"
    " CAST(:trace_context AS jsonb)) ON CONFLICT DO NOTHING"
)


class OrderCopy(Message):
    """What is kept of an order. It has a pickup code and the names of its products from its approval on."""

    order_id: UUID
    customer: str | None
    kiosk: str
    pickup_code: str | None
    currency: str | None
    names: dict[str, str]
    refunds: dict[UUID, int]


async def handle(connection: AsyncConnection, event: RecordedEvent) -> None:
    """Keep what an event tells of its order, and write what the customer is told of it. Of an order without a
    customer nobody is told."""
    happened = event.read_one_of(_EVENTS)
    if happened is None:
        return
    await _keep(connection, happened)
    if not isinstance(happened, OrderPlaced):
        await _write(connection, event, happened)


async def _keep(connection: AsyncConnection, happened: OrderPlaced | Told) -> None:
    match happened:
        case OrderPlaced():
            values = happened.model_dump(include={"order_id", "customer", "kiosk", "currency"})
            await connection.execute(_PUT_ORDER, values)
        case OrderApproved():
            values = happened.model_dump(include={"order_id", "pickup_code"})
            await connection.execute(_PUT_PICKUP_CODE, values)
        case OrderRefunded(order_id=order_id, refund_id=refund_id, amount_cents=cents):
            refund = to_json({refund_id: cents}).decode()
            await connection.execute(_PUT_REFUND, {"order_id": order_id, "refund": refund})
    if isinstance(happened, OrderApproved | OrderAdjusted):
        names = to_json({line.sku: line.name for line in happened.lines}).decode()
        await connection.execute(_PUT_NAMES, {"order_id": happened.order_id, "names": names})


async def _write(connection: AsyncConnection, event: RecordedEvent, happened: Told) -> None:
    row = (await connection.execute(_ORDER, {"order_id": happened.order_id})).mappings().first()
    if row is None:
        raise NotFound(f"order {happened.order_id} was never placed")
    order = OrderCopy.model_validate(dict(row))
    if order.customer is None or event.recorded_at < now() - NEWS_FOR:
        return
    news = told(happened, order)
    if news is None:
        return
    kind, sentence = news
    trace_context: dict[str, str] = {}
    propagate.inject(trace_context)
    values = {
        **order.model_dump(include={"order_id", "customer", "kiosk", "pickup_code"}),
        "id": event.id,
        "kind": kind,
        "text": sentence,
        "created_at": event.recorded_at,
        "trace_context": to_json(trace_context).decode() if trace_context else None,
    }
    await connection.execute(_ADD, values)
    await connection.execute(WAKE_SENDERS)


def told(happened: Told, order: OrderCopy) -> tuple[NotificationKind, str] | None:
    """What the customer is told when this happened to the order; None if there is nothing to tell."""
    name = f"order {order.pickup_code}" if order.pickup_code else f"order from {order.kiosk}"
    match happened:
        case OrderApproved():
            return "received", f"Thank you for your order. Your pickup code is {order.pickup_code}."
        case OrderAdjusted():
            return "adjusted", f"Of your {name} we could not find {_what_is_different(happened, order)}"
        case OrderReadied(pickup_until=until):
            when = f" until {at(until)}" if until else ""
            return "ready", f"Your {name} is ready: collect it at the desk{when}."
        case PickupReminded(number=number):
            again = f" This is reminder {number}." if number > 1 else ""
            return "reminder", f"Your {name} still waits for you at the desk.{again}"
        case OrderExpired():
            return "expired", f"Nobody came for your {name} in time, so it is not kept. You pay nothing for it."
        case OrderCancelled(cancellation=cancellation):
            # Told of an order that was never approved, too: its customer may have left with "we are on it", and
            # waits for news.
            return "cancelled", f"Your {name} was cancelled {_why(cancellation)}. You pay nothing for it."
        case OrderRefunded(lines=lines, amount_cents=cents, currency=currency):
            what = listed([f"{line.quantity} × {line.name}" for line in lines])
            return "refunded", f"We are giving you {format_money(cents, currency)} back for {what} of your {name}."
        case OrderRefundWithdrawn(refund_id=refund_id):
            if refund_id not in order.refunds or order.currency is None:
                return None
            money = format_money(order.refunds[refund_id], order.currency)
            return "refund_failed", f"We could not give you {money} back for your {name}: please ask at the desk."


def _what_is_different(adjusted: OrderAdjusted, order: OrderCopy) -> str:
    """What is missing, what there is instead, and what it costs now; the rest of a sentence, and more."""

    def name(sku: str) -> str:
        return order.names.get(sku, sku)

    missing = listed([f"{pieces.quantity} × {name(pieces.sku)}" for pieces in adjusted.missing])
    sentences = [f"{missing}."]
    for one in adjusted.substituted:
        sentences.append(f"You get {one.line.quantity} × {one.line.name} instead of {name(one.sku)}.")
    if order.currency:
        sentences.append(f"It costs {format_money(adjusted.total_cents, order.currency)} now.")
    return " ".join(sentences)


def _why(cancellation: Cancellation) -> str:
    # Staff and operators write their reason for colleagues; the mall gives it for customers.
    if cancellation.by == "customer":
        return "as you wished"
    if cancellation.by == "mall" and cancellation.reason:
        return f"by the mall: {cancellation.reason}"
    return "by the mall"


CONSUMER: Final = Consumer(
    "notifications",
    "notifications",
    tuple(f"mallbots.orders.{kind.__name__}.*" for kind in _EVENTS),
    handle,
    partitions=2,
)

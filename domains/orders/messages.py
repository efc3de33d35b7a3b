"""What is said to Orders, what it answers, and the events it publishes."""

from collections.abc import Mapping
from datetime import datetime
from typing import ClassVar, Literal
from uuid import UUID

from events.event import Event, Upcaster, renamed
from kernel.errors import Refusal
from kernel.messages import Cancellation, Message, OrderLine, PaymentMethod, PricedLine

OrderStatus = Literal["pending", "approved", "rejected", "cancelled"]


# Commands


class PlaceOrder(Message):
    """Record an order as pending. `order_id` is chosen by the sender, so that a repeat is the same order."""

    order_id: UUID
    kiosk: str
    customer: str | None
    lines: list[OrderLine]
    payment_method: PaymentMethod
    currency: str


class ApproveOrder(Message):
    """Give the order its prices, total and pickup code."""

    order_id: UUID
    lines: list[PricedLine]
    total_cents: int


class RejectOrder(Message):
    """End an order that a business rule refused. It carries the order, to record one that never was placed."""

    order: PlaceOrder
    refusal: Refusal


class CancelOrder(Message):
    """End an order that somebody cancelled. It carries the order, to record one that never was placed."""

    order: PlaceOrder
    cancellation: Cancellation


# Replies


class OrderAnswer(Message):
    """What the kiosk is told, now and on every repeat: approved with these lines, or refused for this reason.

    `items`, `pickup_code` and `total_cents` are set if approved, `refusal` if not.
    """

    order_id: UUID
    currency: str
    pickup_code: str | None = None
    total_cents: int | None = None
    items: list[PricedLine] = []
    refusal: Refusal | None = None


def cancelled_before_approval(cancellation: Cancellation) -> Refusal:
    """How the kiosk is told that its order was cancelled before it was approved."""
    return Refusal(
        code="order_cancelled",
        detail=f"the order was cancelled by the {cancellation.by} before it was approved",
    )


class NamedLine(OrderLine):
    """A line as the customer asked for it, with the product's name if Orders knows it."""

    name: str | None = None


class OrderView(Message):
    """An order as it is now. `items` have names and prices from its approval on."""

    order_id: UUID
    kiosk: str
    customer: str | None
    status: OrderStatus
    placed_at: datetime
    lines: list[NamedLine]
    payment_method: PaymentMethod
    currency: str
    items: list[PricedLine] = []
    total_cents: int | None = None
    pickup_code: str | None = None
    refusal: Refusal | None = None
    cancellation: Cancellation | None = None


# Events


class OrderPlaced(Event):
    """A kiosk's order was recorded; nothing is promised yet."""

    order_id: UUID
    kiosk: str
    customer: str | None
    lines: list[OrderLine]
    payment_method: PaymentMethod
    currency: str
    placed_at: datetime


class OrderApproved(Event):
    """The order will be shopped; prices are fixed."""

    schema_version: ClassVar[int] = 2
    upcasters: ClassVar[Mapping[int, Upcaster]] = {1: renamed("items", "lines")}

    order_id: UUID
    lines: list[PricedLine]
    total_cents: int
    pickup_code: str


class OrderRejected(Event):
    """A business rule refused the order."""

    order_id: UUID
    refusal: Refusal


class OrderCancelled(Event):
    """Somebody cancelled the order."""

    order_id: UUID
    cancellation: Cancellation


class OrderReadied(Event):
    """Everything that could be had of the order is at the desk."""

    order_id: UUID


class PickupReminded(Event):
    """The customer was reminded that the order is at the desk."""

    order_id: UUID


class OrderCompleted(Event):
    """The order was handed over, and paid."""

    order_id: UUID


EVENTS = (OrderPlaced, OrderApproved, OrderRejected, OrderCancelled)
"""Every event that Orders writes."""

ANNOUNCED = (OrderReadied, PickupReminded, OrderCompleted)
"""Events that the rest of the story will write; consumers may count on them already."""

LAST = (OrderRejected, OrderCancelled, OrderCompleted)
"""Events that end an order: nothing follows them in its stream."""

STREAMS = {"order-{order_id}": (*EVENTS, *ANNOUNCED)}
"""The streams of Orders, each named by a field of the events on it."""

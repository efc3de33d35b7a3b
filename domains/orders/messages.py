"""What is said to Orders, what it answers, and the events it publishes."""

from collections.abc import Mapping
from datetime import datetime
from typing import ClassVar, Literal
from uuid import UUID

from pydantic import AwareDatetime

from events.event import Event, Upcaster, renamed
from kernel.errors import Refusal
from kernel.messages import (
    Cancellation,
    Expiry,
    Message,
    OrderLine,
    PaymentMethod,
    Pieces,
    PricedLine,
    Substitution,
)

OrderStatus = Literal["pending", "approved", "ready", "completed", "rejected", "cancelled", "expired"]


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


class ExpireOrder(Message):
    """End an order that nobody came for. It carries the order as the other ends do."""

    order: PlaceOrder
    expiry: Expiry


class AdjustOrder(Message):
    """Some of it was missing: these lines are what can be had. `round` counts the order's adjustments from 1."""

    order_id: UUID
    round: int
    lines: list[PricedLine]
    total_cents: int
    missing: list[Pieces]
    substituted: list[Substitution] = []


class ReadyOrder(Message):
    """Everything that could be had is at the desk, and waits there until then."""

    order_id: UUID
    pickup_until: AwareDatetime


class RemindOfPickup(Message):
    """Let the customer be reminded. `number` counts the order's reminders from 1."""

    order_id: UUID
    number: int


class CompleteOrder(Message):
    """The order was handed over by a member of staff."""

    order_id: UUID
    by: str


class RefundOrder(Message):
    """Give money back for pieces of a completed order, or for all that is left of it if `lines` is None.

    `refund_id` is chosen by the sender, so that a repeat is the same refund.
    """

    order_id: UUID
    refund_id: UUID
    lines: list[Pieces] | None
    reason: str = ""
    by: str


class WithdrawRefund(Message):
    """A refund could not be paid. Also if it was never asked for: then it can not be any more."""

    order_id: UUID
    refund_id: UUID
    reason: str


# Replies


class Refund(Message):
    """What is given back: pieces of the order at the prices they were sold for."""

    refund_id: UUID
    lines: list[PricedLine]
    amount_cents: int
    currency: str


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
    """An order as it is now. `items` have names and prices from its approval on; when some were missing, they are
    what can be had, and `missing` and `substituted` say what is different."""

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
    missing: list[Pieces] = []
    substituted: list[Substitution] = []
    pickup_until: AwareDatetime | None = None
    completed_by: str | None = None
    refunded_cents: int = 0


class OrderSummary(Message):
    """An order in a list of orders."""

    order_id: UUID
    kiosk: str
    customer: str | None
    status: OrderStatus
    currency: str
    total_cents: int | None
    pickup_code: str | None
    placed_at: datetime


class LiveOrder(OrderSummary):
    """An order that has not ended. `since` is when it came to its status, `version` that of its stream."""

    since: AwareDatetime
    version: int


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


class OrderAdjusted(Event):
    """Some of the order was missing: these lines are what can be had, at this total. `missing` and `substituted`
    say what is different from before. `round` counts the order's adjustments from 1."""

    order_id: UUID
    round: int
    lines: list[PricedLine]
    total_cents: int
    missing: list[Pieces]
    substituted: list[Substitution]


class OrderReadied(Event):
    """Everything that could be had of the order is at the desk, and waits there until `pickup_until`."""

    order_id: UUID
    pickup_until: AwareDatetime | None = None


class PickupReminded(Event):
    """The customer was reminded that the order is at the desk. `number` counts the reminders from 1."""

    order_id: UUID
    number: int = 1


class OrderCompleted(Event):
    """The order was handed over, and paid. `by` is the member of staff."""

    order_id: UUID
    by: str | None = None


class OrderExpired(Event):
    """Nobody came for the order within its pickup window."""

    order_id: UUID
    expiry: Expiry


class OrderRefunded(Event):
    """Money is given back for pieces of the completed order. `by` is the member of staff."""

    order_id: UUID
    refund_id: UUID
    lines: list[PricedLine]
    amount_cents: int
    currency: str
    reason: str
    by: str


class OrderRefundWithdrawn(Event):
    """The money could not be given back, so these pieces are not refunded."""

    order_id: UUID
    refund_id: UUID
    reason: str


EVENTS = (
    OrderPlaced,
    OrderApproved,
    OrderRejected,
    OrderCancelled,
    OrderAdjusted,
    OrderReadied,
    PickupReminded,
    OrderCompleted,
    OrderExpired,
    OrderRefunded,
    OrderRefundWithdrawn,
)
"""Every event that Orders writes."""

LIVE: tuple[OrderStatus, ...] = ("pending", "approved", "ready")
"""How an order is that has not ended."""

LAST = (OrderRejected, OrderCancelled, OrderCompleted, OrderExpired)
"""Events that end an order: nothing follows them in its stream but refunds."""

STREAMS = {"order-{order_id}": EVENTS}
"""The streams of Orders, each named by a field of the events on it."""

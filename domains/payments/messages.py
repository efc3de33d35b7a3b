"""What is said to Payments, and the events it publishes."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field, StringConstraints

from events.event import Event
from kernel.errors import Refusal
from kernel.messages import Cents, Currency, Message, PaymentMethod, TotalCents

PaymentStatus = Literal["authorized", "declined", "voided", "captured"]
SettlementMethod = Literal["card", "cash", "desk_card"]
"""How an order was paid in the end: the card's hold was captured, or at the desk."""


class CardPayment(Message):
    """Pay by a card that the provider knows by a token. Card numbers never come here."""

    method: Literal["card"] = "card"
    token: Annotated[str, StringConstraints(min_length=1, max_length=200)]


class PickupPayment(Message):
    """Pay at the desk when the order is handed over."""

    method: Literal["at_pickup"] = "at_pickup"


Payment = Annotated[CardPayment | PickupPayment, Field(discriminator="method")]


class CashPayment(Message):
    """Notes and coins at the desk; what is too much is given back."""

    method: Literal["cash"] = "cash"
    tendered_cents: Cents


class DeskCardPayment(Message):
    """A card at the desk, which the provider knows by a token."""

    method: Literal["card"] = "card"
    token: Annotated[str, StringConstraints(min_length=1, max_length=200)]


DeskPayment = Annotated[CashPayment | DeskCardPayment, Field(discriminator="method")]
"""What is paid when the order is handed over."""


# Commands


class AuthorizePayment(Message):
    """Hold the total on the card, or open an invoice for the desk. An order has one payment."""

    order_id: UUID
    payment: Payment
    amount_cents: TotalCents
    currency: Currency


class VoidPayment(Message):
    """Let go the hold or the invoice. `reason` is the code of what ended the order.

    It may turn out that the order is paid: a capture had gone through and its answer got lost. With
    `refund_captured` all of it is given back then; else the void is refused.
    """

    order_id: UUID
    reason: str
    refund_captured: bool = False


class AdjustPayment(Message):
    """Hold another amount, or have another amount due, because the order has changed. `round` counts the order's
    adjustments from 1."""

    order_id: UUID
    round: int
    amount_cents: TotalCents


class CapturePayment(Message):
    """Take what an order costs: from the card's hold if `payment` is None, or at the desk. `attempt` counts the
    attempts to hand the order over, from 1, each of which may offer another payment."""

    order_id: UUID
    attempt: int
    payment: DeskPayment | None = None


class RefundPayment(Message):
    """Give back a part of what was captured, or all. `refund_id` is chosen by the sender."""

    order_id: UUID
    refund_id: UUID
    amount_cents: TotalCents
    reason: str = ""


# Replies


class Receipt(Message):
    """What was taken for an order, and how. `change_cents` is given back of the cash that was tendered.

    It may have been a card although cash was offered: then an attempt that seemed to fail had gone through, and
    the cash (`tendered_cents`) is given back as a whole.
    """

    method: SettlementMethod
    amount_cents: TotalCents
    currency: Currency
    tendered_cents: int | None = None
    change_cents: int | None = None


class PaymentView(Message):
    """A payment as it is now: what is held or due, captured and refunded, or why it was declined."""

    status: PaymentStatus
    method: PaymentMethod | None = None
    amount_cents: TotalCents | None = None
    currency: Currency | None = None
    reference: str | None = None
    refusal: Refusal | None = None
    captured_cents: int = 0
    settled_by: SettlementMethod | None = None
    refunded_cents: int = 0


# Events


class PaymentAuthorized(Event):
    """The amount is held on the card (`reference` is the provider's), or due at pickup (no reference)."""

    order_id: UUID
    method: PaymentMethod
    amount_cents: TotalCents
    currency: Currency
    reference: str | None


class PaymentDeclined(Event):
    """The provider said no."""

    order_id: UUID
    refusal: Refusal


class PaymentVoided(Event):
    """Nothing is held any more, and nothing will be. `reason` is the code of what ended the order."""

    order_id: UUID
    reason: str


class PaymentAdjusted(Event):
    """Another amount is held, or due at pickup."""

    order_id: UUID
    round: int
    amount_cents: TotalCents
    currency: Currency


class PaymentHoldLapsed(Event):
    """The provider let go of the hold by itself: the order must be paid in another way."""

    order_id: UUID
    reason: str


class PaymentCaptured(Event):
    """The order is paid: by the card that was held for it, or at the desk. `reference` is the provider's."""

    order_id: UUID
    method: SettlementMethod
    amount_cents: TotalCents
    currency: Currency
    reference: str | None
    tendered_cents: int | None = None
    change_cents: int | None = None


class PaymentRefunded(Event):
    """A part of what was captured was given back, or all of it, in the way that it was paid."""

    order_id: UUID
    refund_id: UUID
    method: SettlementMethod
    amount_cents: TotalCents
    currency: Currency
    reference: str | None
    reason: str


class PaymentRefundFailed(Event):
    """A refund that was made did not arrive: the provider has the money again, and a person must act."""

    order_id: UUID
    refund_id: UUID
    amount_cents: TotalCents
    currency: Currency
    reason: str


EVENTS = (
    PaymentAuthorized,
    PaymentDeclined,
    PaymentVoided,
    PaymentAdjusted,
    PaymentHoldLapsed,
    PaymentCaptured,
    PaymentRefunded,
    PaymentRefundFailed,
)
"""Every event that Payments writes."""

STREAMS = {"payment-{order_id}": EVENTS}
"""The streams of Payments, each named by a field of the events on it."""

"""What is said to Payments, and the events it publishes."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field, StringConstraints

from events.event import Event
from kernel.errors import Refusal
from kernel.messages import Currency, Message, PaymentMethod, TotalCents

PaymentStatus = Literal["authorized", "declined", "voided"]


class CardPayment(Message):
    """Pay by a card that the provider knows by a token. Card numbers never come here."""

    method: Literal["card"] = "card"
    token: Annotated[str, StringConstraints(min_length=1, max_length=200)]


class PickupPayment(Message):
    """Pay at the desk when the order is handed over."""

    method: Literal["at_pickup"] = "at_pickup"


Payment = Annotated[CardPayment | PickupPayment, Field(discriminator="method")]


# Commands


class AuthorizePayment(Message):
    """Hold the total on the card, or open an invoice for the desk. An order has one payment."""

    order_id: UUID
    payment: Payment
    amount_cents: TotalCents
    currency: Currency


class VoidPayment(Message):
    """Let go the hold or the invoice. `reason` is the code of what ended the order."""

    order_id: UUID
    reason: str


# Replies


class PaymentView(Message):
    """A payment as it is now: what is held or due, or why it was declined."""

    status: PaymentStatus
    method: PaymentMethod | None = None
    amount_cents: TotalCents | None = None
    currency: Currency | None = None
    reference: str | None = None
    refusal: Refusal | None = None


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


EVENTS = (PaymentAuthorized, PaymentDeclined, PaymentVoided)
"""Every event that Payments writes."""

STREAMS = {"payment-{order_id}": EVENTS}
"""The streams of Payments, each named by a field of the events on it."""

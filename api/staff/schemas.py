"""What staff send and get. Requests refuse fields they do not know: a misspelt one is never ignored."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from api.kiosk.schemas import PRINTABLE, CardToken
from consumers.notifications.messages import NotificationView
from domains.orders.messages import OrderStatus, OrderSummary
from domains.payments.messages import CashPayment, DeskCardPayment, DeskPayment, Receipt
from kernel.messages import Cents, Currency, PricedLine, Sku

Reason = Annotated[str, StringConstraints(max_length=500, pattern=PRINTABLE)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class OrderSearch(_Request):
    """Which orders, and how many at once."""

    pickup_code: Annotated[str, StringConstraints(max_length=20, pattern=PRINTABLE)] | None = Field(
        None, description="Only the order with this pickup code, as the customer says it"
    )
    customer: Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=PRINTABLE)] | None = Field(
        None, description="Only orders of customers whose name begins so, in capitals or not"
    )
    kiosk: Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=PRINTABLE)] | None = Field(
        None, description="Only orders of the kiosk with this name"
    )
    status: list[OrderStatus] = Field([], description="Only orders in one of these")
    before: UUID | None = Field(None, description="Only those that were placed before this order")
    limit: Annotated[int, Field(ge=1, le=200)] = Field(50, description="How many at most")


class OrderPage(BaseModel):
    """Some orders, the newest first; `next` is the `before` of the following ones, null on the last page."""

    items: list[OrderSummary]
    next: UUID | None


class Cash(_Request):
    """Notes and coins; what is too much is given back."""

    method: Literal["cash"]
    tendered_cents: Annotated[Cents, Field(strict=True)]


class DeskCard(_Request):
    """A card at the desk, which the provider knows by a token."""

    method: Literal["card"]
    token: CardToken


class OrderToHandOver(_Request):
    """The pickup code that the customer says, and what is paid at the desk. Without `payment` the card's hold is
    captured."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"pickup_code": "C275TC", "payment": {"method": "cash", "tendered_cents": 2000}}]
        }
    )

    pickup_code: Annotated[str, StringConstraints(min_length=1, max_length=20, pattern=PRINTABLE)]
    payment: Annotated[Cash | DeskCard, Field(discriminator="method")] | None = None

    @property
    def desk_payment(self) -> DeskPayment | None:
        """The payment as Payments takes it."""
        match self.payment:
            case Cash(tendered_cents=tendered):
                return CashPayment(tendered_cents=tendered)
            case DeskCard(token=token):
                return DeskCardPayment(token=token)
        return None


class OrderToCancel(_Request):
    """Why an order is cancelled."""

    reason: Reason = ""


class PiecesToRefund(_Request):
    """So many pieces of a product."""

    sku: Sku
    quantity: Annotated[int, Field(strict=True, ge=1, le=9900)]


class OrderToRefund(_Request):
    """What is given back: these pieces at the prices they were sold for, or all that is left of the order."""

    lines: Annotated[list[PiecesToRefund], Field(min_length=1, max_length=200)] | None = None
    reason: Reason = ""


class NoticeList(BaseModel):
    """What the customer of an order was told, the oldest first."""

    order_id: UUID
    items: list[NotificationView]


class HandedOver(BaseModel):
    """The order is completed."""

    order_id: UUID
    status: Literal["completed"] = "completed"
    receipt: Receipt


class UnderWay(BaseModel):
    """It is on record and will be done: look at the order again."""

    order_id: UUID
    status: Literal["handing_over", "cancelling", "refunding", "skipping_undo"]


class Refunded(BaseModel):
    """What was given back."""

    order_id: UUID
    refund_id: UUID
    amount_cents: int
    currency: Currency
    lines: list[PricedLine]

"""What kiosks send and get. Requests refuse fields they do not know: a misspelt one is never ignored."""

from datetime import datetime
from typing import Annotated, Any, Final, Literal, Self
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from domains.orders.messages import NamedLine, OrderAnswer, OrderStatus, OrderView
from domains.stores.messages import ProductView, StoreView
from kernel.errors import Refusal
from kernel.messages import (
    Cancellation,
    Currency,
    IfMissing,
    PaymentMethod,
    Pieces,
    PricedLine,
    Sku,
    Substitution,
)

PRINTABLE: Final = r"^[^\x00-\x1f\x7f]*$"
LARGEST_PAGE: Final = 200

Words = Annotated[str, StringConstraints(max_length=200, pattern=PRINTABLE)]
CardToken = Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,200}$")]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ProductSearch(_Request):
    """Which products, and how many at once."""

    store: Words | None = Field(None, description="Only of the store of this name")
    q: Words = Field("", description="Only those with, for each of these words, one that begins so")
    after: Sku | None = Field(None, description="Only those behind this sku")
    limit: Annotated[int, Field(ge=1, le=LARGEST_PAGE)] = Field(50, description="How many at most")


class ItemToOrder(_Request):
    """A product and how many pieces of it."""

    sku: Sku
    quantity: Annotated[int, Field(strict=True, ge=1, le=99)]
    if_missing: IfMissing = Field("skip", description="What to do if a robot does not find it")
    dearer_substitute: bool = Field(False, description="Whether a substitute may cost more")


class PayByCard(_Request):
    """Pay by a card that the payment provider knows by this token."""

    method: Literal["card"]
    token: CardToken


class PayAtPickup(_Request):
    """Pay at the desk when the order is handed over."""

    method: Literal["at_pickup"]


class OrderToPlace(_Request):
    """What a customer orders at a kiosk."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "customer": "household-900",
                    "items": [{"sku": "kettle-dawn-50", "quantity": 2, "if_missing": "substitute"}],
                    "payment": {"method": "card", "token": "tok_approved"},
                }
            ]
        }
    )

    customer: Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=PRINTABLE)] | None = None
    items: Annotated[list[ItemToOrder], Field(min_length=1, max_length=100)]
    payment: Annotated[PayByCard | PayAtPickup, Field(discriminator="method")]


class OrderToCancel(_Request):
    """Why an order is cancelled, in the customer's words."""

    reason: Annotated[str, StringConstraints(max_length=500, pattern=PRINTABLE)] = ""


class Links(BaseModel):
    """Where to go on from an order: see it, follow its events, see how far its saga is, cancel it (POST), show its
    pickup code as a QR code."""

    self: str
    events: str
    saga: str
    cancel: str
    pickup_code: str

    @classmethod
    def of(cls, order_id: UUID) -> "Links":
        """The links of an order."""
        order = f"/v1/orders/{order_id}"
        links = {to: f"{order}/{to}" for to in ("events", "saga", "cancel")}
        return cls.model_validate({"self": order, **links, "pickup_code": f"{order}/pickup-code.svg"})


class ApprovedOrder(BaseModel):
    """The order will be shopped: the customer comes back with the pickup code."""

    id: UUID
    status: Literal["approved"] = "approved"
    pickup_code: str
    total_cents: int
    currency: Currency
    items: list[PricedLine]
    links: Links

    @classmethod
    def of(cls, answer: OrderAnswer) -> Self:
        """The approval that an answer holds. Raises `ValidationError` if it is a refusal."""
        return cls.model_validate({**dict(answer), "id": answer.order_id, "links": Links.of(answer.order_id)})


class PendingOrder(BaseModel):
    """The order is safe and on its way, but has no answer yet: ask its own link again."""

    id: UUID
    status: Literal["pending"] = "pending"
    links: Links


class CancellingOrder(BaseModel):
    """The order is being cancelled: what was done for it is being undone."""

    id: UUID
    status: Literal["cancelling"] = "cancelling"
    links: Links


class Order(BaseModel):
    """An order as it is now. Fields that say nothing yet are left out: `lines` and `payment_method` until it
    is recorded, `items`, `total_cents` and `pickup_code` until it is approved, `pickup_until` until it is ready.
    When some of it was missing, `items` and `total_cents` are what can be had, and `missing` and `substituted` say
    what is different."""

    id: UUID
    status: OrderStatus
    ordered_at: datetime
    customer: str | None = None
    lines: list[NamedLine] | None = None
    payment_method: PaymentMethod | None = None
    currency: Currency | None = None
    items: list[PricedLine] | None = None
    total_cents: int | None = None
    pickup_code: str | None = None
    refusal: Refusal | None = None
    cancellation: Cancellation | None = None
    missing: list[Pieces] | None = None
    substituted: list[Substitution] | None = None
    pickup_until: AwareDatetime | None = None
    refunded_cents: int | None = None
    links: Links

    @classmethod
    def of(cls, view: OrderView, ordered_at: datetime) -> Self:
        """What a kiosk sees of an order that it sent at that time."""
        return cls.model_validate(
            {
                **dict(view),
                "id": view.order_id,
                "ordered_at": ordered_at,
                "items": view.items or None,
                "missing": view.missing or None,
                "substituted": view.substituted or None,
                "refunded_cents": view.refunded_cents or None,
                "links": Links.of(view.order_id),
            }
        )


class OrderEvent(BaseModel):
    """Something that happened to an order, as the `data` of a Server-Sent Event. `version` counts the order's
    events from 1."""

    version: int
    type: str
    recorded_at: datetime
    data: dict[str, Any]


class StoreList(BaseModel):
    """All stores of the mall."""

    items: list[StoreView]


class ProductPage(BaseModel):
    """Some products by sku; `next` is where the following ones are, null on the last page."""

    items: list[ProductView]
    next: str | None


class Health(BaseModel):
    """The process lives."""

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """Whether orders can be taken: each dependency, where it is told, is `ok` or says what is wrong with it."""

    status: Literal["ready", "not ready"]
    dependencies: dict[str, str] | None = None

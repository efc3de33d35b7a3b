"""What is said to Stores, what it answers, and the events it publishes."""

from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import Field, model_validator

from events.event import Event
from kernel.jsonlines import LineProblem
from kernel.messages import Cents, Currency, Message, OrderLine, Pieces, PricedLine, Sku, Substitution

Name = Annotated[str, Field(min_length=1, max_length=200)]
Brand = Annotated[str, Field(max_length=200)]
_PRINTABLE = Field(pattern=r"^[^\x00-\x1f\x7f]*$")
Alternatives = Annotated[list[Sku], Field(max_length=20)]
"""What may be picked instead of a product, the first choice first."""


# Commands


class ReserveStock(Message):
    """Hold the stock of every line, or of none. Lines of one product are held together."""

    order_id: UUID
    lines: list[OrderLine]
    currency: Currency


class ReleaseStock(Message):
    """Let go what was held for an order. `reason` is the code of what ended it. What a robot still carries
    (`carried`) stays held until it is back on the shelf."""

    order_id: UUID
    reason: str
    carried: list[Pieces] = []


class AdjustReservation(Message):
    """A robot did not find these pieces: free them, and hold alternatives for those that shall be substituted.

    `lines` is the order as the customer asked for it, to know what each line said of missing pieces. `round`
    counts the order's adjustments from 1, so that a repeat is the same adjustment.
    """

    order_id: UUID
    round: int
    missing: list[Pieces]
    lines: list[OrderLine]


class DropSubstitutes(Message):
    """Free the alternatives of that round again: they can not be paid."""

    order_id: UUID
    round: int


class ConsumeStock(Message):
    """The order left the mall: what is held for it is not on the shelf any more."""

    order_id: UUID


class ReturnStock(Message):
    """Pieces of an order that ended are back on the shelf."""

    order_id: UUID
    pieces: list[Pieces]


class ReceiveStock(Message):
    """Pieces arrived at the store. `receipt` names the delivery, so that a repeat is the same delivery."""

    sku: Sku
    quantity: Annotated[int, Field(ge=1, le=1_000_000)]
    receipt: Annotated[str, Field(min_length=1, max_length=100)]
    by: str


class CorrectStock(Message):
    """Somebody counted what is on the shelf, pieces held for orders included."""

    sku: Sku
    on_hand: Annotated[int, Field(ge=0, le=100_000_000)]
    reason: Annotated[str, Field(max_length=500)] = ""
    by: str


class ChangePrice(Message):
    """A price for orders to come."""

    sku: Sku
    price_cents: Cents
    by: str


class RenameProduct(Message):
    """A product's name and brand. What is not given stays."""

    sku: Sku
    name: Name | None = None
    brand: Brand | None = None
    by: str


class SetAlternatives(Message):
    """What may be picked instead of a product, the first choice first."""

    sku: Sku
    alternatives: Alternatives
    by: str


class SetLowStock(Message):
    """How few pieces that can still be ordered are few; 0 never tells of it."""

    sku: Sku
    low_at: Annotated[int, Field(ge=0, le=1_000_000)]
    by: str


class RemoveProduct(Message):
    """Do not sell a product any more. Orders that have it keep it."""

    sku: Sku
    by: str


class RenameStore(Message):
    """A store's name."""

    store_id: UUID
    name: Name
    by: str


class SetParticipation(Message):
    """Open a store, or close it for orders to come."""

    store_id: UUID
    open: bool
    by: str


class CatalogLine(Message):
    """A product of a catalogue file. Without `alternatives` those that it has stay."""

    sku: Sku
    store: Annotated[Name, _PRINTABLE]
    name: Annotated[Name, _PRINTABLE]
    brand: Annotated[Brand, _PRINTABLE] = ""
    price_cents: Cents
    alternatives: Alternatives | None = None

    @model_validator(mode="after")
    def _has_other_alternatives(self) -> Self:
        alternatives = self.alternatives or []
        if self.sku in alternatives:
            raise ValueError("a product is no alternative of itself")
        if len(set(alternatives)) < len(alternatives):
            raise ValueError("an alternative is there twice")
        return self


# Replies


class Reservation(Message):
    """What is held for an order, a line each as it was asked for, with prices fixed from now on."""

    lines: list[PricedLine]
    total_cents: int

    @classmethod
    def of(cls, lines: list[PricedLine]) -> Self:
        """The reservation of these lines, with their total."""
        return cls(lines=lines, total_cents=sum(line.quantity * line.unit_price_cents for line in lines))


class Adjustment(Message):
    """What is held for an order after an adjustment, and what of it is new. `must_cancel` names the products that
    were missing though their lines said to cancel the order then; nothing was changed in that case."""

    lines: list[PricedLine]
    total_cents: int
    substitutes: list[Substitution] = []
    must_cancel: list[str] = []


class StoreView(Message):
    """A store. A closed one sells nothing."""

    id: UUID
    name: str
    open: bool


class ProductView(Message):
    """A product with its price now. `available` is what can still be ordered, in pieces."""

    sku: str
    store: str
    name: str
    brand: str
    price_cents: int
    currency: str
    available: int


class StockView(ProductView):
    """A product as staff see it: `reserved` of the pieces `on_hand` are held for orders. It is few (`low`) when no
    more than `low_at` can be ordered."""

    store_id: UUID
    on_hand: int
    reserved: int
    low_at: int
    low: bool
    alternatives: list[str]


class CatalogImport(Message):
    """What an import changed: all zero when it was imported before."""

    stores_opened: int = 0
    products_added: int = 0
    products_renamed: int = 0
    prices_changed: int = 0
    alternatives_changed: int = 0
    stock_received: int = 0


CatalogChange = Literal["added", "renamed", "repriced", "alternatives", "stock"]
"""What an import does to a product."""


class CheckedLine(Message):
    """A line of a catalogue file whose import would change something: what, and the price until now of a product
    that is sold already."""

    line: int
    sku: str
    store: str
    name: str
    brand: str
    price_cents: int
    price_cents_before: int | None
    changes: list[CatalogChange]


class CatalogCheck(Message):
    """What the import of a file would change. It can be imported if there are no bad lines; `changes` tells of the
    others. `problems` are the first 1000, `changed` is the first 100 lines that would change something."""

    lines: int
    bad_lines: int
    problems: list[LineProblem]
    changes: CatalogImport
    unchanged: int
    changed: list[CheckedLine]


# Events


class StoreOpened(Event):
    """A store joined the mall."""

    store_id: UUID
    name: str


class StoreRenamed(Event):
    """A store's name changed."""

    store_id: UUID
    name: str
    by: str | None = None


class StoreParticipationChanged(Event):
    """A store began or ceased to sell through the mall."""

    store_id: UUID
    open: bool
    by: str | None = None


class ProductAdded(Event):
    """A store began to sell a product."""

    sku: str
    store_id: UUID
    name: str
    brand: str
    price_cents: Cents
    currency: Currency


class ProductRenamed(Event):
    """A product's name or brand changed."""

    sku: str
    name: str
    brand: str
    by: str | None = None


class ProductPriceChanged(Event):
    """A product's price changed, for orders to come."""

    sku: str
    price_cents: Cents
    currency: Currency
    by: str | None = None


class ProductRemoved(Event):
    """A store ceased to sell a product."""

    sku: str
    by: str | None = None


class AlternativesChanged(Event):
    """What may be picked instead of a product, the first choice first."""

    sku: str
    alternatives: list[str]
    by: str | None = None


class LowStockChanged(Event):
    """How few pieces that can still be ordered are few; 0: none ever are."""

    sku: str
    low_at: int
    by: str


class StockReceived(Event):
    """Pieces arrived at the store. `receipt` names the delivery."""

    sku: str
    quantity: int
    receipt: str | None = None
    by: str | None = None


class StockCorrected(Event):
    """Somebody counted: there are `on_hand` pieces, `difference` more than were known (fewer, if negative)."""

    sku: str
    on_hand: int
    difference: int
    reason: str
    by: str


class StockRanLow(Event):
    """Few pieces can still be ordered. Told once, until there are more again."""

    sku: str
    available: int
    low_at: int


class StockFoundMissing(Event):
    """A robot did not find pieces that should be on the shelf: somebody should count."""

    sku: str
    order_id: UUID
    quantity: int


class StockReserved(Event):
    """Pieces are held for an order."""

    order_id: UUID
    lines: list[PricedLine]


class StockAdjusted(Event):
    """Pieces that were held are missing, and others may be held instead: `lines` is what is held now."""

    order_id: UUID
    round: int
    missing: list[Pieces]
    substitutes: list[Substitution]
    lines: list[PricedLine]


class StockReleased(Event):
    """What was held for an order is free again, but for what is `carried` by a robot: that is free when it is
    back. `lines` is empty if nothing was held yet. `reason` is the code of what ended the order."""

    order_id: UUID
    reason: str
    lines: list[PricedLine]
    carried: list[Pieces] = []


class StockReturned(Event):
    """Pieces of an order that ended are back on the shelf, and free again."""

    order_id: UUID
    pieces: list[Pieces]


class StockConsumed(Event):
    """What was held for an order left the mall with it."""

    order_id: UUID
    lines: list[PricedLine]


EVENTS = (
    StoreOpened,
    StoreRenamed,
    StoreParticipationChanged,
    ProductAdded,
    ProductRenamed,
    ProductPriceChanged,
    ProductRemoved,
    AlternativesChanged,
    LowStockChanged,
    StockReceived,
    StockCorrected,
    StockRanLow,
    StockFoundMissing,
    StockReserved,
    StockAdjusted,
    StockReleased,
    StockReturned,
    StockConsumed,
)
"""Every event that Stores writes."""

STREAMS = {
    "store-{store_id}": (StoreOpened, StoreRenamed, StoreParticipationChanged),
    "product-{sku}": (
        ProductAdded,
        ProductRenamed,
        ProductPriceChanged,
        ProductRemoved,
        AlternativesChanged,
        LowStockChanged,
        StockReceived,
        StockCorrected,
        StockRanLow,
        StockFoundMissing,
    ),
    "reservation-{order_id}": (StockReserved, StockAdjusted, StockReleased, StockReturned, StockConsumed),
}
"""The streams of Stores, each named by a field of the events on it."""

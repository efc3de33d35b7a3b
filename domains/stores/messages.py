"""What is said to Stores, what it answers, and the events it publishes."""

from typing import Annotated, Self
from uuid import UUID

from pydantic import Field

from events.event import Event
from kernel.messages import Cents, Currency, Message, OrderLine, PricedLine, Sku

Name = Annotated[str, Field(min_length=1, max_length=200)]


# Commands


class ReserveStock(Message):
    """Hold the stock of every line, or of none. Lines of one product are held together."""

    order_id: UUID
    lines: list[OrderLine]
    currency: Currency


class ReleaseStock(Message):
    """Let go what was held for an order. `reason` is the code of what ended it."""

    order_id: UUID
    reason: str


class CatalogLine(Message):
    """A product of a catalogue file."""

    sku: Sku
    store: Name
    name: Name
    brand: Annotated[str, Field(max_length=200)] = ""
    price_cents: Cents


# Replies


class Reservation(Message):
    """What is held for an order, a line each as it was asked for, with prices fixed from now on."""

    lines: list[PricedLine]
    total_cents: int

    @classmethod
    def of(cls, lines: list[PricedLine]) -> Self:
        """The reservation of these lines, with their total."""
        return cls(lines=lines, total_cents=sum(line.quantity * line.unit_price_cents for line in lines))


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


class CatalogImport(Message):
    """What an import changed: all zero when it was imported before."""

    stores_opened: int = 0
    products_added: int = 0
    products_renamed: int = 0
    prices_changed: int = 0
    stock_received: int = 0


# Events


class StoreOpened(Event):
    """A store joined the mall."""

    store_id: UUID
    name: str


class StoreRenamed(Event):
    """A store's name changed."""

    store_id: UUID
    name: str


class StoreParticipationChanged(Event):
    """A store began or ceased to sell through the mall."""

    store_id: UUID
    open: bool


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


class ProductPriceChanged(Event):
    """A product's price changed, for orders to come."""

    sku: str
    price_cents: Cents
    currency: Currency


class ProductRemoved(Event):
    """A store ceased to sell a product."""

    sku: str


class StockReceived(Event):
    """Pieces arrived at the store."""

    sku: str
    quantity: int


class StockReserved(Event):
    """Pieces are held for an order."""

    order_id: UUID
    lines: list[PricedLine]


class StockReleased(Event):
    """What was held for an order is free again; `lines` is empty if nothing was held yet. `reason` is the code of
    what ended the order."""

    order_id: UUID
    reason: str
    lines: list[PricedLine]


EVENTS = (
    StoreOpened,
    ProductAdded,
    ProductRenamed,
    ProductPriceChanged,
    StockReceived,
    StockReserved,
    StockReleased,
)
"""Every event that Stores writes."""

ANNOUNCED = (StoreRenamed, StoreParticipationChanged, ProductRemoved)
"""Events that the rest of the story will write; consumers may count on them already."""

STREAMS = {
    "store-{store_id}": (StoreOpened, StoreRenamed, StoreParticipationChanged),
    "product-{sku}": (ProductAdded, ProductRenamed, ProductPriceChanged, ProductRemoved, StockReceived),
    "reservation-{order_id}": (StockReserved, StockReleased),
}
"""The streams of Stores, each named by a field of the events on it."""

"""What tests order: small, readable, different each time."""

from uuid import UUID

from domains.orders.messages import PlaceOrder
from domains.payments.messages import AuthorizePayment, CardPayment, PickupPayment
from domains.stores.catalog import import_catalog
from domains.stores.messages import CatalogLine
from kernel.database import Database
from kernel.ids import new_id
from kernel.messages import OrderLine, PricedLine


def line(sku: str, quantity: int = 1) -> OrderLine:
    return OrderLine(sku=sku, quantity=quantity)


def priced(
    sku: str = "tea", quantity: int = 2, cents: int = 450, store: str = "Grocery", name: str = ""
) -> PricedLine:
    return PricedLine(sku=sku, name=name or sku, store=store, quantity=quantity, unit_price_cents=cents)


def place(order_id: UUID | None = None, *lines: OrderLine) -> PlaceOrder:
    return PlaceOrder(
        order_id=order_id or new_id(),
        kiosk="kiosk-1",
        customer="ada",
        lines=list(lines) or [line("tea", 2)],
        payment_method="card",
        currency="USD",
    )


def authorize(
    token: str | None = "tok_approved",  # noqa: S107 - None: pay at pickup
    order_id: UUID | None = None,
    cents: int = 900,
) -> AuthorizePayment:
    payment = CardPayment(token=token) if token else PickupPayment()
    return AuthorizePayment(order_id=order_id or new_id(), payment=payment, amount_cents=cents, currency="USD")


async def stocked(database: Database, **stock: int) -> dict[str, str]:
    """Products of a store of their own with so many pieces each; gives the sku of each name."""
    mark = new_id().hex[-12:]
    skus = {name: f"{name}-{mark}".replace(" ", "-") for name in stock}
    for name, pieces in stock.items():
        entry = CatalogLine(sku=skus[name], store=f"Shop {mark}", name=name, brand="Ours", price_cents=250)
        await import_catalog(database, [entry], currency="USD", stock=pieces)
    return skus

"""Stock, locked and moved. Whoever writes an event of a product holds the lock of its stock."""

from collections.abc import Iterable, Mapping

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domains.stores.messages import EVENTS, StockRanLow
from domains.stores.model import Offer, is_low
from events.event import Event
from events.store import EventStore

STORE = EventStore("stores", EVENTS)

# Every transaction locks stock in the order of sku: two orders for the same products queue, never deadlock.
_LOCK_OFFERS = text(
    "SELECT stock.sku, products.name, stores.name AS store, stores.open AS store_open,"
    " products.price_cents AS unit_price_cents, products.currency, NOT products.removed AS sold,"
    " stock.on_hand - stock.reserved AS available, stock.low_at"
    " FROM stores.stock JOIN stores.products USING (sku) JOIN stores.stores ON stores.id = products.store_id"
    ' WHERE stock.sku = ANY(:skus) ORDER BY stock.sku COLLATE "C" FOR UPDATE OF stock'
)
_MOVE_RESERVED = text(
    "UPDATE stores.stock SET reserved = reserved + moved.pieces"
    " FROM unnest(CAST(:skus AS text[]), CAST(:pieces AS int[])) AS moved (sku, pieces)"
    " WHERE stock.sku = moved.sku"
)
_TAKE_AWAY = text(
    "UPDATE stores.stock SET on_hand = on_hand - taken.pieces, reserved = reserved - taken.pieces"
    " FROM unnest(CAST(:skus AS text[]), CAST(:pieces AS int[])) AS taken (sku, pieces)"
    " WHERE stock.sku = taken.sku"
)


def product_stream(sku: str) -> str:
    """The stream of a product's events."""
    return f"product-{sku}"


async def lock_offers(connection: AsyncConnection, skus: Iterable[str]) -> dict[str, Offer]:
    """These products as they can be had, their stock locked until the end of the transaction; those that there
    are."""
    rows = await connection.execute(_LOCK_OFFERS, {"skus": list(skus)})
    return {row.pop("sku"): Offer(**row) for row in map(dict, rows.mappings())}


async def move_reserved(connection: AsyncConnection, pieces: Mapping[str, int], *, sign: int) -> None:
    """Hold so many pieces of each product more (`sign` 1) or fewer (-1)."""
    await connection.execute(
        _MOVE_RESERVED, {"skus": list(pieces), "pieces": [sign * number for number in pieces.values()]}
    )


async def take_away(connection: AsyncConnection, pieces: Mapping[str, int]) -> None:
    """So many held pieces of each product are not on the shelf any more."""
    await connection.execute(_TAKE_AWAY, {"skus": list(pieces), "pieces": list(pieces.values())})


def ran_low(offers: Mapping[str, Offer], taken: Mapping[str, int]) -> list[tuple[str, Event]]:
    """What to record of the products that became few when so many pieces were taken of these offers."""
    entries: list[tuple[str, Event]] = []
    for sku, pieces in taken.items():
        offer, available = offers[sku], offers[sku].available - pieces
        if is_low(available, offer.low_at) and not is_low(offer.available, offer.low_at):
            event = StockRanLow(sku=sku, available=available, low_at=offer.low_at)
            entries.append((product_stream(sku), event))
    return entries

"""The catalogue: products brought in from a file, all of them or none, any number of times."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domains.stores.messages import (
    AlternativesChanged,
    CatalogImport,
    CatalogLine,
    ProductAdded,
    ProductPriceChanged,
    ProductRenamed,
    StockReceived,
    StoreOpened,
)
from domains.stores.stock import STORE, product_stream
from events.event import Event
from events.store import Causation, caused_by
from kernel.database import Database
from kernel.errors import InvalidInput
from kernel.ids import new_id
from kernel.jsonlines import read_json_lines

CHUNK = 500

# One import at a time, so that each event is told once.
_LOCK = text("SELECT pg_advisory_xact_lock(hashtext('stores.catalog'))")
_STORES = text("SELECT name, id FROM stores.stores")
_ADD_STORE = text("INSERT INTO stores.stores (id, name, open) VALUES (:id, :name, true)")
# NO KEY UPDATE: an order that holds stock already may go on to refer to its products.
_PRODUCTS = text(
    "SELECT sku, store_id, name, brand, price_cents, currency, alternatives, removed, on_hand"
    " FROM stores.products JOIN stores.stock USING (sku)"
    ' WHERE sku = ANY(:skus) ORDER BY sku COLLATE "C" FOR NO KEY UPDATE'
)
_PUT_PRODUCTS = text(
    "INSERT INTO stores.products (sku, store_id, name, brand, price_cents, currency, alternatives)"
    " VALUES (:sku, :store_id, :name, :brand, :price_cents, :currency, :alternatives)"
    " ON CONFLICT (sku) DO UPDATE SET name = excluded.name, brand = excluded.brand,"
    " price_cents = excluded.price_cents, alternatives = excluded.alternatives, removed = false"
)
_SOLD = text("SELECT sku FROM stores.products WHERE sku = ANY(:skus) AND NOT removed")
_PUT_STOCK = text(
    "INSERT INTO stores.stock (sku, on_hand, reserved) VALUES (:sku, :on_hand, 0)"
    " ON CONFLICT (sku) DO UPDATE SET on_hand = excluded.on_hand"
)


def read_catalog(file: Path) -> list[CatalogLine]:
    """The products of a file of JSON lines `{"sku", "store", "name", "brand", "price_cents"}`, with
    `"alternatives"` (skus) where those shall be changed.

    Raises `InvalidInput` naming every bad line by number with the rule it breaks (the first 20 of them).
    """
    return read_json_lines(file, CatalogLine, key="sku", consequence="nothing was imported")


async def import_catalog(
    database: Database,
    lines: Sequence[CatalogLine],
    *,
    currency: str,
    stock: int | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> CatalogImport:
    """Open the stores and add or change the products of a catalogue, in one transaction.

    `stock` tops up each product to so many pieces on hand (never takes any away). `progress` is told how many
    lines are done. A repeat changes nothing; what was removed is sold again. Raises `InvalidInput` if a product
    would move to another store, be priced in another currency, or have an alternative that nobody sells.
    """
    totals: dict[str, int] = {}
    with caused_by(Causation(correlation_id=new_id(), causation_id="catalog-import")):
        async with database.transaction() as connection:
            await connection.execute(_LOCK)
            await _check_alternatives(connection, lines)
            stores = await _open_stores(connection, lines, totals)
            in_lock_order = sorted(lines, key=lambda line: line.sku)
            for start in range(0, len(lines), CHUNK):
                chunk = in_lock_order[start : start + CHUNK]
                await _import_chunk(connection, chunk, stores, currency, stock, totals)
                progress(start + len(chunk))
    return CatalogImport.model_validate(totals)


async def _check_alternatives(connection: AsyncConnection, lines: Sequence[CatalogLine]) -> None:
    imported = {line.sku for line in lines}
    wanted = {sku: line.sku for line in lines for sku in line.alternatives or [] if sku not in imported}
    if wanted:
        sold = {row.sku for row in await connection.execute(_SOLD, {"skus": list(wanted)})}
        for sku, of in wanted.items():
            if sku not in sold:
                raise InvalidInput(
                    f"nothing was imported:\nsku {of} has the alternative {sku}, which nobody sells",
                    field="alternatives",
                )


async def _open_stores(
    connection: AsyncConnection, lines: Sequence[CatalogLine], totals: dict[str, int]
) -> dict[str, UUID]:
    stores: dict[str, UUID] = {name: store_id for name, store_id in await connection.execute(_STORES)}
    opened = {name: new_id() for name in dict.fromkeys(line.store for line in lines) if name not in stores}
    if opened:
        await connection.execute(_ADD_STORE, [{"id": i, "name": name} for name, i in opened.items()])
        await STORE.record(
            connection, [(f"store-{i}", StoreOpened(store_id=i, name=name)) for name, i in opened.items()]
        )
    totals["stores_opened"] = len(opened)
    return stores | opened


async def _import_chunk(
    connection: AsyncConnection,
    lines: Sequence[CatalogLine],
    stores: Mapping[str, UUID],
    currency: str,
    stock: int | None,
    totals: dict[str, int],
) -> None:
    rows = (await connection.execute(_PRODUCTS, {"skus": [line.sku for line in lines]})).mappings()
    known = {row["sku"]: dict(row) for row in rows}
    changes = [
        (line, event)
        for line in lines
        for event in _changes(line, known.get(line.sku), stores[line.store], currency, stock)
    ]
    changed = {line.sku: line for line, _ in changes}.values()
    if not changed:
        return
    await connection.execute(
        _PUT_PRODUCTS,
        [
            {
                **line.model_dump(),
                "store_id": stores[line.store],
                "currency": currency,
                "alternatives": _alternatives(line, known.get(line.sku)),
            }
            for line in changed
        ],
    )
    await connection.execute(
        _PUT_STOCK,
        [
            {"sku": line.sku, "on_hand": max(known.get(line.sku, {}).get("on_hand", 0), stock or 0)}
            for line in changed
        ],
    )
    await STORE.record(connection, [(product_stream(line.sku), event) for line, event in changes])
    for _, event in changes:
        counter = _COUNTERS[type(event)]
        totals[counter] = totals.get(counter, 0) + (event.quantity if isinstance(event, StockReceived) else 1)


_COUNTERS: dict[type[Event], str] = {
    ProductAdded: "products_added",
    ProductRenamed: "products_renamed",
    ProductPriceChanged: "prices_changed",
    AlternativesChanged: "alternatives_changed",
    StockReceived: "stock_received",
}


def _alternatives(line: CatalogLine, known: Mapping[str, Any] | None) -> list[str]:
    before: list[str] = known["alternatives"] if known else []
    return before if line.alternatives is None else line.alternatives


def _changes(
    line: CatalogLine, known: Mapping[str, Any] | None, store_id: UUID, currency: str, stock: int | None
) -> Iterator[Event]:
    if known is not None:
        _refuse_to_move(line, known, store_id, currency)
    if known is None or known["removed"]:
        yield ProductAdded(
            sku=line.sku,
            store_id=store_id,
            name=line.name,
            brand=line.brand,
            price_cents=line.price_cents,
            currency=currency,
        )
    else:
        if (known["name"], known["brand"]) != (line.name, line.brand):
            yield ProductRenamed(sku=line.sku, name=line.name, brand=line.brand)
        if known["price_cents"] != line.price_cents:
            yield ProductPriceChanged(sku=line.sku, price_cents=line.price_cents, currency=currency)
    alternatives = _alternatives(line, known)
    if alternatives != (known["alternatives"] if known else []):
        yield AlternativesChanged(sku=line.sku, alternatives=alternatives)
    missing = (stock or 0) - (known["on_hand"] if known else 0)
    if missing > 0:
        yield StockReceived(sku=line.sku, quantity=missing)


def _refuse_to_move(line: CatalogLine, known: Mapping[str, Any], store_id: UUID, currency: str) -> None:
    if known["store_id"] != store_id:
        raise InvalidInput(
            f"nothing was imported:\nsku {line.sku} is sold by another store than {line.store}", field="store"
        )
    if known["currency"] != currency:
        raise InvalidInput(
            f"nothing was imported:\nsku {line.sku} is sold in {known['currency']}, not in {currency}"
        )

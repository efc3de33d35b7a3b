"""The catalogue: products brought in from a file, all of them or none, any number of times."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domains.stores.catalog_file import CatalogFile, read_catalog
from domains.stores.messages import (
    AlternativesChanged,
    CatalogChange,
    CatalogCheck,
    CatalogImport,
    CatalogLine,
    CheckedLine,
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
from kernel.jsonlines import LineProblem

__all__ = ["CHUNK", "check_catalog", "import_catalog", "read_catalog"]

CHUNK = 500
MOST_PROBLEMS_TOLD: Final = 1000
MOST_CHANGES_TOLD: Final = 100

_NO_STORE_YET: Final = UUID(int=0)

# One import at a time, so that each event is told once.
_LOCK = text("SELECT pg_advisory_xact_lock(hashtext('stores.catalog'))")
_STORES = text("SELECT name, id FROM stores.stores")
_ADD_STORE = text("INSERT INTO stores.stores (id, name, open) VALUES (:id, :name, true)")
_PRODUCTS = (
    "SELECT sku, store_id, name, brand, price_cents, currency, alternatives, removed, on_hand"
    " FROM stores.products JOIN stores.stock USING (sku) WHERE sku = ANY(:skus)"
)
_KNOWN = text(_PRODUCTS)
# NO KEY UPDATE: an order that holds stock already may go on to refer to its products.
_LOCK_PRODUCTS = text(f'{_PRODUCTS} ORDER BY sku COLLATE "C" FOR NO KEY UPDATE')
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


async def check_catalog(
    database: Database, file: CatalogFile, *, currency: str, stock: int | None = None
) -> CatalogCheck:
    """What the import of a file would change at this moment, and every rule that its lines break. Nothing is
    changed or locked, so that orders go on meanwhile."""
    problems = list(file.problems)
    lines = file.lines.values()
    async with database.transaction() as connection:
        stores: dict[str, UUID] = {name: store_id for name, store_id in await connection.execute(_STORES)}
        rows = await connection.execute(_KNOWN, {"skus": [line.sku for line in lines]})
        known = {row["sku"]: dict(row) for row in rows.mappings()}
        unsold = await _unsold_alternatives(connection, lines)
    for done, (number, line) in enumerate(file.lines.items()):
        if done % CHUNK == 0:
            await asyncio.sleep(0)
        broken = _rules_broken(line, known.get(line.sku), stores.get(line.store), currency, unsold)
        problems += [LineProblem(line=number, field=field, rule=f"{line.sku} {rule}") for field, rule in broken]
    bad = {problem.line for problem in problems}
    totals: Counter[str] = Counter()
    changed: list[CheckedLine] = []
    unchanged = 0
    good = {number: line for number, line in file.lines.items() if number not in bad}
    for done, (number, line) in enumerate(good.items()):
        if done % CHUNK == 0:
            await asyncio.sleep(0)  # others are answered meanwhile
        before = known.get(line.sku)
        events = list(_changes(line, before, stores.get(line.store, _NO_STORE_YET), currency, stock, by=None))
        _count(events, totals)
        unchanged += not events
        if events and len(changed) < MOST_CHANGES_TOLD:
            changed.append(_checked(number, line, before, events))
    totals["stores_opened"] = len({line.store for line in good.values()} - stores.keys())
    return CatalogCheck(
        lines=len(good) + len(bad),
        bad_lines=len(bad),
        problems=sorted(problems, key=lambda problem: problem.line)[:MOST_PROBLEMS_TOLD],
        changes=CatalogImport.model_validate(totals),
        unchanged=unchanged,
        changed=changed,
    )


async def import_catalog(
    database: Database,
    lines: Sequence[CatalogLine],
    *,
    currency: str,
    stock: int | None = None,
    by: str | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> CatalogImport:
    """Open the stores and add or change the products of a catalogue, in one transaction.

    `stock` tops up each product to so many pieces on hand (never takes any away). `by` is the member of staff who
    does it, if one does. `progress` is told how many lines are done. A repeat changes nothing; what was removed is
    sold again. Raises `InvalidInput` if a product would move to another store, be priced in another currency, or
    have an alternative that nobody sells.
    """
    totals: Counter[str] = Counter()
    with caused_by(Causation(correlation_id=new_id(), causation_id="catalog-import")):
        async with database.transaction() as connection:
            await connection.execute(_LOCK)
            unsold = await _unsold_alternatives(connection, lines)
            stores = await _open_stores(connection, lines, totals)
            in_lock_order = sorted(lines, key=lambda line: line.sku)
            for start in range(0, len(lines), CHUNK):
                chunk = in_lock_order[start : start + CHUNK]
                rows = await connection.execute(_LOCK_PRODUCTS, {"skus": [line.sku for line in chunk]})
                known = {row["sku"]: dict(row) for row in rows.mappings()}
                for line in chunk:
                    _refuse(line, _rules_broken(line, known.get(line.sku), stores[line.store], currency, unsold))
                changes = [
                    (line, event)
                    for line in chunk
                    for event in _changes(line, known.get(line.sku), stores[line.store], currency, stock, by)
                ]
                if changes:
                    await _put(connection, changes, known, stores, currency, stock)
                    _count((event for _, event in changes), totals)
                progress(start + len(chunk))
    return CatalogImport.model_validate(totals)


async def _unsold_alternatives(connection: AsyncConnection, lines: Iterable[CatalogLine]) -> set[str]:
    """Those of the alternatives that are not in these lines, and not sold either."""
    imported = {line.sku for line in lines}
    wanted = {sku for line in lines for sku in line.alternatives or []} - imported
    if not wanted:
        return set()
    return wanted - {row.sku for row in await connection.execute(_SOLD, {"skus": list(wanted)})}


async def _open_stores(
    connection: AsyncConnection, lines: Sequence[CatalogLine], totals: Counter[str]
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


async def _put(
    connection: AsyncConnection,
    changes: Sequence[tuple[CatalogLine, Event]],
    known: Mapping[str, Mapping[str, Any]],
    stores: Mapping[str, UUID],
    currency: str,
    stock: int | None,
) -> None:
    changed = {line.sku: line for line, _ in changes}.values()
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


_COUNTERS: dict[type[Event], str] = {
    ProductAdded: "products_added",
    ProductRenamed: "products_renamed",
    ProductPriceChanged: "prices_changed",
    AlternativesChanged: "alternatives_changed",
    StockReceived: "stock_received",
}


def _count(events: Iterable[Event], totals: Counter[str]) -> None:
    for event in events:
        totals[_COUNTERS[type(event)]] += event.quantity if isinstance(event, StockReceived) else 1


def _alternatives(line: CatalogLine, known: Mapping[str, Any] | None) -> list[str]:
    before: list[str] = known["alternatives"] if known else []
    return before if line.alternatives is None else line.alternatives


def _changes(
    line: CatalogLine,
    known: Mapping[str, Any] | None,
    store_id: UUID,
    currency: str,
    stock: int | None,
    by: str | None,
) -> Iterator[Event]:
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
            yield ProductRenamed(sku=line.sku, name=line.name, brand=line.brand, by=by)
        if known["price_cents"] != line.price_cents:
            yield ProductPriceChanged(sku=line.sku, price_cents=line.price_cents, currency=currency, by=by)
    alternatives = _alternatives(line, known)
    if alternatives != (known["alternatives"] if known else []):
        yield AlternativesChanged(sku=line.sku, alternatives=alternatives, by=by)
    missing = (stock or 0) - (known["on_hand"] if known else 0)
    if missing > 0:
        yield StockReceived(sku=line.sku, quantity=missing, by=by)


def _rules_broken(
    line: CatalogLine,
    known: Mapping[str, Any] | None,
    store_id: UUID | None,
    currency: str,
    unsold: set[str],
) -> Iterator[tuple[str, str]]:
    """Each field with what the product of this line is that it must not be."""
    if known is not None and known["store_id"] != store_id:
        yield "store", f"is sold by another store than {line.store}"
    if known is not None and known["currency"] != currency:
        yield "price_cents", f"is sold in {known['currency']}, not in {currency}"
    for sku in line.alternatives or []:
        if sku in unsold:
            yield "alternatives", f"has the alternative {sku}, which nobody sells"


def _refuse(line: CatalogLine, broken: Iterator[tuple[str, str]]) -> None:
    for field, rule in broken:
        raise InvalidInput(f"nothing was imported:\nsku {line.sku} {rule}", field)


def _checked(
    number: int, line: CatalogLine, known: Mapping[str, Any] | None, events: Sequence[Event]
) -> CheckedLine:
    return CheckedLine(
        line=number,
        sku=line.sku,
        store=line.store,
        name=line.name,
        brand=line.brand,
        price_cents=line.price_cents,
        price_cents_before=known["price_cents"] if known and not known["removed"] else None,
        changes=[_WORDS[type(event)] for event in events],
    )


_WORDS: dict[type[Event], CatalogChange] = {
    ProductAdded: "added",
    ProductRenamed: "renamed",
    ProductPriceChanged: "repriced",
    AlternativesChanged: "alternatives",
    StockReceived: "stock",
}

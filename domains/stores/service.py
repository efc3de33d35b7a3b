"""What Stores can be asked to do for an order and by staff, and what may be read of its products."""

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domains.stores.catalog import check_catalog, import_catalog
from domains.stores.catalog_file import CatalogFile
from domains.stores.daily_work import DailyWork, StaffCommand
from domains.stores.messages import (
    Adjustment,
    AdjustReservation,
    CatalogCheck,
    CatalogImport,
    ConsumeStock,
    DropSubstitutes,
    ProductView,
    ReleaseStock,
    Reservation,
    ReserveStock,
    ReturnStock,
    StockView,
    StoreView,
)
from domains.stores.reservations import Reservations
from domains.stores.stock import STORE
from kernel.database import Database
from kernel.errors import ConcurrencyConflict, NotFound
from kernel.jsonlines import refusal

__all__ = ["STORE", "Stores"]

Answer = TypeVar("Answer")

_MOST_ATTEMPTS: Final = 10

_STORES = "SELECT id, name, open FROM stores.stores"
_PRODUCT = (
    "products.sku, stores.name AS store, products.name, products.brand, products.price_cents,"
    " products.currency, stock.on_hand - stock.reserved AS available"
)
_LOW = "stock.low_at > 0 AND stock.on_hand - stock.reserved <= stock.low_at"
_STOCK = (
    f"{_PRODUCT}, products.store_id, products.alternatives, stock.on_hand, stock.reserved, stock.low_at,"
    f" {_LOW} AS low"
)
_SOLD = (
    " FROM stores.products JOIN stores.stores ON stores.id = products.store_id JOIN stores.stock USING (sku)"
    " WHERE NOT products.removed"
)


class Stores:
    """The Stores domain on its database. Every command may be repeated: the effect is that of the first."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def reserve(self, command: ReserveStock) -> Reservation:
        """Hold the stock of every line at today's prices, or of none.

        Raises `Refused` (`unknown_product`, `store_closed`, `insufficient_stock`, naming the lines), or
        `OrderClosed` if the order was released before.
        """
        return await self._do(lambda connection: Reservations(connection).reserve(command))

    async def adjust(self, command: AdjustReservation) -> Adjustment:
        """Let go pieces that a robot did not find, and hold alternatives at today's prices for those that shall be
        substituted. How many there are on the shelf stays: the event asks somebody to count.

        Of several lines of a product those lose pieces first that hurt the customer least. If a line would that
        says to cancel the order then, nothing is changed, and the answer names its product. Raises `OrderClosed`
        if the order was released or consumed, `NotFound` if nothing was ever held for it.
        """
        return await self._do(lambda connection: Reservations(connection).adjust(command))

    async def drop_substitutes(self, command: DropSubstitutes) -> Adjustment:
        """Let go the alternatives of a round of adjustment. The answer: what is held then. Raises as `adjust`."""
        return await self._do(lambda connection: Reservations(connection).drop_substitutes(command))

    async def consume(self, command: ConsumeStock) -> None:
        """Take what is held for an order off the shelf for good. Raises `OrderClosed` if it was released,
        `NotFound` if nothing was ever held for it."""
        await self._do(lambda connection: Reservations(connection).consume(command))

    async def release(self, command: ReleaseStock) -> None:
        """Let go what is held for an order, but for what a robot still carries: that stays reserved until it is
        returned. If nothing was held yet, a reserve that comes later is refused.

        Raises `OrderClosed` if it was consumed.
        """
        await self._do(lambda connection: Reservations(connection).release(command))

    async def return_stock(self, command: ReturnStock) -> None:
        """Let go what a robot carried and brought back, also if that is told before the release. What it never
        carried is passed over."""
        await self._do(lambda connection: Reservations(connection).return_stock(command))

    async def manage(self, *commands: StaffCommand) -> None:
        """Do what staff say about a product or a store: all of it, in this order, or none. No order that holds
        stock notices; what is so already is no event.

        Raises `NotFound`; `InvalidInput` naming the field, for alternatives that are none; `Conflict` for a count
        below what is held for orders, a receipt that was for another quantity, or a store's name that is taken.
        """

        async def do_all(connection: AsyncConnection) -> None:
            for command in commands:
                await DailyWork(connection).do(command)

        await self._do(do_all)

    async def check_catalog(self, file: CatalogFile, *, currency: str, stock: int | None) -> CatalogCheck:
        """What the import of a file would change at this moment, and every rule that its lines break."""
        return await check_catalog(self._database, file, currency=currency, stock=stock)

    async def import_catalog(
        self, file: CatalogFile, *, currency: str, stock: int | None, by: str
    ) -> CatalogImport:
        """Import all of a file, or nothing. `stock` tops up each product to so many pieces. Raises `InvalidInput`
        naming the lines that break a rule."""
        if file.problems:
            raise refusal("nothing was imported", file.problems)
        lines = list(file.lines.values())
        return await import_catalog(self._database, lines, currency=currency, stock=stock, by=by)

    async def stores(self) -> list[StoreView]:
        """All stores, by name."""
        return [StoreView.model_validate(row) for row in await self._read(f"{_STORES} ORDER BY name")]

    async def store(self, store_id: UUID) -> StoreView:
        """One store. Raises `NotFound`."""
        rows = await self._read(f"{_STORES} WHERE id = :store_id", {"store_id": store_id})
        if not rows:
            raise NotFound(f"there is no store {store_id}")
        return StoreView.model_validate(rows[0])

    async def products(
        self, *, store: str | None = None, words: str = "", after: str = "", limit: int = 50
    ) -> list[ProductView]:
        """Up to `limit` products by sku, from the first behind `after`; of one store (by name) if given; those
        of which every word of `words` begins a word of the name or brand, if given."""
        rows = await self._search(_PRODUCT, store, words, after, limit)
        return [ProductView.model_validate(row) for row in rows]

    async def stock(
        self,
        *,
        store: str | None = None,
        words: str = "",
        low_only: bool = False,
        after: str = "",
        limit: int = 50,
    ) -> list[StockView]:
        """As `products`, and as staff see them; with `low_only` those that are few."""
        rows = await self._search(_STOCK, store, words, after, limit, *([_LOW] if low_only else []))
        return [StockView.model_validate(row) for row in rows]

    async def products_by_sku(self, skus: Iterable[str]) -> list[ProductView]:
        """Those of the products that there are, by sku."""
        rows = await self._by_sku(_PRODUCT, skus)
        return [ProductView.model_validate(row) for row in rows]

    async def product(self, sku: str) -> ProductView:
        """One product. Raises `NotFound`."""
        return ProductView.model_validate(await self._one(_PRODUCT, sku))

    async def stock_of(self, sku: str) -> StockView:
        """One product as staff see it. Raises `NotFound`."""
        return StockView.model_validate(await self._one(_STOCK, sku))

    async def _do(self, act: Callable[[AsyncConnection], Awaitable[Answer]]) -> Answer:
        """What `act` answers, its transaction committed. It is done anew if it began to write before another
        transaction whose events its own must follow."""
        for _ in range(1, _MOST_ATTEMPTS):
            try:
                async with self._database.transaction() as connection:
                    return await act(connection)
            except ConcurrencyConflict:
                continue
        async with self._database.transaction() as connection:
            return await act(connection)

    async def _search(
        self, columns: str, store: str | None, words: str, after: str, limit: int, *rules: str
    ) -> Sequence[Mapping[str, Any]]:
        prefixes = " & ".join(f"{word}:*" for word in re.findall(r"[^\W_]+", words.lower()))
        values: dict[str, Any] = {"after": after, "limit": limit}
        all_rules = ["products.sku > :after", *rules]
        if store is not None:
            all_rules.append("stores.name = :store")
            values["store"] = store
        if prefixes:
            all_rules.append("products.search @@ to_tsquery('simple', :prefixes)")
            values["prefixes"] = prefixes
        query = f"SELECT {columns}{_SOLD} AND {' AND '.join(all_rules)} ORDER BY products.sku LIMIT :limit"
        return await self._read(query, values)

    async def _by_sku(self, columns: str, skus: Iterable[str]) -> Sequence[Mapping[str, Any]]:
        query = f"SELECT {columns}{_SOLD} AND products.sku = ANY(:skus) ORDER BY products.sku"
        return await self._read(query, {"skus": sorted(set(skus))})

    async def _one(self, columns: str, sku: str) -> Mapping[str, Any]:
        found = await self._by_sku(columns, [sku])
        if not found:
            raise NotFound(f"the mall does not sell {sku}")
        return found[0]

    async def _read(self, query: str, values: Mapping[str, Any] | None = None) -> Sequence[Mapping[str, Any]]:
        async with self._database.transaction() as connection:
            return [dict(row) for row in (await connection.execute(text(query), values)).mappings()]

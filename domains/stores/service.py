"""What Stores can be asked to do for an order, and what may be read of its products."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domains.stores.messages import (
    EVENTS,
    ProductView,
    ReleaseStock,
    Reservation,
    ReserveStock,
    StockReleased,
    StockReserved,
    StoreView,
)
from domains.stores.model import Offer, pieces_by_sku, price
from events.store import EventStore
from kernel.database import Database
from kernel.errors import NotFound, OrderClosed
from kernel.messages import PricedLine

STORE = EventStore("stores", EVENTS)

# The first to speak of an order makes its row; others wait here for its commit and then find it.
_CLAIM = text(
    "INSERT INTO stores.reservations (order_id, status) VALUES (:order_id, :status)"
    " ON CONFLICT DO NOTHING RETURNING order_id"
)
_STATUS = text("SELECT status FROM stores.reservations WHERE order_id = :order_id FOR UPDATE")
_SET_RELEASED = text(
    "UPDATE stores.reservations SET status = 'released', changed_at = now() WHERE order_id = :order_id"
)
_LINES = text(
    "SELECT sku, name, store, quantity, unit_price_cents FROM stores.reservation_lines"
    " WHERE order_id = :order_id ORDER BY line"
)
_ADD_LINES = text(
    "INSERT INTO stores.reservation_lines (order_id, line, sku, name, store, quantity, unit_price_cents)"
    " VALUES (:order_id, :line, :sku, :name, :store, :quantity, :unit_price_cents)"
)
# Every transaction locks stock in the order of sku: two orders for the same products queue, never deadlock.
_LOCK_OFFERS = text(
    "SELECT stock.sku, products.name, stores.name AS store, stores.open AS store_open,"
    " products.price_cents AS unit_price_cents, products.currency, stock.on_hand - stock.reserved AS available"
    " FROM stores.stock JOIN stores.products USING (sku) JOIN stores.stores ON stores.id = products.store_id"
    ' WHERE stock.sku = ANY(:skus) ORDER BY stock.sku COLLATE "C" FOR UPDATE OF stock'
)
_MOVE_RESERVED = text(
    "UPDATE stores.stock SET reserved = reserved + moved.pieces"
    " FROM unnest(CAST(:skus AS text[]), CAST(:pieces AS int[])) AS moved (sku, pieces)"
    " WHERE stock.sku = moved.sku"
)
_PRODUCTS = (
    "SELECT products.sku, stores.name AS store, products.name, products.brand, products.price_cents,"
    " products.currency, stock.on_hand - stock.reserved AS available"
    " FROM stores.products JOIN stores.stores ON stores.id = products.store_id JOIN stores.stock USING (sku)"
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
        order = {"order_id": command.order_id}
        async with self._database.transaction() as connection:
            if not (await connection.execute(_CLAIM, {**order, "status": "held"})).first():
                if (await connection.execute(_STATUS, order)).scalar_one() == "released":
                    raise OrderClosed(f"what was held for order {command.order_id} has been released")
                return Reservation.of(await _held_lines(connection, command.order_id))
            pieces = pieces_by_sku(command.lines)
            reservation = price(command.lines, await _lock_offers(connection, pieces), command.currency)
            await _move_reserved(connection, pieces, sign=1)
            await connection.execute(
                _ADD_LINES,
                [
                    {**order, "line": number, **line.model_dump()}
                    for number, line in enumerate(reservation.lines, 1)
                ],
            )
            event = StockReserved(order_id=command.order_id, lines=reservation.lines)
            await STORE.append(connection, _stream(command.order_id), 0, [event])
            return reservation

    async def release(self, command: ReleaseStock) -> None:
        """Let go what is held for an order. If nothing was held yet, a reserve that comes later is refused."""
        order = {"order_id": command.order_id}
        async with self._database.transaction() as connection:
            held: list[PricedLine] = []
            if not (await connection.execute(_CLAIM, {**order, "status": "released"})).first():
                if (await connection.execute(_STATUS, order)).scalar_one() == "released":
                    return
                held = await _held_lines(connection, command.order_id)
                pieces = pieces_by_sku(held)
                await _lock_offers(connection, pieces)
                await _move_reserved(connection, pieces, sign=-1)
                await connection.execute(_SET_RELEASED, order)
            event = StockReleased(order_id=command.order_id, reason=command.reason, lines=held)
            await STORE.record(connection, [(_stream(command.order_id), event)])

    async def stores(self) -> list[StoreView]:
        """All stores, by name."""
        rows = await self._read("SELECT id, name, open FROM stores.stores ORDER BY name")
        return [StoreView.model_validate(row) for row in rows]

    async def products(
        self, *, store: str | None = None, words: str = "", after: str = "", limit: int = 50
    ) -> list[ProductView]:
        """Up to `limit` products by sku, from the first behind `after`; of one store (by name) if given; those
        of which every word of `words` begins a word of the name or brand, if given."""
        prefixes = " & ".join(f"{word}:*" for word in re.findall(r"[^\W_]+", words.lower()))
        rules = ["products.sku > :after"]
        if store is not None:
            rules.append("stores.name = :store")
        if prefixes:
            rules.append("products.search @@ to_tsquery('simple', :prefixes)")
        return await self._read_products(
            f"{_PRODUCTS} WHERE {' AND '.join(rules)} ORDER BY products.sku LIMIT :limit",
            {"after": after, "limit": limit}
            | ({"store": store} if store is not None else {})
            | ({"prefixes": prefixes} if prefixes else {}),
        )

    async def products_by_sku(self, skus: Iterable[str]) -> list[ProductView]:
        """Those of the products that there are, by sku."""
        return await self._read_products(
            f"{_PRODUCTS} WHERE products.sku = ANY(:skus) ORDER BY products.sku", {"skus": sorted(set(skus))}
        )

    async def product(self, sku: str) -> ProductView:
        """One product. Raises `NotFound`."""
        found = await self.products_by_sku([sku])
        if not found:
            raise NotFound(f"the mall does not sell {sku}")
        return found[0]

    async def _read_products(self, query: str, values: Mapping[str, Any]) -> list[ProductView]:
        return [ProductView.model_validate(row) for row in await self._read(query, values)]

    async def _read(self, query: str, values: Mapping[str, Any] | None = None) -> Sequence[Mapping[str, Any]]:
        async with self._database.transaction() as connection:
            return [dict(row) for row in (await connection.execute(text(query), values)).mappings()]


def _stream(order_id: UUID) -> str:
    return f"reservation-{order_id}"


async def _held_lines(connection: AsyncConnection, order_id: UUID) -> list[PricedLine]:
    rows = await connection.execute(_LINES, {"order_id": order_id})
    return [PricedLine.model_validate(dict(row)) for row in rows.mappings()]


async def _lock_offers(connection: AsyncConnection, skus: Iterable[str]) -> dict[str, Offer]:
    rows = await connection.execute(_LOCK_OFFERS, {"skus": list(skus)})
    return {row.pop("sku"): Offer(**row) for row in map(dict, rows.mappings())}


async def _move_reserved(connection: AsyncConnection, pieces: Mapping[str, int], *, sign: int) -> None:
    await connection.execute(
        _MOVE_RESERVED, {"skus": list(pieces), "pieces": [sign * number for number in pieces.values()]}
    )

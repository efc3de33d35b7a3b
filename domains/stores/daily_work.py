"""What staff do about stores and products. It is for orders to come: accepted ones keep what they have."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, assert_never
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from domains.stores.messages import (
    AlternativesChanged,
    ChangePrice,
    CorrectStock,
    LowStockChanged,
    ProductPriceChanged,
    ProductRemoved,
    ProductRenamed,
    ReceiveStock,
    RemoveProduct,
    RenameProduct,
    RenameStore,
    SetAlternatives,
    SetLowStock,
    SetParticipation,
    StockCorrected,
    StockRanLow,
    StockReceived,
    StoreParticipationChanged,
    StoreRenamed,
)
from domains.stores.model import is_low
from domains.stores.stock import STORE, product_stream
from events.event import Event
from kernel.errors import Conflict, InvalidInput, NotFound

MOST_ON_HAND: Final = 100_000_000

ProductCommand = (
    ReceiveStock | CorrectStock | ChangePrice | RenameProduct | SetAlternatives | SetLowStock | RemoveProduct
)
StoreCommand = RenameStore | SetParticipation
StaffCommand = ProductCommand | StoreCommand

# NO KEY UPDATE: an order that holds stock already may go on to refer to its products.
_LOCK = text(
    "SELECT stock.sku, name, brand, price_cents, currency, alternatives, removed, on_hand, reserved, low_at"
    " FROM stores.stock JOIN stores.products USING (sku) WHERE stock.sku = :sku FOR NO KEY UPDATE"
)
_SOLD = text("SELECT sku FROM stores.products WHERE sku = ANY(:skus) AND NOT removed")
_RECEIVE = text(
    "INSERT INTO stores.receipts (sku, receipt, quantity, received_by)"
    " VALUES (:sku, :receipt, :quantity, :by) ON CONFLICT DO NOTHING RETURNING sku"
)
_RECEIVED = text("SELECT quantity FROM stores.receipts WHERE sku = :sku AND receipt = :receipt")
_SET_ON_HAND = text("UPDATE stores.stock SET on_hand = :on_hand WHERE sku = :sku")
_SET_LOW_AT = text("UPDATE stores.stock SET low_at = :low_at WHERE sku = :sku")
_SET_PRICE = text("UPDATE stores.products SET price_cents = :price_cents WHERE sku = :sku")
_SET_NAME = text("UPDATE stores.products SET name = :name, brand = :brand WHERE sku = :sku")
_SET_ALTERNATIVES = text("UPDATE stores.products SET alternatives = :alternatives WHERE sku = :sku")
_REMOVE = text("UPDATE stores.products SET removed = true WHERE sku = :sku")
_LOCK_STORE = text("SELECT id, name, open FROM stores.stores WHERE id = :store_id FOR UPDATE")
_RENAME_STORE = text("UPDATE stores.stores SET name = :name WHERE id = :store_id")
_OPEN_STORE = text("UPDATE stores.stores SET open = :open WHERE id = :store_id")


@dataclass(frozen=True)
class _Product:
    """A product as it is, locked."""

    sku: str
    name: str
    brand: str
    price_cents: int
    currency: str
    alternatives: list[str]
    removed: bool
    on_hand: int
    reserved: int
    low_at: int

    @property
    def available(self) -> int:
        return self.on_hand - self.reserved

    @property
    def is_low(self) -> bool:
        return is_low(self.available, self.low_at)


@dataclass(frozen=True)
class _Store:
    """A store as it is, locked."""

    id: UUID
    name: str
    open: bool


class DailyWork:
    """The stores' daily work, in a transaction of whoever asks. What is so already is no event."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def do(self, command: StaffCommand) -> None:
        """See `Stores.manage`."""
        if isinstance(command, RenameStore | SetParticipation):
            await self._on_store(command)
        else:
            await self._on_product(command)

    async def _on_product(self, command: ProductCommand) -> None:
        product = await self._product(command.sku)
        if product.removed and not isinstance(command, RemoveProduct):
            raise _not_sold(product.sku)
        events = await self._change(product, command)
        if not events:
            return
        after = await self._product(command.sku)
        if after.is_low and not product.is_low:
            events = [*events, StockRanLow(sku=after.sku, available=after.available, low_at=after.low_at)]
        await STORE.record(self._connection, [(product_stream(command.sku), event) for event in events])

    async def _on_store(self, command: StoreCommand) -> None:
        found = await self._connection.execute(_LOCK_STORE, {"store_id": command.store_id})
        row = found.mappings().one_or_none()
        if row is None:
            raise NotFound(f"there is no store {command.store_id}")
        store = _Store(**row)
        event: Event
        match command:
            case RenameStore(name=name, by=by):
                if name == store.name:
                    return
                await self._rename_store(store, name)
                event = StoreRenamed(store_id=store.id, name=name, by=by)
            case SetParticipation(open=is_open, by=by):
                if is_open == store.open:
                    return
                await self._connection.execute(_OPEN_STORE, {"store_id": store.id, "open": is_open})
                event = StoreParticipationChanged(store_id=store.id, open=is_open, by=by)
            case _:
                assert_never(command)
        await STORE.record(self._connection, [(f"store-{store.id}", event)])

    async def _product(self, sku: str) -> _Product:
        row = (await self._connection.execute(_LOCK, {"sku": sku})).mappings().one_or_none()
        if row is None:
            raise _not_sold(sku)
        return _Product(**row)

    async def _change(self, product: _Product, command: ProductCommand) -> Sequence[Event]:
        match command:
            case ReceiveStock():
                return await self._receive(product, command)
            case CorrectStock():
                return await self._correct(product, command)
            case ChangePrice():
                return await self._change_price(product, command)
            case RenameProduct():
                return await self._rename(product, command)
            case SetAlternatives():
                return await self._set_alternatives(product, command)
            case SetLowStock():
                return await self._set_low_at(product, command)
            case RemoveProduct():
                return await self._remove(product, command)
            case _:
                assert_never(command)

    async def _receive(self, product: _Product, command: ReceiveStock) -> Sequence[Event]:
        if not (await self._connection.execute(_RECEIVE, command.model_dump())).first():
            before = await self._connection.scalar(_RECEIVED, {"sku": command.sku, "receipt": command.receipt})
            if before != command.quantity:
                raise Conflict(f"receipt {command.receipt} was for {before} of {command.sku}")
            return []
        on_hand = product.on_hand + command.quantity
        if on_hand > MOST_ON_HAND:
            raise Conflict(f"a store keeps {MOST_ON_HAND} pieces of a product at most")
        await self._connection.execute(_SET_ON_HAND, {"sku": product.sku, "on_hand": on_hand})
        return [StockReceived(sku=command.sku, quantity=command.quantity, receipt=command.receipt, by=command.by)]

    async def _correct(self, product: _Product, command: CorrectStock) -> Sequence[Event]:
        difference = command.on_hand - product.on_hand
        if difference == 0:
            return []
        if command.on_hand < product.reserved:
            raise Conflict(
                f"{product.reserved} pieces of {product.sku} are held for orders: "
                f"there can not be {command.on_hand} on hand"
            )
        await self._connection.execute(_SET_ON_HAND, {"sku": product.sku, "on_hand": command.on_hand})
        return [
            StockCorrected(
                sku=product.sku,
                on_hand=command.on_hand,
                difference=difference,
                reason=command.reason,
                by=command.by,
            )
        ]

    async def _change_price(self, product: _Product, command: ChangePrice) -> Sequence[Event]:
        if command.price_cents == product.price_cents:
            return []
        await self._connection.execute(_SET_PRICE, {"sku": product.sku, "price_cents": command.price_cents})
        return [
            ProductPriceChanged(
                sku=product.sku, price_cents=command.price_cents, currency=product.currency, by=command.by
            )
        ]

    async def _rename(self, product: _Product, command: RenameProduct) -> Sequence[Event]:
        name = product.name if command.name is None else command.name
        brand = product.brand if command.brand is None else command.brand
        if (name, brand) == (product.name, product.brand):
            return []
        await self._connection.execute(_SET_NAME, {"sku": product.sku, "name": name, "brand": brand})
        return [ProductRenamed(sku=product.sku, name=name, brand=brand, by=command.by)]

    async def _set_alternatives(self, product: _Product, command: SetAlternatives) -> Sequence[Event]:
        if command.alternatives == product.alternatives:
            return []
        found = await self._connection.execute(_SOLD, {"skus": command.alternatives})
        sold = {row.sku for row in found}
        for number, sku in enumerate(command.alternatives):
            field = f"alternatives[{number}]"
            if sku == product.sku:
                raise InvalidInput("a product is no alternative of itself", field)
            if sku not in sold:
                raise InvalidInput(f"the mall does not sell {sku}", field)
            if sku in command.alternatives[:number]:
                raise InvalidInput(f"{sku} is an alternative twice", field)
        values = {"sku": product.sku, "alternatives": command.alternatives}
        await self._connection.execute(_SET_ALTERNATIVES, values)
        return [AlternativesChanged(**values, by=command.by)]

    async def _set_low_at(self, product: _Product, command: SetLowStock) -> Sequence[Event]:
        if command.low_at == product.low_at:
            return []
        await self._connection.execute(_SET_LOW_AT, {"sku": product.sku, "low_at": command.low_at})
        return [LowStockChanged(sku=product.sku, low_at=command.low_at, by=command.by)]

    async def _remove(self, product: _Product, command: RemoveProduct) -> Sequence[Event]:
        if product.removed:
            return []
        await self._connection.execute(_REMOVE, {"sku": product.sku})
        return [ProductRemoved(sku=product.sku, by=command.by)]

    async def _rename_store(self, store: _Store, name: str) -> None:
        try:
            await self._connection.execute(_RENAME_STORE, {"store_id": store.id, "name": name})
        except IntegrityError as error:
            raise Conflict(f"there is a store {name} already") from error


def _not_sold(sku: str) -> NotFound:
    return NotFound(f"the mall does not sell {sku}")

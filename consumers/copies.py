"""Carried state: what Depot and Orders know of the stores' goods, kept up to date by the events of Stores.

Whoever needs a name need not ask Stores for it, and goes on while Stores is down.
"""

from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from domains.depot.copies import StoreCopies
from domains.orders.copies import ProductNames
from domains.stores.messages import ProductAdded, ProductRemoved, ProductRenamed, StoreOpened, StoreRenamed
from events.consumer import Consumer
from events.recorded import RecordedEvent

_STORES: Final = (StoreOpened, StoreRenamed)
_PRODUCTS: Final = (ProductAdded, ProductRenamed, ProductRemoved)


def _subjects(*events: type) -> tuple[str, ...]:
    return tuple(f"mallbots.stores.{event.__name__}.*" for event in events)


async def _keep_stores(connection: AsyncConnection, event: RecordedEvent) -> None:
    copies = StoreCopies(connection)
    match event.read_one_of((*_STORES, *_PRODUCTS)):
        case StoreOpened(store_id=store_id, name=name) | StoreRenamed(store_id=store_id, name=name):
            await copies.put_store(store_id, name)
        case ProductAdded() as added:
            await copies.put_product(added.sku, added.store_id, added.name)
        case ProductRenamed() as renamed:
            await copies.rename_product(renamed.sku, renamed.name)
        case ProductRemoved() as removed:
            await copies.remove_product(removed.sku)


async def _keep_names(connection: AsyncConnection, event: RecordedEvent) -> None:
    names = ProductNames(connection)
    match event.read_one_of(_PRODUCTS):
        case ProductAdded(sku=sku, name=name) | ProductRenamed(sku=sku, name=name):
            await names.put(sku, name)
        case ProductRemoved():
            """Orders of it go on, and want to be told by name."""


DEPOT: Final = Consumer("depot-copies", "depot", _subjects(*_STORES, *_PRODUCTS), _keep_stores)
ORDERS: Final = Consumer("orders-copies", "orders", _subjects(*_PRODUCTS), _keep_names)

"""What Depot knows of stores and products: a copy, fed by the events of Stores."""

from collections.abc import Iterable
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

_PUT_STORE = text(
    "INSERT INTO depot.stores (store_id, name) VALUES (:store_id, :name)"
    " ON CONFLICT (store_id) DO UPDATE SET name = excluded.name"
)
_PUT_PRODUCT = text(
    "INSERT INTO depot.products (sku, store_id, name) VALUES (:sku, :store_id, :name)"
    " ON CONFLICT (sku) DO UPDATE SET store_id = excluded.store_id, name = excluded.name"
)
_RENAME_PRODUCT = text("UPDATE depot.products SET name = :name WHERE sku = :sku")
_REMOVE_PRODUCT = text("DELETE FROM depot.products WHERE sku = :sku")
_SIGNS = text(
    "SELECT sku, products.name, stores.name AS store FROM depot.products JOIN depot.stores USING (store_id)"
    " WHERE sku = ANY(:skus)"
)


class StoreCopies:
    """The copy, in a transaction of whoever reads or feeds it."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def put_store(self, store_id: UUID, name: str) -> None:
        """A store is called so from now on."""
        await self._connection.execute(_PUT_STORE, {"store_id": store_id, "name": name})

    async def put_product(self, sku: str, store_id: UUID, name: str) -> None:
        """A store has this product."""
        await self._connection.execute(_PUT_PRODUCT, {"sku": sku, "store_id": store_id, "name": name})

    async def rename_product(self, sku: str, name: str) -> None:
        """A product is called so from now on."""
        await self._connection.execute(_RENAME_PRODUCT, {"sku": sku, "name": name})

    async def remove_product(self, sku: str) -> None:
        """A product is not sold any more."""
        await self._connection.execute(_REMOVE_PRODUCT, {"sku": sku})

    async def signs(self, skus: Iterable[str]) -> dict[str, tuple[str, str]]:
        """For each product that is known, what its shelf says now: its name, and the name of its store."""
        rows = await self._connection.execute(_SIGNS, {"skus": sorted(set(skus))})
        return {row.sku: (row.name, row.store) for row in rows}

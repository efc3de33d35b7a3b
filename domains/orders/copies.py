"""What Orders knows of products: a copy of their names, fed by the events of Stores."""

from collections.abc import Iterable

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

_PUT = text(
    "INSERT INTO orders.products (sku, name) VALUES (:sku, :name)"
    " ON CONFLICT (sku) DO UPDATE SET name = excluded.name"
)
_NAMES = text("SELECT sku, name FROM orders.products WHERE sku = ANY(:skus)")


class ProductNames:
    """The copy, in a transaction of whoever reads or feeds it."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def put(self, sku: str, name: str) -> None:
        """A product is called so from now on."""
        await self._connection.execute(_PUT, {"sku": sku, "name": name})

    async def of(self, skus: Iterable[str]) -> dict[str, str]:
        """The names of those products that are known."""
        rows = await self._connection.execute(_NAMES, {"skus": sorted(set(skus))})
        return {row.sku: row.name for row in rows}

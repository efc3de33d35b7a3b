"""The first start of a mall: something to sell, and kiosks to sell it at."""

from pathlib import Path
from typing import Final

from api.keys import ApiKeys
from domains.stores.catalog import import_catalog, read_catalog
from domains.stores.service import Stores
from kernel.database import Database
from mallbots.kept_keys import install_keys
from mallbots.settings import Settings

CATALOG: Final = Path(__file__).with_name("catalog.jsonl")
FIRST_STOCK: Final = 100
FIRST_KIOSKS: Final = ("kiosk-1", "kiosk-2", "kiosk-3")


async def open_mall(settings: Settings) -> bool:
    """Bring in a small catalogue if the mall has no store, and make keys for three kiosks if it has none.

    True if there was no store before. Whatever is there stays as it is, so it may be done at every start, and
    again after it was interrupted. Raises `Unavailable` if a database does not answer.
    """
    stores = Database("stores", settings.database_url("stores"), pool_size=1)
    kiosks = Database("kiosks", settings.database_url("kiosks"), pool_size=1)
    try:
        is_new = not await Stores(stores).stores()
        if is_new:
            await import_catalog(stores, read_catalog(CATALOG), currency=settings.currency, stock=FIRST_STOCK)
        if not await ApiKeys(kiosks, "kiosks").issued():
            await install_keys(settings, "kiosks", FIRST_KIOSKS)
        return is_new
    finally:
        await stores.close()
        await kiosks.close()

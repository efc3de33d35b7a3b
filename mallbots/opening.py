"""The first start of a mall: something to sell, kiosks to sell it at, and somebody to manage it."""

from pathlib import Path
from typing import Final

from api.access import StaffRole
from api.keys import ApiKeys
from api.staff.accounts import Accounts, new_password
from domains.stores.catalog import import_catalog, read_catalog
from domains.stores.service import Stores
from kernel.database import Database
from kernel.errors import Conflict
from mallbots.files import write_private
from mallbots.kept_keys import install_keys
from mallbots.settings import Settings

CATALOG: Final = Path(__file__).with_name("catalog.jsonl")
FIRST_STOCK: Final = 100
FIRST_KIOSKS: Final = ("kiosk-1", "kiosk-2", "kiosk-3")
FIRST_MANAGER: Final = "manager"
FIRST_ROLES: Final[tuple[StaffRole, ...]] = ("manager", "operator")
"""One person can run a small mall."""
PASSWORD_FILE: Final = "manager-password"  # noqa: S105


async def open_mall(settings: Settings) -> bool:
    """Bring in a small catalogue if the mall has no store, make keys for three kiosks if it has none, and an
    account for its manager if nobody has one, with a random password in a file that only its owner may read.

    True if there was no store before. Whatever is there stays as it is, so it may be done at every start, and
    again after it was interrupted. Raises `Unavailable` if a database does not answer.
    """
    stores = Database("stores", settings.database_url("stores"), pool_size=1)
    kiosks = Database("kiosks", settings.database_url("kiosks"), pool_size=1)
    staff = Database("staff", settings.database_url("staff"), pool_size=1)
    try:
        is_new = not await Stores(stores).stores()
        if is_new:
            await import_catalog(stores, read_catalog(CATALOG), currency=settings.currency, stock=FIRST_STOCK)
        if not await ApiKeys(kiosks, "kiosks").issued():
            await install_keys(settings, "kiosks", FIRST_KIOSKS)
        await _make_manager(Accounts(staff), settings.data_dir / PASSWORD_FILE)
        return is_new
    finally:
        await stores.close()
        await kiosks.close()
        await staff.close()


async def _make_manager(accounts: Accounts, password_file: Path) -> None:
    if await accounts.all():
        return
    password = new_password()
    # The file first: killed in between, it holds a password that does not work and is replaced next time.
    write_private(password_file, password + "\n")
    try:
        await accounts.create(FIRST_MANAGER, FIRST_ROLES, password)
    except Conflict:
        # A service of an older mall is called so; `mallbots accounts create` makes an account by another name.
        password_file.unlink()  # noqa: ASYNC240

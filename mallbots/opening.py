"""The first start of a mall: something to sell, kiosks to sell it at, and somebody to manage it."""

import asyncio
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
from mallbots.migrations import migrate
from mallbots.settings import Settings
from mallbots.temporal import prepare_namespace

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
        is_new = await _stock_shelves(settings, stores)
        if not await ApiKeys(kiosks, "kiosks").issued():
            await install_keys(settings, "kiosks", FIRST_KIOSKS)
        await _make_manager(Accounts(staff), settings.data_dir / PASSWORD_FILE)
        return is_new
    finally:
        await stores.close()
        await kiosks.close()
        await staff.close()


async def prepare_mall(settings: Settings, *, sample_catalog: bool = False) -> list[str]:
    """Get the servers of the settings ready for the mall's processes: schemas, namespace, search attributes; a
    manager with `manager_password` while nobody has an account; with `sample_catalog` a small catalogue while
    there is no store.

    Gives what it did, a line each. It may be done at every start, and again after it was interrupted. Raises
    `Unavailable` if a server does not answer, `Misconfigured` if one has no URL, `InvalidInput` for a bad
    password.
    """
    await migrate(settings)
    done = ["the schemas of all databases are up to date"]
    await prepare_namespace(settings)
    done.append(f"Temporal's namespace {settings.temporal_namespace} is ready")
    stores = Database("stores", settings.database_url("stores"), pool_size=1)
    staff = Database("staff", settings.database_url("staff"), pool_size=1)
    try:
        if sample_catalog and await _stock_shelves(settings, stores):
            done.append("the sample catalogue is in the stores")
        done.append(await _first_manager(settings, Accounts(staff)))
    finally:
        await stores.close()
        await staff.close()
        # A process that used a Temporal client may otherwise abort while the interpreter ends
        # (temporalio/sdk-python#300).
        await asyncio.sleep(0.05)
    return done


async def _stock_shelves(settings: Settings, stores: Database) -> bool:
    """Bring in the sample catalogue if there is no store. Whether it was so."""
    if await Stores(stores).stores():
        return False
    await import_catalog(stores, read_catalog(CATALOG), currency=settings.currency, stock=FIRST_STOCK)
    return True


async def _first_manager(settings: Settings, accounts: Accounts) -> str:
    """Make one if nobody has an account and there is a password for it. What came of it, as a line."""
    if await accounts.all():
        return "somebody has an account already"
    if settings.manager_password is None:
        return "nobody has an account: `mallbots accounts create` lets somebody in"
    await accounts.create(FIRST_MANAGER, FIRST_ROLES, settings.manager_password.get_secret_value())
    return f"{FIRST_MANAGER} may sign in, with MALLBOTS_MANAGER_PASSWORD"


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

"""The schemas of all databases and how they change: one folder of Alembic revisions for each."""

from functools import partial
from pathlib import Path
from typing import Final

import asyncpg
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from kernel.database import connect
from kernel.errors import Unavailable
from mallbots.settings import DATABASES, DatabaseName, Settings

HERE: Final = Path(__file__).parent
_LOCK: Final = 20_260_101  # any number, the same for all: one migration at a time in a database


async def migrate(settings: Settings) -> None:
    """Bring every database to the newest revision; one that is there already stays as it is.

    Raises `Misconfigured` where a database has no URL, `Unavailable` where it does not answer.
    """
    for name in DATABASES:
        await migrate_database(name, settings.database_url(name))


async def migrate_database(name: DatabaseName, url: str, *, anew: bool = False) -> None:
    """Bring one database to the newest revision of `name`; with `anew`, its schema is dropped first, in the same
    transaction. Raises `Unavailable` if it does not answer, or others kept its tables busy."""
    engine = create_async_engine(url, poolclass=NullPool, async_creator=partial(connect, name, url))
    try:
        async with engine.begin() as connection:
            await connection.run_sync(_upgrade, name, anew)
    except (OSError, InterfaceError, OperationalError) as error:
        raise Unavailable(f"the {name} database does not answer: {error}") from error
    except DBAPIError as error:
        if error.orig is not None and isinstance(error.orig.__cause__, asyncpg.DeadlockDetectedError):
            raise Unavailable(f"the tables of the {name} database are in use: try again") from error
        raise
    finally:
        await engine.dispose()


def newest_revisions() -> dict[str, str]:
    """The newest revision of each schema that this program knows, such as `orders_0006`; later ones sort behind
    it."""
    numbers = {name: max(path.name[:4] for path in (HERE / name).glob("[0-9]*.py")) for name in DATABASES}
    return {name: f"{name}_{number}" for name, number in numbers.items()}


def alembic_config(name: DatabaseName) -> Config:
    """Alembic's configuration for one database; `env.py` takes the connection from its attributes."""
    config = Config()
    config.set_main_option("script_location", str(HERE))
    config.set_main_option("version_locations", str(HERE / name))
    config.set_main_option("path_separator", "newline")
    config.attributes["schema"] = name
    return config


def _upgrade(connection: Connection, name: DatabaseName, anew: bool) -> None:
    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    if anew:
        connection.execute(text(f"DROP SCHEMA IF EXISTS {name} CASCADE"))
    connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {name}"))
    config = alembic_config(name)
    config.attributes["connection"] = connection
    command.upgrade(config, "head")

"""`mallbots keys`: the API keys of kiosks, for operators."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.table import Table

from kernel.errors import NotFound
from mallbots.console import MallConsole
from mallbots.options import DEFAULT_DATA_DIR, DataDir
from mallbots.settings import Settings

if TYPE_CHECKING:
    from api.kiosk.keys import KioskKeys

Result = TypeVar("Result")
Kiosk = Annotated[str, typer.Argument(help="The kiosk's name.", metavar="KIOSK")]

app = typer.Typer(help="The API keys of kiosks.", no_args_is_help=True)


@app.command()
def create(kiosk: Kiosk, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Print a new key for a kiosk, this one time: only its hash is kept. Its other keys stay valid."""
    typer.echo(_with_keys(Settings.load(data_dir), lambda keys: keys.issue(kiosk)))


@app.command("list")
def list_keys(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """List every key ever made, by kiosk."""
    table = Table("Kiosk", "Key's hash", "Created", "Revoked")
    for key in _with_keys(Settings.load(data_dir), lambda keys: keys.issued()):
        revoked = f"{key.revoked_at:%Y-%m-%d %H:%M:%S}" if key.revoked_at else ""
        table.add_row(key.kiosk, f"{key.hash_prefix}…", f"{key.created_at:%Y-%m-%d %H:%M:%S}", revoked)
    MallConsole().print(table)


@app.command()
def revoke(kiosk: Kiosk, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Revoke every key of a kiosk: from now on it is let in no more."""
    from mallbots.kiosk_keys import forget_key

    settings = Settings.load(data_dir)
    revoked = _with_keys(settings, lambda keys: keys.revoke(kiosk))
    forget_key(settings, kiosk)
    if not revoked:
        raise NotFound(f"{kiosk} has no key that is valid")
    MallConsole().say(f"{kiosk} is let in no more ({revoked} revoked)")


def _with_keys(settings: Settings, use: Callable[["KioskKeys"], Awaitable[Result]]) -> Result:
    from api.kiosk.keys import KioskKeys
    from kernel.database import Database

    async def run() -> Result:
        database = Database("kiosks", settings.database_url("kiosks"), pool_size=1)
        try:
            return await use(KioskKeys(database))
        finally:
            await database.close()

    return asyncio.run(run())

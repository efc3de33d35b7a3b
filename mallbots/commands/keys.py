"""`mallbots keys`: the API keys of kiosks and of staff, for operators."""

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
    from api.keys import ApiKeys, Gateway

Result = TypeVar("Result")
Name = Annotated[str, typer.Argument(help="The kiosk's name, or with `--staff` the person's.", metavar="NAME")]
Staff = Annotated[bool, typer.Option("--staff", help="A key of staff, for everything below `/v1/staff`.")]

app = typer.Typer(help="The API keys of kiosks and of staff.", no_args_is_help=True)


@app.command()
def create(name: Name, *, staff: Staff = False, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Print a new key, this one time: only its hash is kept. The holder's other keys stay valid."""
    typer.echo(_with_keys(Settings.load(data_dir), _gateway(staff), lambda keys: keys.issue(name)))


@app.command("list")
def list_keys(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """List every key ever made, by holder."""
    table = Table("For", "Name", "Key's hash", "Created", "Revoked")
    for gateway in (_gateway(False), _gateway(True)):
        for key in _with_keys(Settings.load(data_dir), gateway, lambda keys: keys.issued()):
            revoked = f"{key.revoked_at:%Y-%m-%d %H:%M:%S}" if key.revoked_at else ""
            created = f"{key.created_at:%Y-%m-%d %H:%M:%S}"
            table.add_row(gateway, key.name, f"{key.hash_prefix}…", created, revoked)
    MallConsole().print(table)


@app.command()
def revoke(name: Name, *, staff: Staff = False, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Revoke every key of a kiosk, or of a member of staff: from now on it lets nobody in."""
    from mallbots.kiosk_keys import forget_key

    settings = Settings.load(data_dir)
    revoked = _with_keys(settings, _gateway(staff), lambda keys: keys.revoke(name))
    if not staff:
        forget_key(settings, name)
    if not revoked:
        raise NotFound(f"{name} has no key that is valid")
    MallConsole().say(f"{name} is let in no more ({revoked} revoked)")


def _gateway(staff: bool) -> "Gateway":
    return "staff" if staff else "kiosks"


def _with_keys(settings: Settings, gateway: "Gateway", use: Callable[["ApiKeys"], Awaitable[Result]]) -> Result:
    from api.keys import ApiKeys
    from kernel.database import Database

    async def run() -> Result:
        database = Database(gateway, settings.database_url(gateway), pool_size=1)
        try:
            return await use(ApiKeys(database, gateway))
        finally:
            await database.close()

    return asyncio.run(run())

"""`mallbots keys`: the API keys of kiosks, staff and robots, for operators."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar, get_args

import typer
from rich.table import Table

from kernel.errors import InvalidInput, NotFound
from mallbots.console import MallConsole
from mallbots.options import DEFAULT_DATA_DIR, DataDir
from mallbots.settings import Settings

if TYPE_CHECKING:
    from api.keys import ApiKeys, Gateway

Result = TypeVar("Result")
Name = Annotated[str, typer.Argument(help="The kiosk's name, the person's, or the robot's.", metavar="NAME")]
Staff = Annotated[
    bool, typer.Option("--staff", help="A key of staff, for everything below `/v1/staff` and for gRPC.")
]
Robot = Annotated[bool, typer.Option("--robot", help="The token of a robot, for its stream by gRPC.")]

app = typer.Typer(help="The API keys of kiosks, staff and robots.", no_args_is_help=True)


@app.command()
def create(
    name: Name, *, staff: Staff = False, robot: Robot = False, data_dir: DataDir = DEFAULT_DATA_DIR
) -> None:
    """Print a new key, this one time: only its hash is kept. The holder's other keys stay valid."""
    typer.echo(_with_keys(Settings.load(data_dir), _gateway(staff, robot), lambda keys: keys.issue(name)))


@app.command("list")
def list_keys(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """List every key ever made, by holder."""
    from api.keys import Gateway

    gateways: tuple[Gateway, ...] = get_args(Gateway)
    table = Table("For", "Name", "Key's hash", "Created", "Revoked")
    for gateway in gateways:
        for key in _with_keys(Settings.load(data_dir), gateway, lambda keys: keys.issued()):
            revoked = f"{key.revoked_at:%Y-%m-%d %H:%M:%S}" if key.revoked_at else ""
            created = f"{key.created_at:%Y-%m-%d %H:%M:%S}"
            table.add_row(gateway, key.name, f"{key.hash_prefix}…", created, revoked)
    MallConsole().print(table)


@app.command()
def revoke(
    name: Name, *, staff: Staff = False, robot: Robot = False, data_dir: DataDir = DEFAULT_DATA_DIR
) -> None:
    """Revoke every key of a kiosk, a member of staff or a robot: it lets nobody in any more."""
    from mallbots.kept_keys import forget_key

    settings = Settings.load(data_dir)
    gateway = _gateway(staff, robot)
    revoked = _with_keys(settings, gateway, lambda keys: keys.revoke(name))
    forget_key(settings, gateway, name)
    if not revoked:
        raise NotFound(f"{name} has no key that is valid")
    MallConsole().say(f"{name} is let in no more ({revoked} revoked)")


def _gateway(staff: bool, robot: bool) -> "Gateway":
    if staff and robot:
        raise InvalidInput("a key is of staff or of a robot")
    return "staff" if staff else "robots" if robot else "kiosks"


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

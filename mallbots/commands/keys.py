"""`mallbots keys`: the API keys of kiosks, services and robots, for operators."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.table import Table

from kernel.errors import InvalidInput, NotFound
from mallbots.console import MallConsole
from mallbots.options import DEFAULT_DATA_DIR, DataDir
from mallbots.settings import Settings

if TYPE_CHECKING:
    from api.access import StaffRole
    from api.keys import ApiKeys, KeyKind
    from api.staff.acts import Acts

Result = TypeVar("Result")
Name = Annotated[str, typer.Argument(help="The name of the kiosk, the service or the robot.", metavar="NAME")]
Service = Annotated[
    bool,
    typer.Option("--service", help="A key of a service, for `/v1/staff` and gRPC. People have accounts instead."),
]
Robot = Annotated[bool, typer.Option("--robot", help="The token of a robot, for its stream by gRPC.")]

app = typer.Typer(help="The API keys of kiosks, services and robots.", no_args_is_help=True)


@app.command()
def create(
    name: Name,
    *,
    service: Service = False,
    robot: Robot = False,
    role: Annotated[
        list[str] | None,
        typer.Option("--role", help="What a service may do: desk, store, manager or operator; may be repeated."),
    ] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Print a new key, this one time: only its hash is kept. The holder's other keys stay valid."""
    kind = _kind(service, robot)
    roles = _roles(kind, role or [])

    async def make(keys: "ApiKeys", acts: "Acts") -> str:
        key = await keys.issue(name, roles)
        await acts.note(_WHO, "create key", f"{kind}-{name}", ", ".join(roles))
        return key

    typer.echo(_with_keys(Settings.load(data_dir), kind, make))


@app.command("list")
def list_keys(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """List every key ever made, by holder."""
    from api.keys import GATEWAYS

    table = Table("For", "Name", "Roles", "Key's hash", "Created", "Revoked")
    for kind in GATEWAYS:
        for key in _with_keys(Settings.load(data_dir), kind, lambda keys, acts: keys.issued()):
            revoked = f"{key.revoked_at:%Y-%m-%d %H:%M:%S}" if key.revoked_at else ""
            created = f"{key.created_at:%Y-%m-%d %H:%M:%S}"
            roles = ", ".join(key.roles) if kind == "service" else ""
            table.add_row(kind, key.name, roles, f"{key.hash_prefix}…", created, revoked)
    MallConsole().print(table)


@app.command()
def rotate(
    name: Name,
    *,
    service: Service = False,
    robot: Robot = False,
    keep_old: Annotated[
        float, typer.Option(min=0, metavar="MINUTES", help="For how long the old keys work beside the new one.")
    ] = 0,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Print a new key with the roles of the old ones, which stop at once, or after some minutes."""
    from api.keys import GATEWAYS
    from mallbots.kept_keys import replace_key

    settings = Settings.load(data_dir)
    kind = _kind(service, robot)

    async def replace(keys: "ApiKeys", acts: "Acts") -> str:
        key = await keys.rotate(name, timedelta(minutes=keep_old))
        await acts.note(_WHO, "rotate key", f"{kind}-{name}", f"the old ones work for {keep_old:g} minutes")
        return key

    key = _with_keys(settings, kind, replace)
    replace_key(settings, GATEWAYS[kind], name, key)
    typer.echo(key)


@app.command()
def revoke(
    name: Name, *, service: Service = False, robot: Robot = False, data_dir: DataDir = DEFAULT_DATA_DIR
) -> None:
    """Revoke every key of a kiosk, a service or a robot: it is let in no more."""
    from api.keys import GATEWAYS
    from mallbots.kept_keys import forget_key

    settings = Settings.load(data_dir)
    kind = _kind(service, robot)

    async def end(keys: "ApiKeys", acts: "Acts") -> int:
        revoked = await keys.revoke(name)
        if revoked:
            await acts.note(_WHO, "revoke key", f"{kind}-{name}", f"{revoked} revoked")
        return revoked

    revoked = _with_keys(settings, kind, end)
    forget_key(settings, GATEWAYS[kind], name)
    if not revoked:
        raise NotFound(f"{kind} {name} has no valid key")
    MallConsole().say(f"{name} is let in no more ({revoked} revoked)")


_WHO = "the command line"


def _kind(service: bool, robot: bool) -> "KeyKind":
    if service and robot:
        raise InvalidInput("a key is of a service or of a robot")
    return "service" if service else "robot" if robot else "kiosk"


def _roles(kind: "KeyKind", named: list[str]) -> "list[StaffRole]":
    from api.access import ALLOWED, STAFF_ROLES

    roles = [role for role in STAFF_ROLES if role in named]
    if kind != "service":
        if named:
            raise InvalidInput(f"only a service has roles: a {kind} does what every {kind} does")
    elif not roles or len(roles) < len(set(named)):
        lines = (f"  --role {role:9} {', '.join(sorted(ALLOWED[role]))}" for role in STAFF_ROLES)
        raise InvalidInput("say what the service may do, by one or more of\n" + "\n".join(lines))
    return roles


def _with_keys(
    settings: Settings, kind: "KeyKind", use: Callable[["ApiKeys", "Acts"], Awaitable[Result]]
) -> Result:
    from api.keys import GATEWAYS, ApiKeys
    from api.staff.acts import Acts
    from kernel.database import Database

    gateway = GATEWAYS[kind]

    async def run() -> Result:
        database = Database(gateway, settings.database_url(gateway), pool_size=1)
        staff = Database("staff", settings.database_url("staff"), pool_size=1)
        try:
            return await use(ApiKeys(database, gateway), Acts(staff))
        finally:
            await database.close()
            await staff.close()

    return asyncio.run(run())

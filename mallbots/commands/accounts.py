"""`mallbots accounts`: the people who sign in to the staff app, for operators."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.table import Table

from mallbots.console import MallConsole
from mallbots.options import DEFAULT_DATA_DIR, DataDir
from mallbots.settings import Settings

if TYPE_CHECKING:
    from api.staff.accounts import Accounts
    from api.staff.acts import Acts

Result = TypeVar("Result")
Name = Annotated[str, typer.Argument(help="The name that somebody signs in by.", metavar="NAME")]
Roles = Annotated[
    list[str],
    typer.Option("--role", help="desk, store, manager or operator; may be repeated.", show_default=False),
]

_WHO = "the command line"

app = typer.Typer(
    help="The people who sign in to the staff app.",
    no_args_is_help=True,
    epilog="The *desk* hands orders over, the *store* keeps prices and stock, an *operator* mends what is stuck, "
    "a *manager* refunds, imports, and makes accounts and keys. Somebody may have several roles.",
    rich_markup_mode="markdown",
)


@app.command()
def create(name: Name, role: Roles, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Let somebody in, and print their password, this one time: only its hash is kept.

    They change it at `/staff/me`. For example: `mallbots accounts create bea --role desk --role store`
    """

    async def add(accounts: "Accounts", acts: "Acts") -> str:
        password = await accounts.create(name, role)
        await acts.note(_WHO, "create account", f"account-{name}", ", ".join(role))
        return password

    typer.echo(_with_accounts(data_dir, add))


@app.command("list")
def list_accounts(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """List every account: its roles, how it signs in, and whether it is signed in now."""
    table = Table("Name", "Roles", "Signs in by", "Created", "Sessions", "Last seen", "Disabled")
    for account in _with_accounts(data_dir, lambda accounts, acts: accounts.all()):
        table.add_row(
            account.name,
            ", ".join(account.roles),
            account.issuer or "password",
            f"{account.created_at:%Y-%m-%d}",
            str(account.sessions or ""),
            f"{account.last_seen_at:%Y-%m-%d %H:%M}" if account.last_seen_at else "",
            f"{account.disabled_at:%Y-%m-%d %H:%M}" if account.disabled_at else "",
        )
    MallConsole().print(table)


@app.command()
def roles(name: Name, role: Roles, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Give somebody these roles, and take all others. It counts within seconds, also where they are signed in."""
    _change(data_dir, name, "change roles", ", ".join(role), lambda accounts: accounts.change(name, roles=role))
    MallConsole().say(f"{name} is now {', '.join(role)}")


@app.command("reset-password")
def reset_password(name: Name, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Print a new password for somebody who forgot theirs, and sign them out everywhere."""
    reset = _change(data_dir, name, "reset password", "", lambda accounts: accounts.reset_password(name))
    typer.echo(reset)


@app.command()
def disable(name: Name, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Let somebody in no more, and sign them out everywhere. What they did stays on record."""
    _change(data_dir, name, "disable account", "", lambda accounts: accounts.change(name, disabled=True))
    MallConsole().say(f"{name} is let in no more")


@app.command()
def enable(name: Name, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Let somebody in again, by the password that they had."""
    _change(data_dir, name, "enable account", "", lambda accounts: accounts.change(name, disabled=False))
    MallConsole().say(f"{name} is let in again")


@app.command("sign-out")
def sign_out(name: Name, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Sign somebody out everywhere; they may sign in again."""
    ended = _change(data_dir, name, "sign out everywhere", "", lambda accounts: accounts.sign_out_everywhere(name))
    MallConsole().say(f"{name} is signed out ({ended} sessions)")


def _change(
    data_dir: Path, name: str, act: str, detail: str, change: "Callable[[Accounts], Awaitable[Result]]"
) -> Result:
    """Do something to an account, and note it."""

    async def run(accounts: "Accounts", acts: "Acts") -> Result:
        result = await change(accounts)
        await acts.note(_WHO, act, f"account-{(await accounts.account(name)).name}", detail)
        return result

    return _with_accounts(data_dir, run)


def _with_accounts(data_dir: Path, use: "Callable[[Accounts, Acts], Awaitable[Result]]") -> Result:
    from api.staff.accounts import Accounts
    from api.staff.acts import Acts
    from kernel.database import Database

    settings = Settings.load(data_dir)

    async def run() -> Result:
        database = Database("staff", settings.database_url("staff"), pool_size=1)
        try:
            return await use(Accounts(database, session_hours=settings.session_hours), Acts(database))
        finally:
            await database.close()

    return asyncio.run(run())

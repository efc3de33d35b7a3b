"""`mallbots notifications`: what customers were told, for operators. It only reads its options."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar
from uuid import UUID

import typer
from rich.markup import escape
from rich.table import Table

from mallbots.console import MallConsole
from mallbots.options import DEFAULT_DATA_DIR, DataDir
from mallbots.settings import Settings

if TYPE_CHECKING:
    from consumers.notifications.messages import NotificationView
    from consumers.notifications.service import Notifications

Result = TypeVar("Result")

app = typer.Typer(help="What customers were told of their orders.", no_args_is_help=True)


@app.command("list")
def list_notifications(
    *,
    failed: Annotated[bool, typer.Option("--failed", help="Only those that could not be sent.")] = False,
    count: Annotated[int, typer.Option(min=1, help="At most so many, the newest first.")] = 50,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """List the notifications, the newest first: what was told to whom, and how far that is."""
    found = _with_notifications(
        Settings.load(data_dir), lambda them: them.newest(count, "failed" if failed else None)
    )
    table = Table("Id", "Of", "Kind", "Order", "Customer", "Status", "Attempts", "Error")
    for one in found:
        table.add_row(
            str(one.id),
            f"{one.created_at:%Y-%m-%d %H:%M:%S}",
            one.kind,
            str(one.order_id),
            escape(one.customer),
            _status(one),
            str(one.attempts),
            escape(one.error or ""),
        )
    MallConsole().print(table)


@app.command()
def resend(
    *,
    notification_id: Annotated[
        UUID, typer.Argument(metavar="ID", help="As `mallbots notifications list` has it.")
    ],
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Send a notification again that was sent, or could not be. The running consumers do it within moments."""
    _with_notifications(Settings.load(data_dir), lambda them: them.resend(notification_id))
    MallConsole().say(f"{notification_id} is sent again")


def _status(one: "NotificationView") -> str:
    match one.status:
        case "sent":
            return f"sent {one.sent_at:%Y-%m-%d %H:%M:%S}"
        case "pending":
            return f"due {one.due_at:%Y-%m-%d %H:%M:%S}"
        case "failed":
            return "failed"


def _with_notifications(settings: Settings, use: Callable[["Notifications"], Awaitable[Result]]) -> Result:
    from consumers.notifications.service import Notifications
    from kernel.database import Database

    async def run() -> Result:
        database = Database("notifications", settings.database_url("notifications"), pool_size=1)
        try:
            return await use(Notifications(database))
        finally:
            await database.close()

    return asyncio.run(run())

"""`mallbots desk`. It only reads its options, so that naming the command costs nothing."""

import asyncio
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn
from rich.table import Table

from kernel.wording import format_money
from mallbots.console import MallConsole
from mallbots.options import DEFAULT_DATA_DIR, DataDir
from mallbots.settings import Settings


def desk_command(
    *,
    clerk: Annotated[
        str, typer.Option(help="Who hands over: a service, which gets a key if it has none.")
    ] = "clerk-1",
    concurrency: Annotated[int, typer.Option(min=1, max=100, help="So many orders at a time.")] = 4,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Hand over every order that is ready, as a clerk at the pickup desk would.

    The card's hold is captured for what was really picked; who pays at the desk pays cash and gets change. An
    order is charged once, however often the command runs.

    Exits with 1 if an order that was ready could not be handed over.
    """
    from clients.desk import hand_over_ready

    settings = Settings.load(data_dir)
    console = MallConsole()
    with Progress(BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console) as progress:
        task = progress.add_task("")
        report = asyncio.run(
            hand_over_ready(
                settings,
                clerk=clerk,
                concurrency=concurrency,
                on_start=lambda number: progress.update(task, total=number),
                on_progress=lambda served: progress.advance(task),
            )
        )
    table = Table(title="Desk", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for method, number in report.handed_over.items():
        table.add_row(f"handed over, paid by {method.replace('_', ' ')}", str(number))
    for code, number in report.failed.items():
        table.add_row(f"failed: {code}", str(number))
    table.add_row("taken", format_money(report.taken_cents, settings.currency))
    console.print(table)
    raise typer.Exit(report.exit_code)

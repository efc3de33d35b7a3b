"""The load client as people see it: a live display, then a table."""

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from clients.kiosk import Ending
from clients.replay import Basket, ReplayReport, replay
from kernel.messages import IfMissing
from mallbots.settings import Settings


async def replay_with_display(
    console: Console,
    settings: Settings,
    baskets: Sequence[Basket],
    *,
    concurrency: int,
    rate: float | None,
    cards: Sequence[str],
    if_missing: Sequence[IfMissing],
    patience: float,
) -> ReplayReport:
    """As `replay`, and show on `console` how far it is."""
    counts: Counter[str] = Counter()
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TaskProgressColumn(show_speed=True),
        TextColumn("{task.fields[counts]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, refresh_per_second=4) as progress:
        task = progress.add_task("", total=len(baskets), counts="")

        def show(ending: Ending) -> None:
            counts[ending.status] += 1
            told = ", ".join(f"{number} {status}" for status, number in counts.items())
            progress.update(task, advance=1, counts=told)

        return await replay(
            settings,
            baskets,
            concurrency=concurrency,
            rate=rate,
            cards=cards,
            if_missing=if_missing,
            patience=patience,
            on_progress=show,
        )


def summary(report: ReplayReport) -> Table:
    """The report as a table for people."""
    table = Table(title="Replay", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("submitted", str(report.submitted))
    table.add_row("approved", str(report.approved))
    for code, number in report.rejected.items():
        table.add_row(f"rejected: {code}", str(number))
    table.add_row("pending, without an answer", str(report.pending))
    for code, number in report.failed.items():
        table.add_row(f"failed: {code}", str(number))
    table.add_row("answered from before", str(report.answered_before), end_section=True)
    table.add_row("seconds", f"{report.seconds:.1f}")
    table.add_row("orders/s", f"{report.orders_per_second:.1f}")
    if report.latency_ms is not None:
        for name, milliseconds in report.latency_ms:
            table.add_row(f"answered within, {name}", f"{milliseconds:.0f} ms")
    return table

"""`mallbots audit`. It only reads its options, so that naming the command costs nothing."""

import asyncio
from typing import TYPE_CHECKING

import typer
from rich.table import Table

from mallbots.console import MallConsole
from mallbots.options import DEFAULT_DATA_DIR, DataDir
from mallbots.settings import Settings

if TYPE_CHECKING:
    from mallbots.audit import AuditReport


def audit_command(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Hold the mall's promises against the data of every domain and of Temporal. Changes nothing.

    Exits with 1 if one is broken, and names the orders (or products, or streams) that break it.
    """
    report = asyncio.run(_audit(Settings.load(data_dir)))
    console = MallConsole()
    console.print(_table(report))
    for finding in report.findings:
        console.say(f"{finding.subject}: {finding.promise}: {finding.detail}")
    raise typer.Exit(0 if report.clean else 1)


async def _audit(settings: Settings) -> "AuditReport":
    from mallbots.audit import audit

    try:
        return await audit(settings)
    finally:
        # A process that used a Temporal client may otherwise abort while the interpreter ends
        # (temporalio/sdk-python#300).
        await asyncio.sleep(0.05)


def _table(report: "AuditReport") -> Table:
    from mallbots.audit import PROMISES

    table = Table("Promise", "Checked", "Broken", caption=f"{report.under_way} orders live, {report.stuck} stuck")
    for column in table.columns[1:]:
        column.justify = "right"
    for promise in PROMISES:
        broken = sum(finding.promise == promise for finding in report.findings)
        style = "red" if broken else "green"
        table.add_row(promise, str(report.checked[promise]), f"[{style}]{broken}[/{style}]")
    return table

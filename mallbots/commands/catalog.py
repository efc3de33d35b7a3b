"""`mallbots catalog`. It only reads its options, so that naming the command costs nothing."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from mallbots.console import MallConsole
from mallbots.options import DEFAULT_DATA_DIR, DataDir
from mallbots.settings import Settings

if TYPE_CHECKING:
    from domains.stores.messages import CatalogImport, CatalogLine

app = typer.Typer(help="The products that the mall sells.", no_args_is_help=True)


@app.callback()
def catalog() -> None:
    """The products that the mall sells."""


@app.command("import")
def import_command(
    *,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="Products, a JSON object a line.")],
    stock: Annotated[
        int | None,
        typer.Option(min=0, max=1_000_000, help="Top up each product to so many pieces on the shelf."),
    ] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Add or change the products of a file: all of them, or none if any line is bad.

    A line is `{"sku": "tea-1", "store": "Grocery", "name": "Tea", "brand": "Ours", "price_cents": 450}`.
    The same file again changes nothing.
    """
    from domains.stores.catalog import read_catalog

    settings = Settings.load(data_dir)
    console = MallConsole()
    done = asyncio.run(_import(console, settings, read_catalog(file), stock))
    console.say(
        f"{done.stores_opened} stores opened, {done.products_added} products added, "
        f"{done.products_renamed} renamed, {done.prices_changed} prices changed, "
        f"{done.alternatives_changed} alternatives changed, {done.stock_received} pieces received"
    )


async def _import(
    console: MallConsole, settings: Settings, lines: "list[CatalogLine]", stock: int | None
) -> "CatalogImport":
    from domains.stores.catalog import import_catalog
    from kernel.database import Database

    database = Database("stores", settings.database_url("stores"), pool_size=1)
    columns = (TextColumn("importing"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        with Progress(*columns, console=console) as progress:
            task = progress.add_task("importing", total=len(lines))
            return await import_catalog(
                database,
                lines,
                currency=settings.currency,
                stock=stock,
                progress=lambda completed: progress.update(task, completed=completed),
            )
    finally:
        await database.close()

"""`mallbots replay`. It only reads its options, so that naming the command costs nothing."""

import asyncio
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from mallbots.console import MallConsole
from mallbots.options import DEFAULT_DATA_DIR, DataDir
from mallbots.settings import Settings


class Wish(StrEnum):
    """What to do about a missing item."""

    SKIP = "skip"
    SUBSTITUTE = "substitute"
    CANCEL = "cancel"


def replay_command(
    *,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="Baskets, a JSON object a line.")],
    count: Annotated[int | None, typer.Option(min=1, help="Only so many of them, from the first.")] = None,
    rate: Annotated[
        float | None, typer.Option(min=0.01, help="Send so many a second, however long the answers take.")
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(min=1, max=1000, help="Send so many at a time; 8 if no rate is given."),
    ] = None,
    card: Annotated[
        list[str] | None,
        typer.Option(help="Card token to pay with (tok_approved); given again, they are dealt in turn."),
    ] = None,
    if_missing: Annotated[
        list[Wish] | None,
        typer.Option(help="What lines say of missing items (skip); given again, they are dealt in turn."),
    ] = None,
    patience: Annotated[
        float, typer.Option(min=1, help="Seconds to wait for an order's answer, retries included.")
    ] = 60.0,
    out: Annotated[Path | None, typer.Option(dir_okay=False, help="Write the report there, as JSON.")] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Order recorded baskets through the API, as kiosks would.

    A basket is ordered once, however often it is sent: the same file again gets the same answers.

    Exits with 1 if an order failed without a business reason, or has no answer when the patience is over.
    """
    from clients.replay import read_baskets
    from mallbots.commands.replay_display import replay_with_display, summary

    if rate is not None and concurrency is not None:
        raise typer.BadParameter("give either --rate or --concurrency")
    console = MallConsole()
    baskets = read_baskets(file, count)
    report = asyncio.run(
        replay_with_display(
            console,
            Settings.load(data_dir),
            baskets,
            concurrency=concurrency or 8,
            rate=rate,
            cards=card or ["tok_approved"],
            if_missing=[wish.value for wish in if_missing or [Wish.SKIP]],
            patience=patience,
        )
    )
    console.print(summary(report))
    for failure in report.failures:
        console.say(f"basket {failure.basket_id}: {failure.code}: {failure.detail}")
    if out is not None:
        out.write_text(report.model_dump_json(indent=2) + "\n")
    raise typer.Exit(report.exit_code)

"""`mallbots mend`. It only reads its options, so that naming the command costs nothing."""

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from kernel.wording import count
from mallbots.console import MallConsole
from mallbots.options import DEFAULT_DATA_DIR, DataDir
from mallbots.settings import Settings

if TYPE_CHECKING:
    from mallbots.mending import Mended


def mend_command(
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what there is to mend, and how.")] = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Bring orders and workflows together again, where a restored database and a restored Temporal differ.

    For what `mallbots audit` finds of that, an order at a time: a workflow that is lost is begun anew, one that is
    ahead of the database does its steps again, one that has not heard of its order's end comes to the same.
    What a lost one was ending is ended: paid orders are completed, half undone ones undone, refunds paid.
    `docs/backup.md` says more. Exits with 1 if something is left: run it again for that, nothing is done twice.
    """
    console = MallConsole()

    def tell(mended: "Mended") -> None:
        from mallbots.mending import ACTS

        trouble = f" – not yet: {mended.trouble}" if mended.trouble else ""
        console.say(f"{mended.order_id}: {ACTS[mended.act]}{trouble}")

    async def work() -> Counter[bool]:
        from mallbots.mending import mend

        try:
            return await mend(Settings.load(data_dir), only_say=dry_run, told=tell)
        finally:
            # A process that used a Temporal client may otherwise abort while the interpreter ends
            # (temporalio/sdk-python#300).
            await asyncio.sleep(0.05)

    outcomes = asyncio.run(work())
    done = "to mend" if dry_run else "mended"
    console.say(f"{count(outcomes[True], 'order')} {done}, {outcomes[False]} left")
    raise typer.Exit(1 if outcomes[False] else 0)

"""`mallbots versions`: the versions of the workflows' code that run side by side. It only reads its options."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.table import Table

from kernel.errors import InvalidInput
from mallbots.console import MallConsole
from mallbots.options import DEFAULT_DATA_DIR, DataDir
from mallbots.settings import Settings

if TYPE_CHECKING:
    from workflows.versions import Versions

Result = TypeVar("Result")

app = typer.Typer(
    help="The versions of the workflows that run side by side.",
    no_args_is_help=True,
    epilog="A worker with `MALLBOTS_WORKER_BUILD_ID` is of that version. An order stays on the version that began "
    "it; new ones go to the version that was promoted last.",
    rich_markup_mode="markdown",
)


@app.command("list")
def list_versions(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """List every version: what it is, how many orders run on it, how many workers it has, and what may be done."""
    table = Table("Build", "State", "Since", "Orders", "Workers", "")
    for one in _with_versions(data_dir, lambda versions: versions.find()):
        since = f"{one.since:%Y-%m-%d %H:%M:%S}" if one.since else ""
        build = one.build_id or "(without)"
        table.add_row(build, one.state, since, str(one.running), str(one.workers), one.advice)
    MallConsole().print(table)


@app.command()
def promote(
    *,
    build: Annotated[
        str | None, typer.Argument(metavar="BUILD", help="The build id of the version.", show_default=False)
    ] = None,
    unversioned: Annotated[
        bool, typer.Option("--unversioned", help="Let workers without a build id take new orders instead.")
    ] = False,
    wait: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="How long a worker of it is waited for.")
    ] = 30,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Let a version take new orders. What another version has begun stays there.

    What workers without a build id have begun goes on on the version that is promoted. To go back, promote the
    version of before: what the bad one has begun stays on it.
    """
    if (build is None) != unversioned:
        raise InvalidInput("say which build is promoted, or --unversioned")
    patience = timedelta(seconds=wait)
    before = _with_versions(data_dir, lambda versions: versions.promote(build, patience=patience))
    console, name = MallConsole(), build or "workers without a build id"
    if before == build:
        console.say(f"new orders go to {name}, as before")
    else:
        console.say(f"new orders go to {name}" + (f"; those of {before} stay there" if before else ""))


def _with_versions(data_dir: Path, use: "Callable[[Versions], Awaitable[Result]]") -> Result:
    from mallbots.temporal import connect
    from workflows.versions import Versions

    settings = Settings.load(data_dir)

    async def run() -> Result:
        client = await connect(settings)
        try:
            return await use(Versions(client, settings.worker_deployment))
        finally:
            # Without this pause a process that used a Temporal client may abort while the interpreter ends
            # (temporalio/sdk-python#300).
            await asyncio.sleep(0.05)

    return asyncio.run(run())

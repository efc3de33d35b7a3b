"""`mallbots backup` and `mallbots restore`. They only read their options."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.filesize import decimal
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from mallbots.console import MallConsole
from mallbots.options import DEFAULT_DATA_DIR, DataDir


def backup_command(
    target: Annotated[
        Path,
        typer.Argument(metavar="FILE|DIR", help="The file to write, or a directory for a new one in it."),
    ],
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Write all that the embedded mall knows to one file: databases, sagas, keys, passwords.

    The mall may go on: Temporal stands still while PostgreSQL is copied, a second or a few, and orders wait.
    The file holds secrets, and only its owner may read it. `docs/backup.md` says what to back up in production.
    """
    from mallbots.backup import back_up

    console = MallConsole()
    with _progress(console) as tell:
        written = back_up(data_dir, target.absolute(), tell)
    console.say(f"{written} ({decimal(written.stat().st_size)})")


def restore_command(
    archive: Annotated[
        Path, typer.Argument(metavar="FILE", help="A backup by `mallbots backup`.", exists=True, dir_okay=False)
    ],
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Bring a backup to a new data directory, from which `mallbots up` goes on.

    A directory that holds anything is left alone. Afterwards `mallbots audit` says whether all is well.
    """
    from mallbots.backup import restore

    console = MallConsole()
    with _progress(console) as tell:
        manifest = restore(archive.absolute(), data_dir, tell)
    console.say(f"{data_dir} is as the mall was at {manifest.made_at:%Y-%m-%d %H:%M:%S} UTC")
    console.say(f"open it with `mallbots up --data-dir {data_dir}`, and then run `mallbots audit` on it")


@contextmanager
def _progress(console: MallConsole) -> Iterator[Callable[[str, int, int], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        tasks = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what)
            progress.update(tasks[what], completed=done, total=total or None)

        yield tell

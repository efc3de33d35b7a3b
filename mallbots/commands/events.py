"""`mallbots events`: what happened, as it happens, and who has heard of it. It only reads its options."""

import asyncio
import json
from collections import Counter
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer
from rich.filesize import decimal
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from kernel.errors import NotFound, Unavailable
from kernel.messages import DomainName
from mallbots.console import MallConsole, complain
from mallbots.options import DEFAULT_DATA_DIR, DataDir, Publisher
from mallbots.settings import Settings

if TYPE_CHECKING:
    from consumers.watch import Progress as HowFar
    from events.dead_letters import DeadLetter
    from events.recorded import RecordedEvent

app = typer.Typer(help="What happened, as it happens, and who has heard of it.", no_args_is_help=True)


@app.command()
def show(
    *,
    stream: Annotated[str, typer.Argument(metavar="STREAM", help="Its name, such as `order-01a2…`.")],
    version: Annotated[int | None, typer.Option(min=1, help="Only up to this version.")] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Print the events of a stream and, where the state is made from them, what they come to.

    Orders and Payments are event-sourced: `order-…` and `payment-…` show their fold, at any version.
    """
    from mallbots.event_views import show_stream

    shown = asyncio.run(show_stream(Settings.load(data_dir), stream, version))
    table = Table(
        "Version", "Recorded at", "Event", "Schema", "Caused by", "Data", title=stream, title_justify="left"
    )
    for event in shown.events:
        at = f"{event.recorded_at:%Y-%m-%d %H:%M:%S.%f}"
        caused_by = escape(event.causation_id or "")
        data = escape(json.dumps(event.fields(), indent=1, ensure_ascii=False))
        table.add_row(str(event.version), at, event.type, str(event.schema_version), caused_by, data)
    console = MallConsole()
    console.print(table)
    if shown.fold is not None:
        console.say(f"at version {shown.events[-1].version}:")
        console.print_json(shown.fold.model_dump_json(exclude_none=True))


@app.command()
def tail(
    *,
    order: Annotated[UUID | None, typer.Option(help="Only the events of this order, from its first.")] = None,
    event_type: Annotated[str | None, typer.Option("--type", help="Only events of this type.")] = None,
    after: Annotated[int | None, typer.Option(min=0, help="Begin behind this position in the stream.")] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Print events as they come, one a line, until Ctrl-C.

    A line begins with its position in the stream: `--after` goes on from there.
    """
    with suppress(KeyboardInterrupt):
        asyncio.run(_tail(Settings.load(data_dir), order, event_type, after))


@app.command()
def status(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Say how far each relay and each consumer is behind, and how many dead letters there are."""
    from mallbots.event_views import all_dead_letters, consumer_progress, relay_progress

    settings = Settings.load(data_dir)
    console = MallConsole()
    table = Table("Reader", "Domain", "Events waiting", "The oldest since", "Dead letters")
    for column in table.columns[2:]:
        column.justify = "right"
    letters = asyncio.run(all_dead_letters(settings))
    for one in (*asyncio.run(relay_progress(settings)), *asyncio.run(consumer_progress(settings))):
        table.add_row(*_progress(one, letters))
    console.print(table)


@app.command("dead-letters")
def list_dead_letters(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """List the events that a consumer could not handle, and those that wait behind them in their streams."""
    from mallbots.event_views import all_dead_letters

    table = Table("Consumer", "Event", "Subject", "Attempts", "Set aside", "Error")
    for letter in asyncio.run(all_dead_letters(Settings.load(data_dir))):
        error = escape(letter.error) if letter.error else "waits for an earlier one"
        at = f"{letter.set_aside_at:%Y-%m-%d %H:%M:%S}"
        table.add_row(letter.consumer, str(letter.event_id), letter.subject, str(letter.attempts), at, error)
    MallConsole().print(table)


@app.command()
def retry(
    *,
    consumer: Annotated[str | None, typer.Option(help="Only the dead letters of this consumer.")] = None,
    event: Annotated[UUID | None, typer.Option(help="Only this event, and what waits behind it.")] = None,
    patience: Annotated[float, typer.Option(min=0, help="Seconds to wait for what comes of it.")] = 15.0,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Send dead letters again to the consumers that could not handle them: all, or those that are named.

    Exits with 1 if one failed again, or if no process of its consumer took it up in time.
    """
    from mallbots.event_views import retry_dead_letters

    console = MallConsole()
    try:
        retried = asyncio.run(retry_dead_letters(Settings.load(data_dir), consumer, event, patience))
    except NotFound:
        if consumer is not None or event is not None:
            raise
        console.say("there are no dead letters")
        return
    console.say(f"{retried.handled} handled, {len(retried.failed)} failed again, {retried.not_taken} not taken up")
    for letter in retried.failed:
        console.say(f"{letter.consumer}: {letter.event_id} {letter.subject}: {letter.error}")
    if retried.not_taken:
        console.say("what is not taken up stays asked for: is the consumer running?")
    raise typer.Exit(1 if retried.failed or retried.not_taken else 0)


@app.command()
def archive(
    *,
    keep_months: Annotated[
        int, typer.Option(min=1, help="How many whole months stay in the table, besides the current one.")
    ] = 3,
    domain: Annotated[
        list[Publisher] | None, typer.Option(help="Only the events of this domain; may be repeated.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what there is to move.")] = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Move old events out of the domains' busy tables into the archive, where each month has a partition.

    Whoever reads events finds them there, too; nothing is deleted. It works beside everything else, may be stopped
    at any time, and goes on when it is called again. Only what is published is moved.
    """
    settings = Settings.load(data_dir)
    console = MallConsole()
    table = Table("Domain", "Month", "Events to move" if dry_run else "Events moved", "Size of the month")
    for column in table.columns[2:]:
        column.justify = "right"
    stay = []
    for name in [one.value for one in domain or Publisher]:
        moved, sizes, events_size = asyncio.run(_archive(console, settings, name, keep_months, dry_run))
        for month, number in moved.items():
            table.add_row(name, f"{month:%Y-%m}", f"{number:,}", sizes.get(month, ""))
        stay.append(f"{name} {events_size}")
    console.print(table)
    console.say(f"the tables that are written to: {', '.join(stay)}; autovacuum makes room in them")


async def _archive(
    console: MallConsole, settings: Settings, domain: DomainName, keep_months: int, dry_run: bool
) -> tuple[dict[datetime, int], dict[datetime, str], str]:
    """How many events moved, or would, by month; how large their months and the table are then."""
    from events.archive import Archive, Months, first_kept, partition_of
    from kernel.database import Database
    from kernel.ids import now

    before = first_kept(now(), keep_months)
    # To count may take a while where the table is large.
    database = Database(domain, settings.database_url(domain), pool_size=1, statement_timeout=600)
    columns = (TextColumn(f"archiving {domain}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        events = Archive(domain, database)
        moved: Counter[datetime] = Counter(await events.waiting(before))
        if moved and not dry_run:
            with Progress(*columns, console=console) as progress:
                task = progress.add_task(domain, total=moved.total())
                moved.clear()

                def tell(months: Months) -> None:
                    moved.update(months)
                    progress.update(task, completed=moved.total())

                await events.move(before, tell)
        sizes = await events.sizes()
    finally:
        await database.close()
    of_months = {month: decimal(sizes.partitions.get(partition_of(month), 0)) for month in moved}
    return dict(moved), of_months, decimal(sizes.events)


async def _tail(settings: Settings, order: UUID | None, event_type: str | None, after: int | None) -> None:
    from mallbots.event_views import tail as follow

    console = MallConsole()
    told = ""
    async for event in follow(settings, order_id=order, event_type=event_type, after=after):
        if isinstance(event, Unavailable):
            if event.message != told:
                told = event.message
                complain(f"{told}; waiting for it")
            continue
        told = ""
        console.say(_line(event))


def _line(event: "RecordedEvent") -> str:
    at = f"{event.recorded_at:%H:%M:%S.%f}"[:-3]
    return (
        f"{event.sequence} {at} {event.domain} {event.type} {event.stream} v{event.version} {event.data.decode()}"
    )


def _progress(progress: "HowFar", letters: "list[DeadLetter]") -> list[str]:
    dead = sum(
        letter.consumer == progress.reader and f".{progress.domain}." in letter.subject for letter in letters
    )
    since = f"{progress.seconds:.1f} s" if progress.waiting else ""
    return [progress.reader, progress.domain, str(progress.waiting), since, str(dead or "")]

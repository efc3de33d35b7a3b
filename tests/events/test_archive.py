"""The archive: old events leave the busy table, and nobody who reads events notices."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from domains.depot.messages import ShoppingListCancelled
from domains.orders.messages import ApproveOrder, CompleteOrder, ReadyOrder
from domains.orders.service import Orders
from events.archive import Archive, Months, first_kept, partition_of
from events.log import EventLog
from events.recorded import START, LogPosition, RecordedEvent
from events.stream import connected
from kernel.database import Database
from kernel.errors import ConcurrencyConflict, Conflict, Unavailable
from kernel.ids import new_id, now
from kernel.messages import DomainName
from mallbots.audit_look import Look, _read_orders
from mallbots.cli import app
from mallbots.settings import Settings
from tests.conftest import create_database
from tests.events.log import STORE, all_published, assert_once_and_in_order, recorded, relay, running, write
from tests.nats import NatsServer
from tests.samples import place, priced

OLDEST = datetime(2025, 3, 20, tzinfo=UTC)
BEFORE = datetime(2025, 6, 1, tzinfo=UTC)
MARCH, APRIL, MAY = (datetime(2025, month, 1, tzinfo=UTC) for month in (3, 4, 5))


async def run(database: Database, statement: str, **values: Any) -> Any:
    async with database.transaction() as connection:
        found = await connection.execute(text(statement), values)
        return found.all() if found.returns_rows else []


async def is_published(database: Database, domain: DomainName = "depot") -> None:
    """The relay has published everything that there is."""
    await run(
        database,
        f"INSERT INTO {domain}.relay_position (id, stream_created_at, transaction_id, position)"
        f" SELECT 1, now(), transaction_id, position FROM {domain}.events"
        " ORDER BY transaction_id DESC, position DESC LIMIT 1 ON CONFLICT (id) DO UPDATE SET"
        " transaction_id = excluded.transaction_id, position = excluded.position",
    )


async def make_old(database: Database, domain: DomainName = "depot", days: int = 10) -> None:
    """Let all events be old: so many days lie between one and the next."""
    await run(
        database,
        f"UPDATE {domain}.events SET recorded_at = CAST(:oldest AS timestamptz) + number * interval '1 day'"
        f" FROM (SELECT position, {days} * (row_number() OVER (ORDER BY transaction_id, position) - 1) AS number"
        f" FROM {domain}.events) AS numbered WHERE events.position = numbered.position",
        oldest=OLDEST,
    )
    await is_published(database, domain)


async def where(database: Database, stream: UUID) -> str:
    """Where each event of a list is, in the order of versions: in the `a`rchive or the `t`able."""
    tables = " UNION ALL ".join(
        f"SELECT version, '{sign}' AS sign FROM depot.{table} WHERE stream = :stream"
        for sign, table in (("a", "archived_events"), ("t", "events"))
    )
    rows = await run(database, f"{tables} ORDER BY version", stream=f"list-{stream}")
    assert [row.version for row in rows] == list(range(1, len(rows) + 1))
    return "".join(row.sign for row in rows)


async def reasons(database: Database, stream: UUID, until: int | None = None) -> list[str]:
    """The events of a list, as whoever folds them reads them."""
    async with database.transaction() as connection:
        events = await STORE.load(connection, f"list-{stream}", until)
    assert all(isinstance(event, ShoppingListCancelled) for event in events)
    return [event.reason for event in events]  # type: ignore[attr-defined]


async def whole_log(database: Database, limit: int = 3) -> list[RecordedEvent]:
    """Every event of Depot, as a new consumer reads them from the first, some at a time."""
    log, position = EventLog("depot"), START
    events: list[RecordedEvent] = []
    while True:
        async with database.transaction() as connection:
            page = await log.after(connection, position, limit)
        if not page.events and not page.held_back:
            return events
        assert len(page.events) <= limit
        events += page.events
        position = events[-1].position if events else START


async def archive(database: Database, before: datetime = BEFORE, domain: DomainName = "depot") -> dict[str, int]:
    """Archive what was recorded before a time; how many events moved, by month."""
    moved: dict[str, int] = {}

    def tell(months: Months) -> None:
        for month, number in months.items():
            moved[f"{month:%Y-%m}"] = moved.get(f"{month:%Y-%m}", 0) + number

    await Archive(domain, database).move(before, tell)
    return moved


@pytest.fixture(scope="module")
async def own_database(postgres: str, template: str) -> AsyncIterator[Database]:
    """A database of these tests' own."""
    opened = Database("archive", await create_database(postgres, template), pool_size=20)
    yield opened
    await opened.close()


@pytest.fixture
async def mall_database(own_database: Database) -> Database:
    """It, without any event or archived month."""
    for domain in ("orders", "depot"):
        months = "SELECT inhrelid::regclass AS month FROM pg_inherits WHERE inhparent = CAST(:archive AS regclass)"
        for row in await run(own_database, months, archive=f"{domain}.archived_events"):
            await run(own_database, f"DROP TABLE {row.month}")
        await run(own_database, f"DROP TABLE IF EXISTS {domain}.{partition_of(APRIL)}")
        await run(own_database, f"TRUNCATE {domain}.events, {domain}.archived_streams, {domain}.relay_position")
    await run(own_database, "TRUNCATE orders.orders")
    return own_database


@pytest.fixture
async def stream(mall_database: Database) -> UUID:
    """A list with ten events, ten days apart from the twentieth of March on."""
    stream = new_id()
    for number in range(1, 11):
        await write(mall_database, stream, str(number))
    await make_old(mall_database)
    return stream


TEN = [str(number) for number in range(1, 11)]


async def test_an_order_whose_events_are_archived_is_still_folded_and_goes_on(mall_database: Database) -> None:
    orders, command = Orders(mall_database), place()
    await orders.place(command)
    await orders.approve(ApproveOrder(order_id=command.order_id, lines=[priced()], total_cents=900))
    await make_old(mall_database, "orders", days=30)
    view, answer = await orders.view(command.order_id), await orders.answer(command.order_id)
    live, told = await orders.live(), await orders.events_after(command.order_id, 1)

    assert await archive(mall_database, domain="orders") == {"2025-03": 1, "2025-04": 1}

    assert await run(mall_database, "SELECT 1 FROM orders.events") == []
    assert (await orders.view(command.order_id), await orders.answer(command.order_id)) == (view, answer)
    assert (await orders.live(), await orders.events_after(command.order_id, 1)) == (live, told)
    await orders.place(command)  # once more is the same order, and no second one
    await orders.make_ready(ReadyOrder(order_id=command.order_id, pickup_until=now() + timedelta(hours=1)))
    await orders.complete(CompleteOrder(order_id=command.order_id, by="bea"))
    completed = await orders.view(command.order_id)
    assert completed is not None
    assert (completed.status, completed.items) == ("completed", [priced()])
    url = mall_database.engine.url.render_as_string(hide_password=False)
    await _read_orders(Settings(orders_database_url=url), look := Look())
    assert look.orders[command.order_id].story == (
        "OrderPlaced",
        "OrderApproved",
        "OrderReadied",
        "OrderCompleted",
    )
    assert look.gaps == {"orders": []}


async def test_each_event_goes_to_its_month_and_is_read_as_before(mall_database: Database, stream: UUID) -> None:
    before = await whole_log(mall_database)
    assert await archive(mall_database) == {"2025-03": 2, "2025-04": 3, "2025-05": 3}
    assert await where(mall_database, stream) == "aaaaaaaatt"
    for month, number in ((MARCH, 2), (APRIL, 3), (MAY, 3)):
        assert len(await run(mall_database, f"SELECT 1 FROM depot.{partition_of(month)}")) == number
    assert await whole_log(mall_database) == before
    assert await reasons(mall_database, stream) == TEN
    assert await reasons(mall_database, stream, until=5) == TEN[:5]
    assert await reasons(mall_database, stream, until=9) == TEN[:9]
    async with mall_database.transaction() as connection:
        log = EventLog("depot")
        for version in (0, 5, 8, 9, 10):
            assert await log.of_stream(connection, f"list-{stream}", version) == before[version:]
            position = before[version - 1].position if version else START
            assert (await log.waiting(connection, position)).events == 10 - version
    assert await archive(mall_database) == {}


async def test_a_stream_goes_on_behind_what_is_archived(mall_database: Database, stream: UUID) -> None:
    await archive(mall_database, now())
    assert await where(mall_database, stream) == "a" * 10
    await write(mall_database, stream, "11", "12")
    assert await where(mall_database, stream) == "a" * 10 + "tt"
    assert await reasons(mall_database, stream) == [*TEN, "11", "12"]
    assert [event.version for event in await whole_log(mall_database)] == list(range(1, 13))


@pytest.mark.parametrize("seen", [0, 4, 9])
async def test_a_version_that_is_archived_is_not_written_again(
    mall_database: Database, stream: UUID, seen: int
) -> None:
    await archive(mall_database, now())
    async with mall_database.transaction() as connection:
        event = ShoppingListCancelled(order_id=stream, reason="late")
        with pytest.raises(ConcurrencyConflict):
            await STORE.append(connection, f"list-{stream}", seen, [event])


async def test_only_what_is_published_is_archived(mall_database: Database, stream: UUID) -> None:
    fourth = (await whole_log(mall_database))[3].position
    behind = "UPDATE depot.relay_position SET transaction_id = :transaction_id, position = :number"
    await run(mall_database, behind, **fourth._asdict())
    assert sum((await Archive("depot", mall_database).waiting(BEFORE)).values()) == 4
    assert sum((await archive(mall_database)).values()) == 4
    await run(mall_database, "DELETE FROM depot.relay_position")
    assert await archive(mall_database) == {}


async def test_what_follows_an_event_that_stays_stays_too(mall_database: Database, stream: UUID) -> None:
    # A transaction that took long has its number before, and its time behind that of the next.
    await run(mall_database, "UPDATE depot.events SET recorded_at = :at WHERE version = 3", at=BEFORE)
    await archive(mall_database)
    assert await where(mall_database, stream) == "aatttttttt"
    assert await reasons(mall_database, stream) == TEN


async def test_what_an_older_transaction_may_still_precede_is_not_archived(
    mall_database: Database, stream: UUID
) -> None:
    async with mall_database.transaction() as slow:
        await slow.execute(text("SELECT pg_current_xact_id()"))
        await write(mall_database, stream, "11")
        await run(mall_database, "UPDATE depot.events SET recorded_at = :at WHERE version = 11", at=MAY)
        await is_published(mall_database)
        assert sum((await archive(mall_database, now())).values()) == 10
    assert sum((await archive(mall_database, now())).values()) == 1


async def test_archiving_that_was_ended_in_the_middle_goes_on_where_it_was(
    mall_database: Database, stream: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("events.archive.BATCH", 3)
    batches = count(1)

    def end(months: Months) -> None:
        if next(batches) == 2:
            raise KeyboardInterrupt

    with suppress(KeyboardInterrupt):
        await Archive("depot", mall_database).move(BEFORE, end)
    assert await where(mall_database, stream) == "aaaaaatttt"
    assert await reasons(mall_database, stream) == TEN
    assert len(await whole_log(mall_database)) == 10
    await archive(mall_database)
    assert await where(mall_database, stream) == "aaaaaaaatt"


async def test_writers_and_readers_go_on_while_events_are_archived(
    mall_database: Database, own_nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("events.archive.BATCH", 5)
    streams = [new_id() for _ in range(4)]
    written = dict.fromkeys(streams, 0)
    for stream in streams:
        await write(mall_database, stream, *map(str, range(1, 11)))
        written[stream] = 10
    async with running(relay(mall_database, own_nats.url)):
        await all_published(mall_database, own_nats.url)
        await make_old(mall_database, days=2)
        stop = asyncio.Event()

        async def go_on(stream: UUID) -> None:
            """Append to a stream as one that was loaded, or at whatever version it is."""
            while not stop.is_set():
                event = ShoppingListCancelled(order_id=stream, reason=str(written[stream] + 1))
                async with mall_database.transaction() as connection:
                    if written[stream] % 2:
                        seen = len(await STORE.load(connection, f"list-{stream}"))
                        await STORE.append(connection, f"list-{stream}", seen, [event])
                    else:
                        await STORE.record(connection, [(f"list-{stream}", event)])
                written[stream] += 1

        async def read(stream: UUID) -> int:
            """Fold a stream over and over: it never misses or repeats an event."""
            for times in count(1):
                before = written[stream]
                found = await reasons(mall_database, stream)
                assert found == [str(number) for number in range(1, len(found) + 1)]
                assert before <= len(found) <= written[stream] + 1
                if stop.is_set():
                    return times
            raise AssertionError

        async def consume() -> None:
            """Begin at the first event over and over."""
            while not stop.is_set():
                before = sum(written.values())
                events = await whole_log(mall_database, limit=40)
                assert len(events) >= before
                positions = [event.position for event in events]
                assert positions == sorted(set(positions))

        work = [asyncio.create_task(one) for one in (*map(go_on, streams), *map(read, streams), consume())]
        both = await asyncio.gather(*(archive(mall_database) for _ in range(2)))
        stop.set()
        await asyncio.gather(*work)
        assert sum(sum(moved.values()) for moved in both) == 37  # two days each, until the end of May

        # A stream that was lost is filled again, from the archive and the table.
        async with connected(own_nats.url, "test") as nats:
            await nats.jetstream.delete_stream("MALLBOTS")
        await write(mall_database, new_id(), "after it was lost")
        rows = await recorded(mall_database)
        assert len(rows) == sum(written.values()) + 1
        found = await all_published(mall_database, own_nats.url)
    assert_once_and_in_order(found, rows)


async def test_a_month_that_is_detached_is_missed_by_whoever_needs_it_and_by_nobody_else(
    mall_database: Database, stream: UUID
) -> None:
    await archive(mall_database, now())
    await run(mall_database, f"ALTER TABLE depot.archived_events DETACH PARTITION depot.{partition_of(APRIL)}")
    with pytest.raises(Unavailable, match=f"events of list-{stream} are not in the archive: attach"):
        await reasons(mall_database, stream)
    async with mall_database.transaction() as connection:
        assert len(await EventLog("depot").of_stream(connection, f"list-{stream}", 5)) == 5
        with pytest.raises(Unavailable):
            await EventLog("depot").of_stream(connection, f"list-{stream}", 4)
    # Nobody reads past it without noticing, but for who is behind it already.
    with pytest.raises(Unavailable, match="archived_events_2025_04 is detached"):
        await whole_log(mall_database)
    events = await run(
        mall_database, "SELECT transaction_id, position FROM depot.archived_events ORDER BY position"
    )
    async with mall_database.transaction() as connection, mall_database.session() as session:
        log, before, behind = EventLog("depot"), LogPosition(*events[0]), LogPosition(*events[-2])
        assert [event.version for event in (await log.after(connection, behind)).events] == [10]
        assert [event.version for event in (await log.after_on_session(session, behind)).events] == [10]
        with pytest.raises(Unavailable, match="archived_events_2025_04 is detached"):
            await log.after_on_session(session, before)
    # State that is kept in rows needs no history: its events are numbered on.
    await write(mall_database, stream, "11")
    await run(
        mall_database,
        f"ALTER TABLE depot.archived_events ATTACH PARTITION depot.{partition_of(APRIL)}"
        " FOR VALUES FROM ('2025-04-01') TO ('2025-05-01')",
    )
    assert await reasons(mall_database, stream) == [*TEN, "11"]


async def test_more_of_a_month_that_is_detached_is_refused(mall_database: Database, stream: UUID) -> None:
    await archive(mall_database, datetime(2025, 4, 15, tzinfo=UTC))
    await run(mall_database, f"ALTER TABLE depot.archived_events DETACH PARTITION depot.{partition_of(APRIL)}")
    with pytest.raises(Conflict, match="archived_events_2025_04 is detached: attach it again"):
        await archive(mall_database)


async def test_a_month_that_was_renamed_is_done_without(mall_database: Database, stream: UUID) -> None:
    await archive(mall_database, now())
    april = partition_of(APRIL)
    await run(mall_database, f"ALTER TABLE depot.archived_events DETACH PARTITION depot.{april}")
    await run(mall_database, f"ALTER TABLE depot.{april} RENAME TO {april}_dumped")
    assert [event.version for event in await whole_log(mall_database)] == [1, 2, 6, 7, 8, 9, 10]
    await run(mall_database, f"DROP TABLE depot.{april}_dumped")


async def test_what_is_published_meanwhile_stays_until_the_next_time(
    mall_database: Database, stream: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = "SELECT transaction_id, position FROM depot.events ORDER BY position LIMIT 1"
    move = "UPDATE depot.relay_position SET (transaction_id, position) ="
    await run(mall_database, f"{move} ({first})")
    open_month = Archive._open

    async def open_and_be_overtaken(self: Archive, month: datetime) -> None:
        await open_month(self, month)
        await is_published(mall_database)

    monkeypatch.setattr(Archive, "_open", open_and_be_overtaken)
    assert await archive(mall_database) == {"2025-03": 1}
    assert await archive(mall_database) == {"2025-03": 1, "2025-04": 3, "2025-05": 3}


async def test_neither_a_stream_nor_the_log_is_read_without_an_index(
    mall_database: Database, stream: UUID
) -> None:
    await archive(mall_database)
    log, by_stream = EventLog("depot"), {"stream": f"list-{stream}"}
    position = LogPosition(1, 1)._asdict()
    reads: list[tuple[Any, dict[str, Any]]] = [
        (STORE._load, {**by_stream, "until_version": None}),
        (STORE._load_archived, {**by_stream, "last": 8}),
        (STORE._versions, {"streams": [f"list-{stream}"]}),
        (log._of_stream, {**by_stream, "version": 0}),
        (log._of_stream_archived, {**by_stream, "version": 0, "last": 8}),
        (log._from, {**position, "limit": 500}),
        (log._archived, {**position, "limit": 500}),
        (log._waiting, position),
        (text("SELECT * FROM depot.all_events WHERE stream = :stream"), by_stream),
    ]
    for statement, values in reads:
        explain = text(f"EXPLAIN {statement.text}").bindparams(*statement._bindparams.values())
        async with mall_database.transaction() as connection:
            # With so few rows, reading all of them would be cheaper.
            await connection.execute(text("SET LOCAL enable_seqscan = off"))
            plan = "\n".join((await connection.execute(explain, values)).scalars())
        scans, narrowed = len(re.findall("Index (Only )?Scan", plan)), plan.count("Index Cond")
        assert scans == narrowed > 0, plan
        assert "Seq Scan" not in plan, plan


def test_whole_months_stay_besides_the_current_one() -> None:
    assert first_kept(datetime(2026, 5, 17, 8, 30, tzinfo=UTC), 3) == datetime(2026, 2, 1, tzinfo=UTC)
    assert first_kept(datetime(2026, 1, 1, tzinfo=UTC), 1) == datetime(2025, 12, 1, tzinfo=UTC)
    assert first_kept(datetime(2026, 12, 31, tzinfo=UTC), 24) == datetime(2024, 12, 1, tzinfo=UTC)
    with pytest.raises(ValueError, match="at least one"):
        first_kept(now(), 0)


@pytest.fixture
def environment(mall_database: Database, tmp_path: Path) -> dict[str, str]:
    url = mall_database.engine.url.render_as_string(hide_password=False)
    return {"MALLBOTS_DEPOT_DATABASE_URL": url, "MALLBOTS_DATA_DIR": str(tmp_path)}


async def test_operators_see_what_there_is_to_archive_and_what_was(
    mall_database: Database, stream: UUID, environment: dict[str, str]
) -> None:
    async def command(*options: str) -> list[str]:
        arguments = ["events", "archive", "--domain", "depot", *options]
        result = await asyncio.to_thread(CliRunner().invoke, app, arguments, env=environment)
        assert result.exit_code == 0, (result.output, result.exception)
        return [" ".join(line.replace("│", " ").split()) for line in result.output.splitlines()]

    planned = await command("--dry-run")
    assert "Domain ┃ Month ┃ Events to move" in planned[1]
    assert {"depot 2025-03 2 0 bytes", "depot 2025-06 2 0 bytes"} <= set(planned)
    assert await where(mall_database, stream) == "t" * 10
    done = await command("--keep-months", "1")
    assert await where(mall_database, stream) == "a" * 10
    assert any(line.startswith("depot 2025-04 3 ") and line.endswith("kB") for line in done), done
    assert done[-1].startswith("the tables that are written to: depot ")
    assert not any(line.startswith("depot 2025") for line in await command())

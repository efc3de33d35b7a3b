"""What one order costs, from the kiosk to the hand-over: CPU by process, transactions, bytes, Temporal's history.

    mallbots up                                    # in one terminal
    python -m bench.costs [--runs 3] [--orders 100] [--robots 10] [--process NAME=PID …]

Robots of the bench shop recorded baskets; its clerk hands them over. What the mall costs while nobody orders is
measured first and told apart. CPU counts, not time, so a busy machine does little harm; the load itself is not in
it. `--process` counts a process that `mallbots up` did not start. `docs/scaling.md` says what the figures mean.
"""

import argparse
import asyncio
import statistics
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final
from uuid import UUID

import psutil
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn
from sqlalchemy import text
from temporalio.api.enums.v1 import EventType

from clients.desk import hand_over_ready
from clients.replay import Basket, read_baskets, replay
from clients.robots.bot import Habits
from clients.robots.fleet import run_robots
from domains.stores.catalog import import_catalog, read_catalog
from events.consumer import DOMAINS
from events.stream import STREAM, connected
from kernel.database import Database
from kernel.ids import new_id
from mallbots.settings import DATABASES, DatabaseName, Settings
from mallbots.supervisor import running_parts
from mallbots.temporal import connect

DATA: Final = Path(__file__).parent.parent / "tests" / "data"
PLENTY: Final = 100_000
IN_FLIGHT: Final = 8
PATIENCE: Final = 300.0

# A session of PostgreSQL that has nothing to do tells what it did after ten seconds.
_SETTLE = 11.0
_LOOK_EVERY = 2.0

Reading = dict[tuple[str, str], float]
"""What counters stand at, by what they count and of whom."""

CPU: Final = "CPU, ms"
TRANSACTIONS: Final = "transactions"
ROWS: Final = "rows written"
GROWTH: Final = "bytes on disk"
WAL: Final = "bytes of WAL"
MESSAGES: Final = "messages"
BYTES: Final = "bytes"

_COMMITS = text(
    "SELECT xact_commit + xact_rollback, tup_inserted + tup_updated + tup_deleted,"
    " pg_database_size(datname), pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')"
    " FROM pg_stat_database WHERE datname = current_database()"
)
_READY = text("SELECT count(*) FROM orders.orders WHERE customer = :customer AND status <> 'approved'")
_COMPLETED = text("SELECT id FROM orders.orders WHERE customer = :customer AND status = 'completed'")

_ACTIONS: Final = frozenset(
    (
        EventType.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED,
        EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED,
        EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED,
        EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED,
        EventType.EVENT_TYPE_TIMER_STARTED,
        EventType.EVENT_TYPE_UPSERT_WORKFLOW_SEARCH_ATTRIBUTES,
    )
)
"""What Temporal Cloud bills, as far as a history shows it."""


class Meter:
    """Reads every counter of a running mall. `others` are processes besides those of `mallbots up`.

    `homes` is the database of each of ours by name; some may be one.
    """

    def __init__(self, settings: Settings, others: Mapping[str, psutil.Process]) -> None:
        self._settings = settings
        self._processes = {**running_parts(settings.data_dir), **others}
        self.homes: dict[str, Database] = {}
        self._databases: dict[str, Database] = {}
        homes: dict[str, list[DatabaseName]] = {}
        for name in DATABASES:
            homes.setdefault(settings.database_url(name), []).append(name)
        for url, names in homes.items():
            label = "all others" if len(names) > len(DATABASES) / 2 else ", ".join(names)
            self._databases[label] = database = Database(label, url, pool_size=1)
            self.homes |= dict.fromkeys(names, database)

    async def read(self) -> Reading:
        """What the counters stand at now: CPU in milliseconds, the rest in pieces or bytes."""
        reading: Reading = {(CPU, name): _cpu(process) for name, process in self._processes.items()}
        for label, database in self._databases.items():
            async with database.transaction() as connection:
                row = (await connection.execute(_COMMITS)).one()
            reading |= dict(zip(((kind, label) for kind in (TRANSACTIONS, ROWS, GROWTH)), row, strict=False))
            # Of the whole server: databases on the same one say the same.
            reading[WAL, "PostgreSQL"] = float(row[3])
        async with connected(self._settings.nats_address(), "bench") as nats:
            state = (await nats.jetstream.stream_info(STREAM)).state
            reading |= {(MESSAGES, "NATS"): state.messages, (BYTES, "NATS"): state.bytes}
        return {key: float(value) for key, value in reading.items()}

    def memory(self) -> dict[str, float]:
        """Megabytes that each process holds now with its children, what they share counted once."""
        return {name: _memory(process) / 1e6 for name, process in self._processes.items()}

    async def close(self) -> None:
        """Let go of the databases."""
        for database in self._databases.values():
            await database.close()


def _cpu(process: psutil.Process) -> float:
    """Milliseconds of CPU of a process and all its children, of those that have ended too."""
    times = process.cpu_times()
    own = times.user + times.system + times.children_user + times.children_system
    return own * 1000 + sum(_cpu(child) for child in process.children())


def _memory(process: psutil.Process) -> float:
    return float(process.memory_full_info().pss) + sum(map(_memory, process.children()))


def rate(before: Reading, after: Reading, seconds: float) -> Reading:
    """What each counter gained a second."""
    return {key: (after[key] - before[key]) / seconds for key in after}


async def run(runs: int, orders: int, robots: int, others: Mapping[str, psutil.Process]) -> None:
    """Measure the idle mall, then some runs of orders, and print the medians as Markdown."""
    settings = Settings.load()
    stores = Database("stores", settings.database_url("stores"), pool_size=1)
    lines = read_catalog(DATA / "catalog.jsonl")
    await import_catalog(stores, lines, currency=settings.currency, stock=PLENTY)
    await stores.close()
    meter = Meter(settings, others)
    fleet = asyncio.create_task(run_robots(settings, count=robots, prefix="bench", habits=Habits(speed=20)))
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        with Progress("{task.description}", *columns, transient=True) as progress:
            task = progress.add_task("looking at the idle mall", total=2 * runs * orders)
            await asyncio.sleep(_SETTLE)
            began, before = time.monotonic(), await meter.read()
            await asyncio.sleep(3 * _SETTLE)
            idle = rate(before, await meter.read(), time.monotonic() - began)
            costs, sagas = [], []
            for number in range(runs):
                progress.update(task, description=f"run {number + 1}")
                customer = f"bench-{new_id()}"
                began, before = time.monotonic(), await meter.read()
                await order_all(settings, meter, _baskets(orders, customer), progress, customer)
                after, lasted = await meter.read(), time.monotonic() - began
                costs.append({key: (after[key] - before[key] - idle[key] * lasted) / orders for key in after})
                sagas.append(await look_at_sagas(settings, meter, customer))
            memory = meter.memory()
    finally:
        fleet.cancel()
        await asyncio.gather(fleet, return_exceptions=True)
        await meter.close()
    Console(width=200).print(_report(idle, costs, sagas, memory), highlight=False, markup=False)
    await asyncio.sleep(0.05)  # see mallbots.temporal.connect


def _baskets(count: int, customer: str) -> list[Basket]:
    recorded = read_baskets(DATA / "baskets.jsonl")
    return [
        recorded[number % len(recorded)].model_copy(
            update={"basket_id": f"{customer}-{number}", "kiosk": "bench", "customer": customer}
        )
        for number in range(count)
    ]


async def order_all(
    settings: Settings, meter: Meter, baskets: Sequence[Basket], progress: Progress, customer: str
) -> None:
    """Take these baskets from the kiosk to the hand-over, and wait until everybody has heard of it."""
    task = progress.task_ids[0]
    report = await replay(
        settings,
        baskets,
        concurrency=IN_FLIGHT,
        patience=PATIENCE,
        on_progress=lambda ending: progress.advance(task),
    )
    assert report.approved == len(baskets), report
    deadline = time.monotonic() + PATIENCE
    while await _count(meter, customer) < len(baskets):
        assert time.monotonic() < deadline, "the robots take too long"
        await asyncio.sleep(_LOOK_EVERY)
    await hand_over_ready(settings, clerk="bench", on_progress=lambda served: progress.advance(task))
    await asyncio.sleep(_SETTLE)


async def _count(meter: Meter, customer: str) -> int:
    async with meter.homes["orders"].transaction() as connection:
        return int(await connection.scalar(_READY, {"customer": customer}) or 0)


async def look_at_sagas(settings: Settings, meter: Meter, customer: str) -> dict[str, float]:
    """Of this customer's completed orders, on average: what a saga has in Temporal, and what events it left."""
    async with meter.homes["orders"].transaction() as connection:
        ids: list[UUID] = list(await connection.scalars(_COMPLETED, {"customer": customer}))
    total: Counter[str] = Counter()
    temporal = await connect(settings)
    for order_id in ids:
        handle = temporal.get_workflow_handle(f"order-{order_id}")
        info = (await handle.describe()).raw_description.workflow_execution_info
        total["Temporal: events of the history"] += info.history_length
        total["Temporal: bytes of the history"] += info.history_size_bytes
        total["Temporal: state transitions"] += info.state_transition_count
        history = await handle.fetch_history()
        total["Temporal: actions, as Temporal Cloud bills them"] += sum(
            event.event_type in _ACTIONS for event in history.events
        )
    for domain in DOMAINS:
        async with meter.homes[domain].transaction() as connection:
            events = text(
                f"SELECT count(*) AS rows, coalesce(sum(pg_column_size(event.*)), 0) AS bytes"
                f" FROM {domain}.events AS event WHERE correlation_id = ANY(:ids)"
            )
            row = (await connection.execute(events, {"ids": ids})).one()
        total[f"{domain}.events: rows"] += int(row.rows)
        total[f"{domain}.events: bytes, without indexes"] += int(row.bytes)
    return {name: number / len(ids) for name, number in total.items()} | {"orders completed": len(ids)}


def _report(
    idle: Reading, costs: Sequence[Reading], sagas: Sequence[Mapping[str, float]], memory: Mapping[str, float]
) -> str:
    lines = [f"Medians of {len(costs)} runs.", "", "| what | of whom | an order | idle, a second |"]
    lines.append("| --- | --- | ---: | ---: |")
    totals: dict[str, list[float]] = {}
    for key in sorted(idle, key=lambda key: (key[0] != CPU, key[0])):
        cost = statistics.median(one[key] for one in costs)
        lines.append(f"| {key[0]} | {key[1]} | {_figure(cost)} | {_figure(idle[key])} |")
        total = totals.setdefault(key[0], [0.0, 0.0])
        total[0], total[1] = total[0] + cost, total[1] + idle[key]
    lines += [f"| **{kind}** | all | {_figure(cost)} | {_figure(rest)} |" for kind, (cost, rest) in totals.items()]
    lines += ["", "| a completed order | on average |", "| --- | ---: |"]
    lines += [f"| {name} | {_figure(statistics.median(one[name] for one in sagas))} |" for name in sagas[0]]
    lines += ["", "| memory after that | MB |", "| --- | ---: |"]
    lines += [f"| {name} | {megabytes:.0f} |" for name, megabytes in memory.items()]
    return "\n".join(lines)


def _figure(number: float) -> str:
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.1f}"


def _process(value: str) -> tuple[str, psutil.Process]:
    name, _, pid = value.partition("=")
    return name, psutil.Process(int(pid))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--orders", type=int, default=100)
    parser.add_argument("--robots", type=int, default=10)
    parser.add_argument("--process", type=_process, action="append", default=[])
    options = parser.parse_args()
    asyncio.run(run(options.runs, options.orders, options.robots, dict(options.process)))

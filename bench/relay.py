"""How long an event takes from its commit to a subscriber, through the relay and JetStream.

    mallbots up                                    # in one terminal
    python -m bench.relay [--rounds 3] [--events 100]

An event is committed, and the clock runs from just before the commit until a subscriber has it; then the next. The
machine should be idle: this is the way itself, not the queue before it.
"""

import argparse
import asyncio
import statistics
import time
from contextlib import aclosing
from uuid import UUID

from rich.console import Console
from rich.progress import track
from rich.table import Table

from bench.saga import SKU, stock_the_shelf
from domains.stores.messages import ProductRenamed
from domains.stores.service import STORE
from events.stream import connected, follow, last_sequence
from kernel.database import Database
from mallbots.settings import Settings


async def measure(database: Database, arrivals: "asyncio.Queue[tuple[UUID, float]]", events: int) -> list[float]:
    """Milliseconds from the commit to the subscriber, for each event."""
    taken = []
    for number in range(events):
        async with database.transaction() as connection:
            renamed = ProductRenamed(sku=SKU, name=f"Nothing, for the {number}. time", brand="Bench")
            await STORE.record(connection, [(f"product-{SKU}", renamed)])
            committing = time.perf_counter()
        _, arrived = await asyncio.wait_for(arrivals.get(), 10)
        taken.append((arrived - committing) * 1000)
    return taken


async def run(rounds: int, events: int) -> None:
    """Measure some rounds and print the median of their percentiles."""
    settings = Settings.load()
    await stock_the_shelf(settings)
    database = Database("stores", settings.database_url("stores"), pool_size=1)
    arrivals: asyncio.Queue[tuple[UUID, float]] = asyncio.Queue()
    async with connected(settings.nats_address(), "bench") as nats:
        last = await last_sequence(nats.jetstream)

        async def listen() -> None:
            async with aclosing(follow(nats, last, [f"mallbots.stores.ProductRenamed.product-{SKU}"])) as batches:
                async for batch in batches:
                    for event in batch:
                        arrivals.put_nowait((event.id, time.perf_counter()))

        listening = asyncio.create_task(listen())
        await measure(database, arrivals, 10)  # to warm up
        figures = [await measure(database, arrivals, events) for _ in track(range(rounds), "measuring")]
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
    await database.close()
    table = Table("from commit to subscriber", "p50, ms", "p95, ms", "p99, ms")
    ranks = (0.50, 0.95, 0.99)
    medians = [
        statistics.median(sorted(taken)[int(rank * (len(taken) - 1))] for taken in figures) for rank in ranks
    ]
    table.add_row(f"medians of {rounds} rounds of {events}", *(f"{median:.1f}" for median in medians))
    Console().print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--events", type=int, default=100)
    options = parser.parse_args()
    asyncio.run(run(options.rounds, options.events))

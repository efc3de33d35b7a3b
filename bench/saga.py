"""What an order costs beside the least that Temporal could do: five empty steps on five task queues.

    mallbots up                                    # in one terminal
    python -m bench.saga [--rounds 3] [--orders 60]

Both kinds run in turn, several rounds, on the same running mall. Compare the ratios: machines are noisy.
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from uuid import uuid4

import httpx
from rich.console import Console
from rich.table import Table
from temporalio.client import Client
from temporalio.worker import Worker

from bench.empty_steps import QUEUES, FiveEmptySteps, nothing
from domains.stores.catalog import import_catalog
from domains.stores.messages import CatalogLine
from kernel.database import Database
from mallbots.kept_keys import read_keys
from mallbots.settings import Settings
from mallbots.temporal import connect

IN_FLIGHT = 8
SKU = "bench-nothing"

Submit = Callable[[], Awaitable[None]]


async def measure(submit: Submit, orders: int) -> tuple[float, float]:
    """The median time of one alone in milliseconds, and how many a second with eight in flight."""
    alone = []
    for _ in range(max(orders // 3, 5)):
        began = time.perf_counter()
        await submit()
        alone.append((time.perf_counter() - began) * 1000)
    slots = asyncio.Semaphore(IN_FLIGHT)

    async def one() -> None:
        async with slots:
            await submit()

    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(orders)))
    return statistics.median(alone), orders / (time.perf_counter() - began)


async def run(rounds: int, orders: int) -> None:
    """Measure both kinds in turn and print the medians."""
    settings = Settings.load()
    temporal = await connect(settings)
    await stock_the_shelf(settings)
    key = read_keys(settings, "kiosks")["kiosk-1"]
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=settings.api_url, timeout=60))
        for queue in {*QUEUES}:
            await stack.enter_async_context(Worker(temporal, task_queue=queue, activities=[nothing]))
        await stack.enter_async_context(Worker(temporal, task_queue="bench", workflows=[FiveEmptySteps]))
        kinds: dict[str, Submit] = {
            "five empty steps": lambda: five_empty_steps(temporal),
            "an order": lambda: order(http, key),
        }
        results: dict[str, list[tuple[float, float]]] = {name: [] for name in kinds}
        for _ in range(rounds):
            for name, submit in kinds.items():
                results[name].append(await measure(submit, orders))
    table = Table("medians", "alone, ms", f"{IN_FLIGHT} in flight, /s")
    for name, figures in results.items():
        alone, rate = (statistics.median(column) for column in zip(*figures, strict=True))
        table.add_row(name, f"{alone:.0f}", f"{rate:.1f}")
    Console().print(table)
    await asyncio.sleep(0.05)  # see mallbots.temporal.connect


async def stock_the_shelf(settings: Settings) -> None:
    """A product of our own that never runs out."""
    stores = Database("stores", settings.database_url("stores"), pool_size=1)
    shelf = CatalogLine(sku=SKU, store="Bench", name="Nothing, weightless", price_cents=100)
    await import_catalog(stores, [shelf], currency=settings.currency, stock=1_000_000)
    await stores.close()


async def five_empty_steps(temporal: Client) -> None:
    await temporal.execute_workflow(FiveEmptySteps.run, id=f"bench-{uuid4()}", task_queue="bench")


async def order(http: httpx.AsyncClient, key: str) -> None:
    response = await http.post(
        "/v1/orders",
        headers={"Authorization": f"Bearer {key}", "Idempotency-Key": str(uuid4())},
        json={"items": [{"sku": SKU, "quantity": 1}], "payment": {"method": "card", "token": "tok_approved"}},
    )
    assert response.status_code == httpx.codes.CREATED, response.text


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--orders", type=int, default=60)
    options = parser.parse_args()
    asyncio.run(run(options.rounds, options.orders))

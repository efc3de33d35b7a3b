"""How long an event takes from its commit to staff screens, many of them on one API process, and what that costs.

    mallbots up                                    # in one terminal
    python -m bench.live [--clients 500] [--events 100] [--rate 5]

The clients run here, in one process on the same machine: what they cost is in the time, but not in the API's CPU.
"""

import argparse
import asyncio
import json
import statistics
import time
from contextlib import AsyncExitStack

import psutil
from rich.console import Console
from rich.progress import track
from rich.table import Table
from websockets.asyncio.client import ClientConnection, connect

from api.keys import ApiKeys
from bench.saga import SKU, stock_the_shelf
from domains.stores.messages import ProductRenamed
from domains.stores.service import STORE
from kernel.database import Database
from mallbots.settings import Settings
from mallbots.supervisor import running_parts

NAME = "bench"


async def run(clients: int, events: int, rate: float) -> None:
    """Connect, commit events at a rate, and print when they arrived."""
    settings = Settings.load()
    await stock_the_shelf(settings)
    stores = Database("stores", settings.database_url("stores"), pool_size=1)
    staff = Database("staff", settings.database_url("staff"), pool_size=1)
    key = await ApiKeys(staff, "staff").issue(NAME, ["operator"])
    committing: dict[int, float] = {}
    taken: list[float] = []
    try:
        async with AsyncExitStack() as stack:
            screens = [await stack.enter_async_context(_screen(settings, key)) for _ in range(clients)]
            reading = [asyncio.create_task(_read(screen, events, committing, taken)) for screen in screens]
            api = running_parts(settings.data_dir)["api"]
            cpu, began = _cpu(api), time.perf_counter()
            for number in track(range(events), "committing"):
                await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
                async with stores.transaction() as connection:
                    renamed = ProductRenamed(sku=SKU, name=f"Nothing, told {number}", brand="Bench")
                    await STORE.record(connection, [(f"product-{SKU}", renamed)])
                    committing[number] = time.perf_counter()
            await asyncio.wait_for(asyncio.gather(*reading), 60)
            used = (_cpu(api) - cpu) / (time.perf_counter() - began)
    finally:
        await ApiKeys(staff, "staff").revoke(NAME)
        await stores.close()
        await staff.close()
    assert len(taken) == clients * events
    cuts = statistics.quantiles(taken, n=100)
    table = Table("clients", "events/s", "p50, ms", "p95, ms", "p99, ms", "API's CPU")
    figures = (f"{cuts[rank - 1] * 1000:.0f}" for rank in (50, 95, 99))
    table.add_row(str(clients), f"{rate:g}", *figures, f"{used:.0%} of a core")
    Console().print(table)


def _screen(settings: Settings, key: str) -> connect:
    url = settings.api_url.replace("http", "ws", 1) + "/v1/staff/events?topics=stores"
    headers = {"Authorization": f"Bearer {key}"}
    return connect(url, additional_headers=headers, compression=None, proxy=None)


async def _read(screen: ClientConnection, events: int, committing: dict[int, float], taken: list[float]) -> None:
    """Note how long each of the bench's events took to this screen."""
    seen = 0
    async for message in screen:
        now = time.perf_counter()
        told = json.loads(message)
        if told["type"] == "event" and told["stream"] == f"product-{SKU}":
            number = int(told["data"]["name"].rpartition(" ")[2])
            taken.append(now - committing[number])
            seen += 1
            if seen == events:
                return


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=500)
    parser.add_argument("--events", type=int, default=100)
    parser.add_argument("--rate", type=float, default=5)
    options = parser.parse_args()
    asyncio.run(run(options.clients, options.events, options.rate))

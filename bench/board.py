"""What open boards cost, and how soon they show what happened: real browsers on a running mall.

    mallbots up                                    # in one terminal
    python -m bench.board [--boards 5] [--orders 300] [--rate 20] [--seconds 30]

It fills the board with orders that no saga knows of, lets them come and go at a rate, and ends them all: use a
mall that is not needed for anything else. The browsers run on the same machine: what they cost is in the times,
but not in the API's CPU.
"""

import argparse
import asyncio
import statistics
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import UUID

import psutil
from playwright.async_api import Browser, BrowserContext, Page, async_playwright
from rich.console import Console
from rich.table import Table

from api.credentials import SESSION, cookie_name
from api.staff.accounts import Accounts
from domains.orders.messages import ApproveOrder, CancelOrder, CompleteOrder, PlaceOrder, ReadyOrder
from domains.orders.service import Orders
from kernel.database import Database
from kernel.ids import new_id, now
from kernel.messages import Cancellation, OrderLine, PricedLine
from mallbots.settings import Settings
from mallbots.supervisor import running_parts
from tests.chromium import ARGUMENTS, HOW_TO_GET_ONE, find

NAME = "bench"
SKU = "bench-nothing"
SETTLES_WITHIN_MS = 60_000

# When a card came to a column, by the clock of this machine, behind the frame that shows it.
NOTE_CARDS = """() => {
  window.noted = {};
  const note = (changes) => setTimeout(() => {
    const at = performance.timeOrigin + performance.now();
    for (const change of changes) for (const card of change.addedNodes) {
      const id = card.querySelector("a").getAttribute("href").split("/").pop();
      window.noted[`${id} ${change.target.closest("section").dataset.state}`] ??= at;
    }
  });
  for (const list of document.querySelectorAll(".board-column ul")) {
    new MutationObserver(note).observe(list, { childList: true });
  }
}"""
LOAD = """() => {
  const parts = performance.getEntries().filter((entry) => "transferSize" in entry);
  return {
    paint: performance.getEntriesByName("first-contentful-paint")[0].startTime,
    bytes: parts.reduce((sum, part) => sum + part.transferSize, 0),
    requests: parts.length,
  };
}"""
ALL_NOTED = "keys => keys.every((key) => key in window.noted)"
SHOWN = "number => document.querySelectorAll('.order').length >= number"


class Life:
    """Orders that come and go: each step places one, approves one, readies one, or hands one over."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._queues: dict[str, deque[PlaceOrder]] = {state: deque() for state in ("pending", "approved", "ready")}
        self._turn = 0

    async def step(self) -> tuple[UUID, str] | None:
        """Do the next thing; the order and the column it is in now, or None if it has left the board."""
        self._turn += 1
        match self._turn % 4:
            case 0:
                return await self.place()
            case 1:
                return await self.approve()
            case 2:
                return await self.ready()
        order = self._queues["ready"].popleft()
        await self._orders.complete(CompleteOrder(order_id=order.order_id, by=NAME))
        return None

    async def place(self) -> tuple[UUID, str]:
        """A new order."""
        lines = [OrderLine(sku=SKU, quantity=2)]
        order = PlaceOrder(
            order_id=new_id(), kiosk=NAME, customer=NAME, lines=lines, payment_method="at_pickup", currency="USD"
        )
        await self._orders.place(order)
        self._queues["pending"].append(order)
        return order.order_id, "pending"

    async def approve(self) -> tuple[UUID, str]:
        """The oldest pending order is approved."""
        order = self._queues["pending"].popleft()
        lines = [PricedLine(sku=SKU, name="Nothing", store="Nowhere", quantity=2, unit_price_cents=100)]
        await self._orders.approve(ApproveOrder(order_id=order.order_id, lines=lines, total_cents=200))
        self._queues["approved"].append(order)
        return order.order_id, "approved"

    async def ready(self) -> tuple[UUID, str]:
        """The oldest approved order is ready."""
        order = self._queues["approved"].popleft()
        until = now() + timedelta(hours=1)
        await self._orders.make_ready(ReadyOrder(order_id=order.order_id, pickup_until=until))
        self._queues["ready"].append(order)
        return order.order_id, "ready"

    async def fill(self, number: int) -> None:
        """So many orders: a third in each column."""
        for count in range(number):
            await self.place()
            if count % 3 > 0:
                await self.approve()
            if count % 3 > 1:
                await self.ready()

    async def end(self) -> None:
        """Nothing of it is left on the board."""
        for order in (order for queue in self._queues.values() for order in queue):
            cancellation = Cancellation(by="staff", reason="the bench is over", name=NAME)
            await self._orders.cancel(CancelOrder(order=order, cancellation=cancellation))


async def run(boards: int, number: int, rate: float, seconds: float) -> None:
    """Fill the board, open the browsers, let orders come and go, and print the figures."""
    settings = Settings.load()
    orders = Database("orders", settings.database_url("orders"), pool_size=2)
    life = Life(Orders(orders))
    try:
        await life.fill(number)
        async with _browser() as browser, _session(settings) as session:
            loads = [await _load(browser, settings, session, number) for _ in range(boards)]
            pages = []
            for _ in range(boards):
                pages.append(await _board(await _context(browser, settings, session), settings, number))
                await pages[-1].evaluate(NOTE_CARDS)
            api = running_parts(settings.data_dir)["api"]
            cpu, began = _cpu(api), time.perf_counter()
            committed = await _let_live(life, rate, seconds)
            used = (_cpu(api) - cpu) / (time.perf_counter() - began)
            taken = [await _taken(page, committed) for page in pages]
    finally:
        await life.end()
        await orders.close()
    cuts = statistics.quantiles([one for of_page in taken for one in of_page], n=100)
    table = Table("boards", "orders", "events/s", "p50, ms", "p95, ms", "API's CPU", "first paint, ms", "bytes")
    paint, weight = statistics.median(load["paint"] for load in loads), loads[0]["bytes"]
    figures = [f"{cuts[49]:.0f}", f"{cuts[94]:.0f}", f"{used:.1%} of a core", f"{paint:.0f}", f"{weight:.0f}"]
    table.add_row(str(boards), str(number), f"{rate:g}", *figures)
    Console().print(table)


@asynccontextmanager
async def _browser() -> AsyncIterator[Browser]:
    chromium = find()
    assert chromium is not None, HOW_TO_GET_ONE
    async with async_playwright() as playwright:
        yield await playwright.chromium.launch(
            executable_path=chromium.executable, args=ARGUMENTS, env={**chromium.environment}
        )


@asynccontextmanager
async def _session(settings: Settings) -> AsyncIterator[str]:
    """The session of an account that is disabled afterwards."""
    database = Database("staff", settings.database_url("staff"), pool_size=1)
    accounts, name = Accounts(database), f"{NAME}-{new_id().hex[-12:]}"
    try:
        password = await accounts.create(name, ["desk"])
        yield await accounts.sign_in(name, password, None)
        await accounts.change(name, disabled=True)
    finally:
        await database.close()


async def _context(browser: Browser, settings: Settings, session: str) -> BrowserContext:
    """A browser as new, that has signed in."""
    context = await browser.new_context(viewport={"width": 1366, "height": 860})
    name, url = cookie_name(settings, SESSION), settings.api_url
    await context.add_cookies([{"name": name, "value": session, "url": url}])
    return context


async def _board(context: BrowserContext, settings: Settings, number: int) -> Page:
    page = await context.new_page()
    await page.goto(f"{settings.api_url}/staff")
    await page.wait_for_function(SHOWN, arg=number)
    return page


async def _load(browser: Browser, settings: Settings, session: str, number: int) -> dict[str, float]:
    """How the board is opened by a browser that has nothing of it yet."""
    context = await _context(browser, settings, session)
    page = await _board(context, settings, number)
    load: dict[str, float] = await page.evaluate(LOAD)
    await context.close()
    return load


async def _let_live(life: Life, rate: float, seconds: float) -> dict[str, float]:
    """Take steps at a rate; when each was committed, in milliseconds, by the order and its column."""
    committed: dict[str, float] = {}
    began = time.perf_counter()
    for count in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, began + count / rate - time.perf_counter()))
        done = await life.step()
        if done is not None:
            committed[f"{done[0]} {done[1]}"] = time.time() * 1000
    return committed


async def _taken(page: Page, committed: dict[str, float]) -> list[float]:
    """How long each card took to its column on this board, in milliseconds; every one has to come."""
    await page.wait_for_function(ALL_NOTED, arg=list(committed), polling=500, timeout=SETTLES_WITHIN_MS)
    noted = await page.evaluate("() => window.noted")
    return [noted[key] - at for key, at in committed.items()]


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boards", type=int, default=5)
    parser.add_argument("--orders", type=int, default=300)
    parser.add_argument("--rate", type=float, default=20)
    parser.add_argument("--seconds", type=float, default=30)
    options = parser.parse_args()
    asyncio.run(run(options.boards, options.orders, options.rate, options.seconds))

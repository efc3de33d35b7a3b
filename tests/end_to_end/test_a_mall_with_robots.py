"""Robots shop real baskets and are killed at random; every order ends, and the audit is clean.

It runs first in this folder, before other tests leave orders that nobody shops. `--baskets FILE
--catalog FILE --kills 5 --timeout 1000` make of it the large run whose figures are in docs/decisions.md.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text

from clients.desk import hand_over_ready
from clients.replay import read_baskets, replay
from domains.stores.catalog import import_catalog, read_catalog
from kernel.database import Database
from kernel.messages import IfMissing
from mallbots.audit import audit
from mallbots.kept_keys import install_keys
from mallbots.settings import Settings
from tests.end_to_end.conftest import Databases
from tests.mall import Mall
from tests.waiting import eventually

DATA = Path(__file__).parent.parent / "data"
FEW = 20
CARDS = (
    "tok_approved",
    "tok_capture_lost_answer",
    "tok_capture_declined",
    "tok_hold_lapses",
    "tok_approved",
    "tok_approved",
)
NEVER_CAPTURED = ("tok_capture_declined", "tok_hold_lapses")
WISHES: tuple[IfMissing, ...] = ("skip", "substitute", "substitute", "cancel")


class Robots:
    """Shopper bots in a process of their own, which can be killed. Those that come after have other names, so that
    the lists of the killed are only theirs when they have been silent for too long."""

    def __init__(self, mall: Mall, number: int) -> None:
        self._mall = mall
        self._number = number
        self._generation = 0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Let the next generation of robots work."""
        self._generation += 1
        options = {
            "--count": self._number,
            "--speed": 300,
            "--missing": 0.05,
            "--drop": 0.02,
            "--seed": 7,
            "--prefix": f"gen-{self._generation}",
        }
        arguments = [str(part) for option in options.items() for part in option]
        with (self._mall.data_dir / "robots.log").open("ab") as log:
            self._process = subprocess.Popen(
                (sys.executable, "-m", "mallbots", "robot", *arguments),
                env=self._mall.environment,
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        """End them as a power cut does."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        """Send them home."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(timeout=15)


@contextmanager
def robots(mall: Mall, number: int) -> Iterator[Robots]:
    """Robots at work, until the block ends."""
    fleet = Robots(mall, number)
    fleet.start()
    try:
        yield fleet
    finally:
        fleet.stop()


async def statuses(orders: Database) -> Counter[str]:
    async with orders.transaction() as connection:
        rows = await connection.execute(
            text("SELECT status, count(*) AS number FROM orders.orders GROUP BY status")
        )
        return Counter({row.status: row.number for row in rows})


@pytest.mark.timeout(180)
async def test_every_order_ends_although_robots_are_killed_at_random(
    mall: Mall, settings: Settings, databases: Databases, request: pytest.FixtureRequest
) -> None:
    file = request.config.getoption("--baskets")
    kills = request.config.getoption("--kills")
    catalog = read_catalog(Path(request.config.getoption("--catalog") or DATA / "catalog.jsonl"))
    await import_catalog(databases("stores"), catalog, currency="USD", stock=1000)
    baskets = read_baskets(Path(file or DATA / "baskets.jsonl"), 300 if file else None)
    if not file:
        baskets = random.Random(3).sample(baskets, FEW)
    mine = [basket.model_copy(update={"basket_id": f"{basket.basket_id}-robots"}) for basket in baskets]
    orders = databases("orders")
    dice = random.Random(5)

    report = await replay(settings, mine, cards=CARDS, if_missing=WISHES, patience=60)
    assert (report.approved, report.failed) == (len(mine), {})
    to_shop = (await statuses(orders))["approved"]
    began = time.monotonic()
    with robots(mall, 20 if file else 5) as fleet:
        for kill in range(kills):
            left = to_shop - to_shop * (kill + 1) // (kills + 2) - dice.randrange(3)

            async def so_many_are_left(left: int = left) -> bool:
                return (await statuses(orders))["approved"] <= left

            await eventually(so_many_are_left, timeout=600 if file else 60)
            fleet.kill()
            fleet.start()

        async def all_are_shopped() -> bool:
            return (await statuses(orders))["approved"] == 0

        await eventually(all_are_shopped, timeout=600 if file else 60)

    shopped = time.monotonic() - began
    desk = await hand_over_ready(settings, clerk="bea")
    declined = len([number for number in range(len(mine)) if CARDS[number % len(CARDS)] in NEVER_CAPTURED])
    assert sum(desk.failed.values()) <= declined
    assert set(desk.failed) <= {"payment_declined", "hold_lapsed"}
    await _pay_cash_for_the_rest(settings)

    ended = await statuses(orders)
    assert ended["approved"] == ended["ready"] == 0
    assert (await audit(settings)).findings == []
    print(f"\n{report.model_dump_json()}\n{to_shop} shopped in {shopped:.0f} s; {desk}; {dict(ended)}")  # noqa: T201
    async with databases("depot").transaction() as connection:
        held = text(
            "SELECT count(*) FROM depot.shopping_lists WHERE status IN ('assigned', 'collected', 'released')"
        )
        assert await connection.scalar(held) == 0


async def _pay_cash_for_the_rest(settings: Settings) -> None:
    key = (await install_keys(settings, "staff", ["bea"], ["manager"]))["bea"]
    async with httpx.AsyncClient(
        base_url=settings.api_url, headers={"Authorization": f"Bearer {key}"}, timeout=40, trust_env=False
    ) as staff:
        found = (await staff.get("/v1/staff/orders", params={"status": "ready", "limit": "200"})).json()["items"]
        for order in found:
            payment = {"method": "cash", "tendered_cents": order["total_cents"] + 5}
            body = {"pickup_code": order["pickup_code"], "payment": payment}
            response = await staff.post(f"/v1/staff/orders/{order['order_id']}/hand-over", json=body)
            assert response.status_code == 200, response.text
            receipt = response.json()["receipt"]
            assert (receipt["method"], receipt["change_cents"]) == ("cash", 5)

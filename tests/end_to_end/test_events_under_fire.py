"""What happened reaches everybody once and in order, although NATS and the relay are killed while it happens.

`--baskets FILE --catalog FILE --kills 3` make of it the large run whose figures are in docs/decisions.md.
"""

import asyncio
import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from clients.kiosk import Ending
from clients.replay import read_baskets, replay
from domains.stores.catalog import import_catalog, read_catalog
from mallbots.audit import audit
from mallbots.audit_look import whole_stream
from mallbots.settings import Settings
from tests.end_to_end.conftest import Databases
from tests.mall import Mall
from tests.waiting import eventually

DATA = Path(__file__).parent.parent / "data"
FEW = 36
CUTS = 10
CARDS = ("tok_approved", "tok_approved", "tok_approved", "tok_declined")


@dataclass
class Screen:
    """A staff screen that follows all events. It is cut off when `cuts_due` says so, and goes on where it was."""

    url: str
    key: str
    positions: list[int] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    begins_behind: int | None = None
    position: int | None = None
    cuts: int = 0
    cuts_due: int = 0

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            # What fails here is tried again: the mall is under fire.
            with contextlib.suppress(WebSocketException, OSError, TimeoutError):
                await self._follow()
            await asyncio.sleep(0.05)

    async def _follow(self) -> None:
        after = "" if self.position is None else f"?after={self.position}"
        headers = {"Authorization": f"Bearer {self.key}"}
        async with connect(f"{self.url}/v1/staff/events{after}", additional_headers=headers, proxy=None) as screen:
            async for message in screen:
                self._take(json.loads(message))
                if self.cuts < self.cuts_due:
                    self.cuts += 1
                    screen.transport.abort()
                    return

    def _take(self, message: dict[str, Any]) -> None:
        if message["type"] == "event":
            self.positions.append(message["position"])
            self.ids.append(message["id"])
        elif self.begins_behind is None:
            self.begins_behind = message["position"]
        self.position = message["position"]


@pytest.mark.timeout(1200)
async def test_everybody_hears_of_everything_once_although_nats_and_the_relay_are_killed(
    mall: Mall, settings: Settings, databases: Databases, pytestconfig: pytest.Config
) -> None:
    catalog = pytestconfig.getoption("--catalog") or DATA / "catalog.jsonl"
    chosen = pytestconfig.getoption("--baskets")
    kills = pytestconfig.getoption("--kills")
    await import_catalog(databases("stores"), read_catalog(Path(catalog)), currency="USD", stock=1000)
    baskets = [
        basket.model_copy(update={"basket_id": f"{basket.basket_id}-fire"})
        for basket in read_baskets(Path(chosen or DATA / "baskets.jsonl"), None if chosen else FEW)
    ]
    key = mall.ask("keys", "create", "screen", "--service", "--role", "operator").stdout.strip()
    screen = Screen(settings.api_url.replace("http://", "ws://"), key)
    following = asyncio.create_task(screen.run())
    await eventually(lambda: screen.position is not None)

    victims = ["nats", "relay"] * kills
    due = {len(baskets) * number // (len(victims) + 1): victim for number, victim in enumerate(victims, 1)}
    is_up_again: list[Callable[[], bool]] = []
    answered = 0

    def kill_in_the_middle(ending: Ending) -> None:
        nonlocal answered
        answered += 1
        screen.cuts_due = answered * (CUTS + 1) // (len(baskets) + 1)
        if (victim := due.get(answered)) and mall.pid(victim):
            is_up_again.append(mall.kill(victim))

    report = await replay(settings, baskets, concurrency=8, cards=CARDS, on_progress=kill_in_the_middle)
    assert (report.submitted, report.pending, report.failed) == (len(baskets), 0, {})
    assert len(is_up_again) == 2 * kills
    await eventually(is_up_again[-1], timeout=30)

    async def screen_has_all() -> bool:
        published = await whole_stream(settings.nats_address())
        return screen.position == published[-1].sequence and await numbers_agree(databases)

    await eventually(screen_has_all, timeout=60)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    assert screen.cuts == CUTS
    published = await whole_stream(settings.nats_address())
    assert screen.positions == sorted(set(screen.positions))
    behind = screen.begins_behind or 0
    assert screen.ids == [str(event.id) for event in published if (event.sequence or 0) > behind]
    assert (await audit(settings)).findings == []
    print(f"\n{report.model_dump_json()}\n{len(published)} events published, {len(screen.ids)} on the screen")  # noqa: T201


async def numbers_agree(databases: Databases) -> bool:
    """Whether Analytics has what a count over the domains has."""
    counted = (
        "SELECT count(*), count(*) FILTER (WHERE status = 'rejected'),"
        " count(*) FILTER (WHERE status = 'cancelled'),"
        " coalesce(sum(total_cents) FILTER (WHERE status IN ('approved', 'ready', 'completed')), 0)::bigint"
        " FROM orders.orders"
    )
    noted = (
        "SELECT count(*), count(rejected_at), count(cancelled_at),"
        " (SELECT coalesce(sum(cents), 0)::bigint FROM analytics.sale_lines) FROM analytics.orders"
    )
    async with databases("orders").transaction() as orders, databases("analytics").transaction() as analytics:
        domain = tuple((await orders.execute(text(counted))).one())
        return tuple((await analytics.execute(text(noted))).one()) == domain

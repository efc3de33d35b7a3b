"""The promises under load: races, misbehaving cards, and processes that are killed in the middle of it.

`mallbots audit` is the judge: it holds every order against all domains, the payment provider and Temporal.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text

from clients.kiosk import CardOrder, Ending, Item, Kiosk
from clients.replay import Basket, ReplayReport, read_baskets, replay
from domains.payments.sandbox import CARD_TOKENS
from domains.stores.catalog import import_catalog, read_catalog
from kernel.database import Database
from mallbots.audit import AuditReport, audit
from mallbots.kept_keys import read_keys
from mallbots.settings import Settings
from tests.end_to_end.conftest import Databases, at_kiosk
from tests.mall import Mall
from tests.samples import stocked
from tests.waiting import eventually

DATA = Path(__file__).parent.parent / "data"
ORDERED_THROUGH = ("nats", "temporal", "postgres", "worker", "api")
BASKETS = 42
BASKETS_UNDER_FIRE = 48
CARDS = tuple(CARD_TOKENS)
CARDS_IN_TROUBLE = ("tok_approved", "tok_slow", "tok_lost_answer", "tok_declined")
REFUSED_CARDS = {"tok_declined": "payment_declined", "tok_insufficient_funds": "insufficient_funds"}


@pytest.fixture(scope="module")
async def baskets(databases: Databases) -> list[Basket]:
    """Real baskets, and a shelf that has plenty of all that is in them."""
    await import_catalog(databases("stores"), read_catalog(DATA / "catalog.jsonl"), currency="USD", stock=1000)
    return read_baskets(DATA / "baskets.jsonl", BASKETS_UNDER_FIRE)


async def clean(settings: Settings) -> AuditReport:
    report = await audit(settings)
    assert report.findings == []
    return report


async def number_of_orders(orders: Database) -> int:
    async with orders.transaction() as connection:
        return int((await connection.execute(text("SELECT count(*) FROM orders.orders"))).scalar_one())


async def orders_of(kiosks: Database, baskets: Sequence[Basket]) -> dict[str, str]:
    """The kiosk of each order that these baskets became, by the order's id."""
    keys = [f"basket-{basket.basket_id}" for basket in baskets]
    query = text("SELECT order_id, kiosk FROM kiosks.idempotency_keys WHERE key = ANY(:keys)")
    async with kiosks.transaction() as connection:
        return {str(row.order_id): row.kiosk for row in await connection.execute(query, {"keys": keys})}


async def test_of_fifty_orders_for_the_last_twenty_pieces_twenty_are_approved(
    kiosk: httpx.AsyncClient, settings: Settings, databases: Databases
) -> None:
    sku = (await stocked(databases("stores"), tea=20))["tea"]
    at_the_kiosk = Kiosk(kiosk, read_keys(settings, "kiosks")["kiosk-1"], random.Random(0))
    order = CardOrder(items=[Item(sku=sku, quantity=1)], card="tok_approved")
    endings = await asyncio.gather(
        *(at_the_kiosk.place(order, f"race-for-{sku}-{number}", patience=45) for number in range(50))
    )
    assert Counter((ending.status, ending.code) for ending in endings) == {
        ("approved", None): 20,
        ("rejected", "insufficient_stock"): 30,
    }
    assert len({ending.order_id for ending in endings}) == 50
    async with databases("stores").transaction() as connection:
        stock = text("SELECT on_hand, reserved FROM stores.stock WHERE sku = :sku")
        assert tuple((await connection.execute(stock, {"sku": sku})).one()) == (20, 20)
    await clean(settings)


@pytest.mark.timeout(180)
async def test_real_baskets_with_every_kind_of_card_keep_every_promise(
    settings: Settings, databases: Databases, baskets: list[Basket]
) -> None:
    baskets = baskets[:BASKETS]

    def dealt(card: str) -> list[Basket]:
        return [basket for number, basket in enumerate(baskets) if CARDS[number % len(CARDS)] == card]

    async def replayed(patience: float) -> ReplayReport:
        return await replay(settings, baskets, concurrency=32, cards=CARDS, patience=patience)

    before = await number_of_orders(databases("orders"))
    refused = {code: len(dealt(card)) for card, code in REFUSED_CARDS.items()}
    unanswerable = dealt("tok_timeout_always")
    # On a slow machine the patience may end for others too; the second replay knows their answers.
    first = await replayed(patience=8)
    assert (first.submitted, first.failed, first.answered_before) == (BASKETS, {}, 0)
    assert first.pending >= len(unanswerable)
    assert set(first.rejected) <= set(refused)

    unanswered = await orders_of(databases("kiosks"), unanswerable)
    assert len(unanswered) == len(unanswerable)

    async def pending() -> list[str]:
        async with databases("orders").transaction() as connection:
            found = await connection.execute(text("SELECT id FROM orders.orders WHERE status = 'pending'"))
            return sorted(str(row.id) for row in found)

    async def only_the_unanswered_are_pending() -> bool:
        return await pending() == sorted(unanswered)

    await eventually(only_the_unanswered_are_pending, timeout=30)
    await clean(settings)

    async def cancel(order_id: str, kiosk: str) -> None:
        async with at_kiosk(settings, kiosk) as client:
            while (response := await client.post(f"/v1/orders/{order_id}/cancel")).status_code == 202:
                assert response.json()["status"] == "cancelling"
        assert response.json()["status"] == "cancelled"

    async with asyncio.timeout(30):
        await asyncio.gather(*(cancel(order_id, kiosk) for order_id, kiosk in unanswered.items()))
    assert await pending() == []
    assert await number_of_orders(databases("orders")) == before + BASKETS
    await clean(settings)

    again = await replayed(patience=30)
    assert (again.answered_before, again.pending, again.failed) == (BASKETS, 0, {})
    assert again.rejected == refused | {"order_cancelled": len(unanswered)}
    assert again.approved == BASKETS - sum(again.rejected.values())
    assert await number_of_orders(databases("orders")) == before + BASKETS
    await clean(settings)


@pytest.mark.timeout(180)
async def test_every_order_is_answered_although_each_process_is_killed_in_the_middle(
    mall: Mall, settings: Settings, databases: Databases, baskets: list[Basket]
) -> None:
    mine = [basket.model_copy(update={"basket_id": f"{basket.basket_id}-killed"}) for basket in baskets]
    to_kill = list(ORDERED_THROUGH)
    answered = 0
    is_up_again: Callable[[], bool] = lambda: True  # noqa: E731

    def kill_the_next(ending: Ending) -> None:
        nonlocal answered, is_up_again
        answered += 1
        if to_kill and answered >= 8 * (len(ORDERED_THROUGH) - len(to_kill) + 1) and is_up_again():
            is_up_again = mall.kill(to_kill.pop(0))

    report = await replay(
        settings, mine, concurrency=8, cards=CARDS_IN_TROUBLE, patience=90, on_progress=kill_the_next
    )
    assert (report.approved, report.rejected) == (36, {"payment_declined": 12})
    assert (report.pending, report.failed) == (0, {})
    assert to_kill == []
    assert len(await orders_of(databases("kiosks"), mine)) == len(mine)
    await eventually(is_up_again, timeout=30)
    await clean(settings)

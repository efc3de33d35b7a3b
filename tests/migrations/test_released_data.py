"""A mall of any release goes on with today's code: its databases are brought up to date, nothing is lost, and what
was in the middle of its story comes to its end."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from argon2 import PasswordHasher
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from api.access import STAFF_ROLES
from api.keys import ApiKeys
from api.kiosk.idempotency import IdempotencyKeys
from api.kiosk.schemas import OrderToPlace
from api.staff.accounts import Accounts
from api.staff.acts import Acts
from consumers.analytics.queries import Analytics, Window
from consumers.notifications.service import Notifications
from consumers.trail.consumer import Trail
from domains.depot.messages import AmendList, AssignList, CancelShopping, ScheduleShopping
from domains.depot.service import Depot
from domains.orders.messages import ApproveOrder, CompleteOrder, ReadyOrder, RefundOrder
from domains.orders.service import Orders
from domains.payments.messages import CapturePayment, CashPayment, RefundPayment, VoidPayment
from domains.payments.sandbox import Sandbox
from domains.payments.service import Payments
from domains.stores.messages import ConsumeStock, ReleaseStock, ReserveStock
from domains.stores.service import Stores
from events.log import EventLog
from events.recorded import START
from kernel.database import Database
from kernel.errors import IdempotencyKeyReused
from kernel.ids import new_id, now
from kernel.messages import DomainName
from mallbots.audit_look import _STOCK
from mallbots.migrations import migrate_database
from mallbots.settings import DatabaseName
from tests.conftest import create_database
from tests.migrations.released import PASTS, Past, bring_back, rows_of, write_rows
from tests.samples import line, priced

RENAMED = {("kiosks", "api_keys"): {"kiosk": "name"}}
"""Columns that got another name since."""


@pytest.fixture(scope="module")
async def mall(postgres: str) -> AsyncIterator[Database]:
    """A database without any schema."""
    opened = Database("past", await create_database(postgres), pool_size=5)
    yield opened
    await opened.close()


async def bring_up_to_date(mall: Database, name: DatabaseName) -> None:
    await migrate_database(name, mall.engine.url.render_as_string(hide_password=False))


async def all_of(mall: Database, query: str) -> list[Any]:
    async with mall.transaction() as connection:
        return list(await connection.execute(text(query)))


async def run(mall: Database, statement: str) -> None:
    async with mall.transaction() as connection:
        await connection.execute(text(statement))


async def events_are_whole(mall: Database, domain: DomainName) -> None:
    """The log has every event, in the order of each stream."""
    async with mall.transaction() as connection:
        page = await EventLog(domain).after(connection, START)
    versions: dict[str, int] = {}
    for event in page.events:
        versions[event.stream] = versions.get(event.stream, 0) + 1
        assert event.version == versions[event.stream], event
    assert not page.held_back
    assert len(page.events) == (await all_of(mall, f"SELECT count(*) FROM {domain}.events"))[0][0]


# What is done with each database afterwards


async def orders_go_on(mall: Database, past: Past) -> None:
    orders = Orders(mall)
    rows = await all_of(mall, "SELECT id, status, pickup_code, total_cents FROM orders.orders ORDER BY id")
    live = {order.order_id for order in await orders.live()}
    statuses = {row.status for row in rows}
    assert {"pending", "approved", "rejected", "cancelled"} <= statuses
    assert past.release < 3 or {"ready", "completed"} <= statuses
    for row in rows:
        view = await orders.view(row.id)
        assert view is not None
        assert (view.status, view.pickup_code, view.total_cents) == (row.status, row.pickup_code, row.total_cents)
        assert (row.id in live) == (row.status in ("pending", "approved", "ready"))
        status = row.status
        if status in ("rejected", "cancelled"):
            answer = await orders.answer(row.id)
            assert answer is not None
            assert (answer.refusal is None) == (answer.pickup_code is not None)
            continue
        if status == "pending":
            await orders.approve(ApproveOrder(order_id=row.id, lines=[priced()], total_cents=900))
            status = "approved"
        if status == "approved":
            await orders.make_ready(ReadyOrder(order_id=row.id, pickup_until=now() + timedelta(hours=1)))
        await orders.complete(CompleteOrder(order_id=row.id, by="bea"))
        await orders.refund(RefundOrder(order_id=row.id, refund_id=new_id(), lines=None, by="bea"))
        view = await orders.view(row.id)
        assert view is not None
        assert (view.status, view.refunded_cents) == ("completed", view.total_cents)
    assert await orders.live() == []
    await events_are_whole(mall, "orders")


async def stock_goes_on(mall: Database, past: Past) -> None:
    stores = Stores(mall)
    held = await all_of(mall, "SELECT order_id FROM stores.reservations WHERE status = 'held' ORDER BY order_id")
    assert len(held) >= 3
    for number, row in enumerate(held):
        if number % 2:
            await stores.consume(ConsumeStock(order_id=row.order_id))
        else:
            await stores.release(ReleaseStock(order_id=row.order_id, reason="order_cancelled"))
    tea = await stores.product("kettle-dawn-50")
    assert tea in await stores.products(words="dawn")
    order = ReserveStock(order_id=new_id(), lines=[line(tea.sku, 3)], currency="USD")
    reservation = await stores.reserve(order)
    assert (await stores.reserve(order)) == reservation
    books = await all_of(mall, _STOCK)
    assert len(books) == 4
    for product in books:
        assert (product.on_hand, product.reserved) == (product.recorded, product.held), product
        assert product.reserved == (3 if product.sku == tea.sku else 0)
    await events_are_whole(mall, "stores")


async def payments_go_on(mall: Database, past: Past) -> None:
    await bring_back(mall, Past("sandbox", past.release))
    await bring_up_to_date(mall, "sandbox")
    payments = Payments(mall, Sandbox(mall, timeout=0.01))
    found = await all_of(mall, "SELECT order_id, status, method FROM payments.payments ORDER BY order_id")
    ways = {(row.status, row.method) for row in found}
    assert {("authorized", "card"), ("authorized", "at_pickup")} <= ways
    assert "voided" in {row.status for row in found}  # once the order was rejected for its declined card
    for number, row in enumerate(found):
        view = await payments.view(row.order_id)
        assert view is not None
        assert view.status == row.status
        if row.status == "authorized" and number % 3 == 0:
            await payments.void(VoidPayment(order_id=row.order_id, reason="order_cancelled"))
        elif row.status in ("authorized", "captured"):
            payment = CashPayment(tendered_cents=100_000) if row.method == "at_pickup" else None
            receipt = await payments.capture(CapturePayment(order_id=row.order_id, attempt=1, payment=payment))
            left = receipt.amount_cents - view.refunded_cents
            refund = RefundPayment(order_id=row.order_id, refund_id=new_id(), amount_cents=left)
            await payments.refund(refund)
            after = await payments.view(row.order_id)
            assert after is not None
            assert (after.captured_cents, after.refunded_cents) == (receipt.amount_cents, receipt.amount_cents)
    holds = await all_of(mall, "SELECT status, captured_cents, refunded_cents FROM sandbox.holds")
    assert {"voided", "captured", "declined"} <= {hold.status for hold in holds}
    assert all(hold.captured_cents == hold.refunded_cents for hold in holds)
    await events_are_whole(mall, "payments")


async def lists_go_on(mall: Database, past: Past) -> None:
    depot = Depot(mall)
    found = await all_of(mall, "SELECT order_id, status, robot FROM depot.shopping_lists ORDER BY order_id")
    assert past.release < 3 or {"released", "assigned", "completed"} <= {row.status for row in found}
    waiting = [row for row in found if row.status in ("scheduled", "released")]
    await depot.cancel(CancelShopping(order_id=waiting.pop().order_id, reason="order_cancelled"))
    for row in found:
        assert (await depot.shopping_list(row.order_id)).robot == row.robot
        if row.status == "assigned":
            await depot.online(row.robot)
            await shop_all(depot, row.robot)
    await depot.register("new")
    await depot.online("new")
    for row in waiting:
        await depot.assign(AssignList(order_id=row.order_id, round=1))
        await depot.ready("new")
        duty = await depot.take_list("new")
        assert duty is not None
        assert duty.held.order_id == row.order_id
        await shop_all(depot, "new")
        assert (await depot.shopping_list(row.order_id)).status == "completed"
    await depot.schedule(ScheduleShopping(order_id=new_id(), lines=[priced("kettle-dawn-50")]))
    await events_are_whole(mall, "depot")


async def shop_all(depot: Depot, robot: str) -> None:
    """Pick everything that is left of a robot's list and bring it to the desk."""
    duty = await depot.duty(robot)
    assert duty is not None
    order_id = duty.held.order_id
    for number, stop in enumerate(duty.held.stops, 1):
        for item in stop.items:
            if item.picked is None:
                await depot.report_item(robot, order_id, number, item.sku, picked=item.quantity, missing=0)
    duty = await depot.duty(robot)
    assert duty is not None
    if duty.next == "wait":
        await depot.amend(AmendList(order_id=order_id, round=duty.amended + 1, lines=[]))
    await depot.finish(robot, order_id)


async def kiosks_go_on(mall: Database, past: Past) -> None:
    kiosk = await ApiKeys(mall, "kiosks").principal_of(past.keys["kiosk"])
    assert kiosk.name == "kiosk-1"
    order = OrderToPlace.model_validate(
        {
            "items": [{"sku": "kettle-dawn-50", "quantity": 2}, {"sku": "pantry-bread-750", "quantity": 1}],
            "payment": {"method": "card", "token": "tok_approved"},
            "customer": "ada",
        }
    )
    sent, keys = past.keys["order"], IdempotencyKeys(mall)
    claim = await keys.claim(kiosk.name, sent["key"], order)
    assert (str(claim.order_id), claim.is_new) == (sent["id"], False)
    with pytest.raises(IdempotencyKeyReused):
        await keys.claim(kiosk.name, sent["key"], order.model_copy(update={"customer": "eve"}))


async def staff_goes_on(mall: Database, past: Past) -> None:
    service = await ApiKeys(mall, "staff").principal_of(past.keys["staff"])
    assert service.name == ("bea" if past.release < 4 else "till")
    assert set(service.roles) == (set(STAFF_ROLES) if past.release < 4 else {"desk", "manager"})
    accounts = Accounts(mall, hasher=PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    if past.release >= 4:
        token = await accounts.sign_in("ida", past.keys["ida"], None)
        assert (await accounts.sessions.principal(token)).name == "ida"
        assert len(await Acts(mall).newest(100)) >= 4
    await accounts.create("eva", ["desk"])


async def robots_go_on(mall: Database, past: Past) -> None:
    assert (await ApiKeys(mall, "robots").principal_of(past.keys["robot"])).name == "robot-9"


async def trail_goes_on(mall: Database, past: Past) -> None:
    trail = Trail(mall)
    number = (
        "SELECT order_id, count(*) AS entries FROM trail.entries GROUP BY order_id HAVING order_id IS NOT NULL"
    )
    for row in await all_of(mall, number):
        assert len(await trail.of(row.order_id)) == row.entries
    if past.release >= 3:
        (product, *_) = await all_of(mall, "SELECT stream FROM trail.entries WHERE order_id IS NULL")
        assert await trail.of_stream(product.stream)


async def notifications_go_on(mall: Database, past: Past) -> None:
    notifications = Notifications(mall)
    newest = await notifications.newest(100)
    assert len(newest) >= 4
    for one in newest:
        assert one in await notifications.of_order(one.order_id)
    sent = next(one for one in newest if one.status == "sent")
    assert (await notifications.resend(sent.id)).status == "pending"


async def analytics_goes_on(mall: Database, past: Past) -> None:
    analytics, window = Analytics(mall), Window(since=now() - timedelta(days=36_500), until=now())
    counts = await analytics.counts(window)
    assert counts.placed == (await all_of(mall, "SELECT count(*) FROM analytics.orders"))[0][0]
    assert (counts.rejected, counts.cancelled) == (1, 1)
    assert await analytics.sales(window, 100)
    assert past.release < 3 or (await analytics.robots(window))[0].robot == "robot-1"


GOES_ON: dict[DatabaseName, Callable[[Database, Past], Awaitable[None]]] = {
    "orders": orders_go_on,
    "stores": stock_goes_on,
    "payments": payments_go_on,
    "depot": lists_go_on,
    "kiosks": kiosks_go_on,
    "staff": staff_goes_on,
    "robots": robots_go_on,
    "trail": trail_goes_on,
    "notifications": notifications_go_on,
    "analytics": analytics_goes_on,
}
"""(The sandbox goes on with the payments.)"""


@pytest.mark.parametrize("past", [past for pasts in PASTS.values() for past in pasts], ids=str)
async def test_a_database_of_the_past_loses_nothing_and_goes_on(mall: Database, past: Past) -> None:
    await bring_back(mall, past)
    before = await rows_of(mall, past.name)
    assert sum(map(len, before.values())) > 0
    await bring_up_to_date(mall, past.name)

    after = await rows_of(mall, past.name)
    for table, rows in before.items():
        renamed = RENAMED.get((past.name, table), {})
        expected = [{renamed.get(column, column): value for column, value in row.items()} for row in rows]
        kept = [
            {column: row.get(column) for column in was} for row, was in zip(after[table], expected, strict=True)
        ]
        assert kept == expected, table

    if past.name in GOES_ON:
        await GOES_ON[past.name](mall, past)


async def test_the_newest_release_goes_on_writing_while_the_new_schema_is_there_already(
    postgres: str, template: str
) -> None:
    newest = Database("newest", await create_database(postgres, template), pool_size=1)
    for *_, past in PASTS.values():
        async with newest.engine.begin() as connection:
            await connection.run_sync(write_rows, past)
    await newest.close()


async def test_a_migration_that_fails_leaves_everything_as_it_was(mall: Database) -> None:
    past = PASTS["orders"][0]
    await bring_back(mall, past)
    before = await rows_of(mall, "orders")
    await run(mall, "CREATE VIEW orders.all_events AS SELECT 1 AS one")  # in the way of the last revision
    with pytest.raises(DBAPIError, match="all_events"):
        await bring_up_to_date(mall, "orders")
    assert await rows_of(mall, "orders") == before
    assert [past.revision] == [row[0] for row in await all_of(mall, "SELECT * FROM orders.alembic_version")]
    await run(mall, "DROP VIEW orders.all_events")
    await bring_up_to_date(mall, "orders")
    await orders_go_on(mall, past)


async def test_of_many_processes_that_migrate_at_once_one_does_and_the_others_wait(mall: Database) -> None:
    past = PASTS["orders"][0]
    await bring_back(mall, past)
    await asyncio.gather(*(bring_up_to_date(mall, "orders") for _ in range(4)))
    await orders_go_on(mall, past)

"""Analytics: numbers made of events alone, the same however often they are made anew."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import text

from api.app import create_app
from api.keys import ApiKeys
from consumers.analytics.consumer import CONSUMER
from consumers.analytics.queries import Analytics, Window
from domains.depot import messages as depot
from domains.orders import messages as orders
from domains.orders.messages import AdjustOrder, ApproveOrder, CancelOrder, RejectOrder
from domains.orders.service import Orders
from domains.published import PUBLISHED, stream_of
from events.event import Event
from events.log import EventLog
from events.recorded import START
from events.store import EventStore
from kernel.database import Database
from kernel.errors import Refusal, Unavailable
from kernel.ids import new_id, now
from kernel.messages import Cancellation, DomainName, Expiry, Pieces
from mallbots.analysing import prepare
from mallbots.settings import DATABASES, Settings
from tests.consumers.reading import handle_again, read_all
from tests.samples import place, priced

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
DAY = Window(since=NOON - timedelta(hours=12), until=NOON + timedelta(hours=12))


async def happen(database: Database, *events: tuple[float, Event]) -> None:
    """Let these have happened, each so many seconds after noon."""
    for seconds, event in events:
        domain: DomainName = "orders" if type(event).__module__ == orders.__name__ else "depot"
        store = EventStore(domain, PUBLISHED[domain].events)
        stream = stream_of(event)
        async with database.transaction() as connection:
            await store.record(connection, [(stream, event)])
            at = f"UPDATE {domain}.events SET recorded_at = :at WHERE stream = :stream AND recorded_at > :then"
            then = NOON + timedelta(days=1)
            values = {"at": NOON + timedelta(seconds=seconds), "stream": stream, "then": then}
            await connection.execute(text(at), values)


def placed(order_id: UUID, currency: str = "USD") -> Event:
    command = place(order_id).model_copy(update={"currency": currency})
    return orders.OrderPlaced(**command.model_dump(), placed_at=NOON)


def approved(order_id: UUID, *lines: Any) -> Event:
    return orders.OrderApproved(order_id=order_id, lines=list(lines), total_cents=0, pickup_code="K7F2QX")


def adjusted(order_id: UUID, round: int, *lines: Any) -> Event:
    return orders.OrderAdjusted(
        order_id=order_id, round=round, lines=list(lines), total_cents=0, missing=[], substituted=[]
    )


def refunded(order_id: UUID, refund_id: UUID, *lines: Any) -> Event:
    return orders.OrderRefunded(
        order_id=order_id,
        refund_id=refund_id,
        lines=list(lines),
        amount_cents=0,
        currency="USD",
        reason="",
        by="bea",
    )


def withdrawn(order_id: UUID, refund_id: UUID) -> Event:
    return orders.OrderRefundWithdrawn(order_id=order_id, refund_id=refund_id, reason="no")


def expired(order_id: UUID) -> Event:
    return orders.OrderExpired(order_id=order_id, expiry=Expiry(pickup_until=NOON))


def rejected(order_id: UUID, code: Any) -> Event:
    return orders.OrderRejected(order_id=order_id, refusal=Refusal(code=code, detail="no"))


def cancelled(order_id: UUID) -> Event:
    return orders.OrderCancelled(order_id=order_id, cancellation=Cancellation(by="customer"))


async def a_day(database: Database) -> None:
    """A day with something of everything."""
    one, two, three, four, five, six, seven, given_back, not_given_back = (new_id() for _ in range(9))
    tea, rose = priced("tea", 2, 450), priced("rose", 1, 1000, store="Floral")
    one_tea, fern = priced("tea", 1, 450), priced("fern", 1, 800, store="Floral")
    await happen(
        database,
        (0, placed(one)),
        (1, approved(one, tea, rose)),
        (5, placed(two)),
        (6, approved(two, tea)),
        (61, placed(three)),
        (62, rejected(three, "insufficient_stock")),
        (63, placed(four)),
        (64, cancelled(four)),
        (65, placed(five, "EUR")),
        (3600, approved(five, rose)),
        (3700, cancelled(two)),
        (10, depot.RobotOnline(robot="r1")),
        (20, depot.ShoppingListAssigned(order_id=one, robot="r1")),
        (25, depot.ItemPicked(order_id=one, robot="r1", store="Grocery", sku="tea", quantity=2)),
        (30, depot.ItemMissing(order_id=one, robot="r1", store="Floral", sku="rose", name="Rose", quantity=1)),
        (70, depot.ShoppingListCompleted(order_id=one, robot="r1")),
        (80, depot.ShoppingListAssigned(order_id=five, robot="r1")),
        (100, depot.RobotOffline(robot="r1")),
        (100, depot.ShoppingListReleased(order_id=five, robot="r1")),
        (100, depot.RobotOnline(robot="r2")),
        (110, depot.ShoppingListAssigned(order_id=five, robot="r2")),
        (120, depot.ShoppingListCancelled(order_id=five, reason="cancelled by staff")),
        (300, depot.RobotOffline(robot="r2")),
        (120, orders.OrderReadied(order_id=one)),
        (720, orders.OrderCompleted(order_id=one)),
        (4000, orders.OrderReadied(order_id=five)),
        (7200, placed(six)),
        (7201, approved(six, tea, rose)),
        (7205, placed(seven)),
        (7206, approved(seven, tea)),
        (7300, adjusted(six, 1, one_tea, rose, fern)),
        (7310, adjusted(six, 2, one_tea, fern)),
        (7920, orders.OrderCompleted(order_id=six)),
        (7980, expired(seven)),
        (9000, refunded(six, given_back, fern)),
        (9001, refunded(six, not_given_back, one_tea)),
        (9002, withdrawn(six, not_given_back)),
    )


async def numbers(database: Database) -> dict[str, Any]:
    """Everything that can be asked of that day."""
    analytics = Analytics(database)
    return {
        "orders": await analytics.orders(DAY, 100),
        "sales": await analytics.sales(DAY, 100),
        "refusals": await analytics.refusals(DAY),
        "missing": await analytics.missing_items(DAY, 10),
        "times": await analytics.times(DAY),
        "robots": await analytics.robots(DAY),
        "counts": await analytics.counts(DAY),
        "hours": await analytics.orders(DAY, 100, step=60),
        "sales-by-store": await analytics.sales_by_store(DAY, 100),
        "hours-to-ready": await analytics.times_to_ready(DAY, 100, step=60),
    }


@pytest.fixture
async def told(fresh_database: Database) -> dict[str, Any]:
    """The numbers of that day."""
    await a_day(fresh_database)
    await read_all(CONSUMER, fresh_database)
    return await numbers(fresh_database)


async def test_orders_are_counted_by_the_minute(told: dict[str, Any]) -> None:
    minutes = {
        (one.minute - NOON) // timedelta(minutes=1): one.model_dump(exclude={"minute"}) for one in told["orders"]
    }
    nothing = dict.fromkeys(["placed", "approved", "rejected", "cancelled", "completed", "expired"], 0)
    assert minutes == {
        0: nothing | {"placed": 2, "approved": 2},
        1: nothing | {"placed": 3, "rejected": 1, "cancelled": 1},
        12: nothing | {"completed": 1},
        60: nothing | {"approved": 1},
        61: nothing | {"cancelled": 1},
        120: nothing | {"placed": 2, "approved": 2},
        132: nothing | {"completed": 1},
        133: nothing | {"expired": 1},
    }


async def test_orders_are_counted_in_steps_from_the_windows_beginning_and_all_together(
    told: dict[str, Any], fresh_database: Database
) -> None:
    hours = {one.minute - NOON: (one.placed, one.cancelled) for one in told["hours"]}
    assert hours == {timedelta(hours=hour): counts for hour, counts in ((0, (5, 1)), (1, (0, 1)), (2, (2, 0)))}
    # Half an hour off, as some time zones are.
    off = Window(since=DAY.since + timedelta(minutes=30), until=DAY.until)
    steps = await Analytics(fresh_database).orders(off, 100, step=60)
    assert [one.minute - NOON for one in steps] == [timedelta(minutes=minutes) for minutes in (-30, 30, 90)]
    assert told["counts"].model_dump() == {
        "placed": 7,
        "approved": 5,
        "rejected": 1,
        "cancelled": 2,
        "completed": 2,
        "expired": 1,
    }


async def test_sales_are_counted_by_store_the_largest_first(told: dict[str, Any]) -> None:
    assert [tuple(one.model_dump().values()) for one in told["sales-by-store"]] == [
        ("Grocery", "USD", 3, 1350, 0),
        ("Floral", "EUR", 1, 1000, 0),
        ("Floral", "USD", 1, 1000, 800),
    ]


async def test_sales_are_counted_by_store_and_hour_as_what_was_really_sold(told: dict[str, Any]) -> None:
    assert [tuple(one.model_dump().values()) for one in told["sales"]] == [
        ("Floral", NOON, "USD", 1, 1000, 0),
        ("Grocery", NOON, "USD", 2, 900, 0),
        ("Floral", NOON + timedelta(hours=1), "EUR", 1, 1000, 0),
        # The fern was had instead of a missing rose, and given back.
        ("Floral", NOON + timedelta(hours=2), "USD", 0, 0, 800),
        ("Grocery", NOON + timedelta(hours=2), "USD", 1, 450, 0),
    ]


async def test_refusals_are_counted_by_reason(told: dict[str, Any]) -> None:
    assert [tuple(one.model_dump().values()) for one in told["refusals"]] == [("insufficient_stock", 1)]


async def test_missing_items_are_counted_by_product(told: dict[str, Any]) -> None:
    assert [tuple(one.model_dump().values()) for one in told["missing"]] == [("rose", "Rose", "Floral", 1, 1)]


async def test_a_missing_item_is_called_what_it_was_called_the_last_time(fresh_database: Database) -> None:
    before = depot.ItemMissing(
        order_id=new_id(), robot="r1", store="Grocery", sku="tea", name="Tea, old tin", quantity=1
    )
    since = before.model_copy(update={"order_id": new_id(), "store": "Copper Kettle", "name": "Black Tea"})
    await happen(fresh_database, (20, since), (10, before))
    await read_all(CONSUMER, fresh_database)
    (tea,) = await Analytics(fresh_database).missing_items(DAY, 10)
    assert (tea.name, tea.store, tea.pieces, tea.orders) == ("Black Tea", "Copper Kettle", 2, 2)


async def test_the_time_to_ready_and_to_completed_is_told_in_percentiles(told: dict[str, Any]) -> None:
    assert told["times"].to_ready.model_dump() == {
        "orders": 2,
        "p50_seconds": pytest.approx((120 + 3935) / 2),
        "p95_seconds": pytest.approx(120 + 0.95 * (3935 - 120)),
    }
    assert told["times"].to_completed.model_dump() == {"orders": 2, "p50_seconds": 720, "p95_seconds": 720}


async def test_the_time_to_ready_is_told_over_time(told: dict[str, Any]) -> None:
    assert [(one.minute - NOON, one.orders, one.p50_seconds) for one in told["hours-to-ready"]] == [
        (timedelta(), 1, 120),
        (timedelta(hours=1), 1, 3935),
    ]


async def test_a_robots_use_is_the_part_of_its_time_online_that_it_was_busy(told: dict[str, Any]) -> None:
    r1, r2 = told["robots"]
    # A robot that loses its list was busy with it until then.
    assert r1.model_dump() == {
        "robot": "r1",
        "online_seconds": 90,
        "busy_seconds": 70,
        "use": pytest.approx(70 / 90),
        "lists_completed": 1,
        "pieces_picked": 2,
    }
    assert (r2.online_seconds, r2.busy_seconds, r2.lists_completed, r2.pieces_picked) == (200, 10, 0, 0)


async def test_a_robot_that_is_still_at_work_is_counted_until_now(fresh_database: Database) -> None:
    began = now() - timedelta(hours=1)
    since_noon = (began - NOON).total_seconds()
    await happen(
        fresh_database,
        (since_noon, depot.RobotOnline(robot="r1")),
        (since_noon + 1800, depot.ShoppingListAssigned(order_id=new_id(), robot="r1")),
    )
    async with fresh_database.transaction() as connection:
        await connection.execute(text("UPDATE depot.events SET recorded_at = :at"), {"at": began})
    await read_all(CONSUMER, fresh_database)
    (robot,) = await Analytics(fresh_database).robots(
        Window(since=began - timedelta(1), until=now() + timedelta(1))
    )
    assert robot.online_seconds == pytest.approx(3600, abs=60)
    assert robot.use == pytest.approx(1, abs=0.05)


async def test_events_that_come_again_change_no_number(fresh_database: Database, told: dict[str, Any]) -> None:
    await handle_again(CONSUMER, fresh_database)
    assert await numbers(fresh_database) == told


async def test_an_event_that_comes_again_late_does_not_bring_back_what_was_not_sold(
    fresh_database: Database, told: dict[str, Any]
) -> None:
    async with fresh_database.transaction() as connection:
        for event in (await EventLog("orders").after(connection, START)).events[::-1]:
            await CONSUMER.handle(connection, event)
    assert await Analytics(fresh_database).sales(DAY, 100) == told["sales"]


@pytest.mark.parametrize(
    "drop",
    [
        "DROP SCHEMA analytics CASCADE",
        "DROP TABLE analytics.sale_lines",
        "DROP TABLE analytics.consumer_positions",
        "DROP TABLE analytics.alembic_version",
        "DROP TABLE analytics.orders, analytics.sale_lines, analytics.refund_lines, analytics.missing_items,"
        " analytics.picks, analytics.robot_shifts, analytics.robot_lists",
    ],
)
async def test_deleting_its_tables_and_starting_again_gives_the_same_numbers(
    fresh_database: Database, told: dict[str, Any], drop: str
) -> None:
    settings = settings_for(fresh_database)
    async with fresh_database.transaction() as connection:
        await connection.execute(text(drop))
    await prepare(settings)
    await read_all(CONSUMER, fresh_database)
    assert await numbers(fresh_database) == told


async def test_a_rebuild_forgets_what_is_wrong_and_gives_the_same_numbers(
    fresh_database: Database, told: dict[str, Any]
) -> None:
    async with fresh_database.transaction() as connection:
        await connection.execute(text("UPDATE analytics.sale_lines SET cents = cents + 1"))
    await prepare(settings_for(fresh_database))
    assert await numbers(fresh_database) != told
    await prepare(settings_for(fresh_database), rebuild=True)
    await read_all(CONSUMER, fresh_database)
    assert await numbers(fresh_database) == told


async def test_without_tables_it_is_unavailable(fresh_database: Database) -> None:
    async with fresh_database.transaction() as connection:
        await connection.execute(text("DROP SCHEMA analytics CASCADE"))
    with pytest.raises(Unavailable, match="Analytics has no tables"):
        await Analytics(fresh_database).sales(DAY, 100)


async def test_the_totals_are_those_of_the_domain(fresh_database: Database) -> None:
    service = Orders(fresh_database)
    for number in range(12):
        order = place()
        await service.place(order)
        lines = [priced("tea", 1 + number, 450), priced("rose", 1, 1000, store="Floral")]
        total = sum(line.quantity * line.unit_price_cents for line in lines)
        if number % 4 == 0:
            refusal = Refusal(code="payment_declined", detail="no")
            await service.reject(RejectOrder(order=order, refusal=refusal))
            continue
        await service.approve(ApproveOrder(order_id=order.order_id, lines=lines, total_cents=total))
        if number % 4 == 1:
            await service.cancel(CancelOrder(order=order, cancellation=Cancellation(by="staff")))
        if number % 4 == 2:
            cents = lines[0].quantity * lines[0].unit_price_cents
            missing = [Pieces(sku="rose", quantity=1)]
            await service.adjust(
                AdjustOrder(order_id=order.order_id, round=1, lines=lines[:1], total_cents=cents, missing=missing)
            )
    await read_all(CONSUMER, fresh_database)
    today = Window(since=now() - timedelta(hours=1), until=now() + timedelta(hours=1))
    analytics = Analytics(fresh_database)
    async with fresh_database.transaction() as connection:
        by_status = await connection.execute(
            text(
                "SELECT status, count(*) AS number, sum(total_cents)::bigint AS cents"
                " FROM orders.orders GROUP BY status"
            )
        )
        domain = {row.status: (row.number, row.cents) for row in by_status}
    assert sum(one.cents for one in await analytics.sales(today, 100)) == domain["approved"][1]
    assert [(one.code, one.orders) for one in await analytics.refusals(today)] == [
        ("payment_declined", domain["rejected"][0])
    ]
    minutes = await analytics.orders(today, 100)
    assert sum(one.placed for one in minutes) == sum(number for number, _ in domain.values())
    assert sum(one.cancelled for one in minutes) == domain["cancelled"][0]


@pytest.fixture
async def staff(fresh_database: Database, told: dict[str, Any]) -> AsyncIterator[httpx.AsyncClient]:
    """The API as a member of staff speaks to it, on the day's numbers."""
    key = await ApiKeys(fresh_database, "staff").issue("bea", ["manager"])
    app = create_app(settings_for(fresh_database))
    headers = {"Authorization": f"Bearer {key}"}
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://mall", headers=headers) as client:
        yield client
    await app.state.services.close()


DAY_ASKED = {"from": DAY.since.isoformat(), "to": DAY.until.isoformat()}


async def test_staff_get_every_number_over_rest(staff: httpx.AsyncClient, told: dict[str, Any]) -> None:
    paths = {
        "orders": "orders",
        "sales": "sales",
        "refusals": "refusals",
        "missing": "missing-items",
        "robots": "robots",
    }
    for name, path in paths.items():
        answer = await staff.get(f"/v1/staff/analytics/{path}", params=DAY_ASKED)
        assert answer.status_code == 200, answer.text
        assert answer.json()["items"] == [one.model_dump(mode="json") for one in told[name]], path
    for name, path in (("hours", "orders"), ("hours-to-ready", "times-to-ready")):
        answer = await staff.get(f"/v1/staff/analytics/{path}", params=DAY_ASKED | {"step": "60"})
        assert answer.json()["items"] == [one.model_dump(mode="json") for one in told[name]], path
    summary = (await staff.get("/v1/staff/analytics/summary", params=DAY_ASKED)).json()
    del summary["window"]
    assert summary == {
        "orders": told["counts"].model_dump(mode="json"),
        "approved_share": pytest.approx(5 / 6),
        "times": told["times"].model_dump(mode="json"),
        "sales": [one.model_dump(mode="json") for one in told["sales-by-store"]],
        "refusals": [one.model_dump(mode="json") for one in told["refusals"]],
    }
    assert (await staff.get("/v1/staff/analytics/summary")).json()["approved_share"] is None
    times = await staff.get("/v1/staff/analytics/times", params=DAY_ASKED)
    assert times.json()["times"] == told["times"].model_dump(mode="json")
    assert (await staff.get("/v1/staff/analytics/sales", params=DAY_ASKED)).json()["more"] is False
    # A day that is asked for without a window is the last one.
    assert (await staff.get("/v1/staff/analytics/sales")).json()["items"] == []


@pytest.mark.parametrize(
    ("window", "field"),
    [
        ({"from": "2026-03-01T12:00:00Z", "to": "2026-03-01T12:00:00Z"}, "from"),
        ({"from": "2026-03-02T12:00:00Z", "to": "2026-03-01T12:00:00Z"}, "from"),
        ({"from": "2020-03-02T12:00:00Z", "to": "2026-03-01T12:00:00Z"}, "from"),
        ({"from": "2026-03-01T12:00:00"}, "from"),
        ({"to": "noon"}, "to"),
        ({"to": "0001-01-01T00:00:00Z"}, "to"),
        ({"from": "0001-01-01T00:00:00+14:00", "to": "0001-01-02T00:00:00Z"}, "from"),
        ({"from": "9999-12-31T00:00:00Z", "to": "9999-12-31T23:59:59-14:00"}, "from"),
        ({"limit": "10001"}, "limit"),
    ],
)
async def test_a_window_that_breaks_a_rule_is_told_by_its_field(
    staff: httpx.AsyncClient, window: dict[str, str], field: str
) -> None:
    answer = await staff.get("/v1/staff/analytics/sales", params=window)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")
    assert answer.json()["errors"][0]["field"] == field


@pytest.mark.parametrize("path", ["orders", "sales"])
async def test_a_long_list_is_told_piece_by_piece(
    staff: httpx.AsyncClient, told: dict[str, Any], path: str
) -> None:
    asked = DAY_ASKED | {"limit": "2"}
    answer = (await staff.get(f"/v1/staff/analytics/{path}", params=asked)).json()
    assert answer["items"] == [one.model_dump(mode="json") for one in told[path][:2]]
    assert answer["more"] is True
    rest = asked | {"from": (NOON + timedelta(minutes=12)).isoformat(), "limit": "6"}
    answer = (await staff.get(f"/v1/staff/analytics/{path}", params=rest)).json()
    assert answer["items"] == [one.model_dump(mode="json") for one in told[path][2:]]
    assert answer["more"] is False


@pytest.mark.parametrize("authorization", ["", "Bearer nobody"])
async def test_the_numbers_are_for_staff_only(staff: httpx.AsyncClient, authorization: str) -> None:
    for path in ("summary", "orders", "sales", "refusals", "missing-items", "times", "times-to-ready", "robots"):
        answer = await staff.get(f"/v1/staff/analytics/{path}", headers={"Authorization": authorization})
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
        assert answer.headers["content-type"] == "application/problem+json"


def settings_for(database: Database) -> Settings:
    url = SecretStr(database.engine.url.render_as_string(hide_password=False))
    nowhere = SecretStr("nats://nobody@127.0.0.1:1")
    return Settings.model_validate({**{f"{name}_database_url": url for name in DATABASES}, "nats_url": nowhere})

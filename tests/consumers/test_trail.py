"""The audit trail: who did what to which order, product, store or robot, from the events of every domain."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from consumers.trail.acts import Act, act_of
from consumers.trail.consumer import CONSUMER, Trail
from domains.depot import messages as depot
from domains.depot.messages import ScheduleShopping
from domains.depot.service import Depot
from domains.orders import messages as orders
from domains.orders.messages import ApproveOrder, CancelOrder
from domains.orders.service import Orders
from domains.payments import messages as payments
from domains.payments.messages import VoidPayment
from domains.payments.sandbox import Sandbox
from domains.payments.service import Payments
from domains.published import PUBLISHED, stream_of
from domains.stores import messages as stores
from domains.stores.messages import ReleaseStock, ReserveStock
from domains.stores.service import Stores
from events.event import Event
from events.recorded import START, RecordedEvent
from events.store import Causation, EventStore, caused_by
from kernel.database import Database
from kernel.errors import NotFound
from kernel.ids import new_id
from kernel.messages import Cancellation, DomainName, Expiry, Pieces, Substitution
from mallbots.event_docs.examples import example_of
from tests.consumers.reading import handle_again, read_all
from tests.samples import authorize, line, place, priced, stocked


async def test_the_trail_tells_who_did_what_to_the_order(fresh_database: Database) -> None:
    mall_orders, mall_stores = Orders(fresh_database), Stores(fresh_database)
    mall_payments = Payments(fresh_database, Sandbox(fresh_database))
    tea = line((await stocked(fresh_database, tea=5))["tea"], 2)
    order = place(None, tea)
    order_id = order.order_id
    with caused_by(Causation(order_id, "orders.place/run/1")):
        await mall_orders.place(order)
    held = await mall_stores.reserve(ReserveStock(order_id=order_id, lines=[tea], currency="USD"))
    await mall_payments.authorize(authorize(order_id=order_id, cents=held.total_cents))
    await Depot(fresh_database).schedule(ScheduleShopping(order_id=order_id, lines=held.lines))
    approved = await mall_orders.approve(
        ApproveOrder(order_id=order_id, lines=held.lines, total_cents=held.total_cents)
    )
    await mall_payments.void(VoidPayment(order_id=order_id, reason="cancelled by staff"))
    await mall_stores.release(ReleaseStock(order_id=order_id, reason="cancelled by staff"))
    cancellation = Cancellation(by="staff", reason="the customer rang")
    await mall_orders.cancel(CancelOrder(order=order, cancellation=cancellation))
    await mall_orders.place(place(None, tea))  # somebody else's

    await read_all(CONSUMER, fresh_database)
    entries = await Trail(fresh_database).of(order_id)
    assert [(entry.who, entry.what) for entry in entries] == [
        ("kiosk kiosk-1", "placed the order for ada: 2 items"),
        ("the saga", "reserved 2 items"),
        ("the saga", "authorized the payment: 5.00 USD held on the card"),
        ("the saga", "scheduled the shopping: 1 stop"),
        ("the saga", f"approved the order, pickup code {approved.pickup_code}"),
        ("the saga", "voided the payment: cancelled by staff"),
        ("the saga", "released 2 items: cancelled by staff"),
        ("the staff", "cancelled the order: the customer rang"),
    ]
    assert (entries[0].event, entries[0].causation_id) == ("OrderPlaced", "orders.place/run/1")
    assert entries[0].data["customer"] == "ada"

    await handle_again(CONSUMER, fresh_database)
    assert await Trail(fresh_database).of(order_id) == entries


async def test_of_an_unknown_order_there_is_no_trail(fresh_database: Database) -> None:
    with pytest.raises(NotFound, match="nothing is known of an order"):
        await Trail(fresh_database).of(new_id())


async def test_what_staff_and_robots_do_is_kept_by_product_store_and_robot(fresh_database: Database) -> None:
    store_id, sku = new_id(), "tea"
    entries: list[tuple[DomainName, Event]] = [
        ("stores", stores.StockReceived(sku=sku, quantity=100)),
        ("stores", stores.StockReceived(sku=sku, quantity=12, receipt="R-17", by="bea")),
        ("stores", stores.ProductPriceChanged(sku=sku, price_cents=699, currency="USD", by="cy")),
        ("stores", stores.StoreParticipationChanged(store_id=store_id, open=False, by="bea")),
        ("depot", depot.RobotOnline(robot="r1")),
        ("depot", depot.RobotOffline(robot="r1")),
    ]
    for domain, event in entries:
        async with fresh_database.transaction() as connection:
            store = EventStore(domain, PUBLISHED[domain].events)
            await store.record(connection, [(stream_of(event), event)])
    await read_all(CONSUMER, fresh_database)

    async def told(stream: str, most: int = 100) -> list[Act]:
        return [Act(one.who, one.what) for one in await Trail(fresh_database).of_stream(stream, most)]

    repriced = Act("staff cy", "changed the price to 6.99 USD")
    assert await told("product-tea") == [repriced, Act("staff bea", "received 12 items with R-17")]
    assert await told("product-tea", most=1) == [repriced]
    assert await told(f"store-{store_id}") == [Act("staff bea", "closed the store to new orders")]
    assert await told("robot-r1") == [Act("robot r1", "is away"), Act("robot r1", "is ready")]
    with pytest.raises(NotFound, match="nothing is known of product-mug"):
        await told("product-mug")


async def test_a_missing_piece_is_told_of_the_order_and_of_the_product(fresh_database: Database) -> None:
    order_id = new_id()
    found_missing = stores.StockFoundMissing(sku="tea", order_id=order_id, quantity=1)
    async with fresh_database.transaction() as connection:
        await EventStore("stores", stores.EVENTS).record(connection, [("product-tea", found_missing)])
    await read_all(CONSUMER, fresh_database)
    trail = Trail(fresh_database)
    assert await trail.of(order_id) == await trail.of_stream("product-tea")


ORDER = new_id()
UNTIL = datetime(2026, 3, 15, 9, 26, 53, tzinfo=UTC)
MISSING = [Pieces(sku="tea", quantity=2), Pieces(sku="mug", quantity=1)]
INSTEAD = [Substitution(sku="tea", line=priced("rooibos", 2))]
LINES = [priced("rose", 1), priced("rooibos", 2)]


def cancelled(by: Any, name: str | None = None) -> Event:
    return orders.OrderCancelled(order_id=ORDER, cancellation=Cancellation(by=by, reason="no more", name=name))


def captured(method: Any, **cash: int) -> Event:
    return payments.PaymentCaptured(
        order_id=ORDER, method=method, amount_cents=1248, currency="USD", reference=None, **cash
    )


def refunded(method: Any) -> Event:
    return payments.PaymentRefunded(
        order_id=ORDER,
        refund_id=new_id(),
        method=method,
        amount_cents=599,
        currency="USD",
        reference=None,
        reason="it was open",
    )


@pytest.mark.parametrize(
    ("event", "who", "what"),
    [
        (cancelled("staff", "bea"), "staff bea", "cancelled the order: no more"),
        (cancelled("staff"), "the staff", "cancelled the order: no more"),
        (cancelled("mall"), "the mall", "cancelled the order: no more"),
        (
            orders.OrderAdjusted(
                order_id=ORDER, round=1, lines=LINES, total_cents=1350, missing=MISSING, substituted=INSTEAD
            ),
            "the saga",
            "adjusted the order: 2 of tea and 1 of mug missing; 2 of rooibos instead of tea",
        ),
        (
            orders.OrderReadied(order_id=ORDER, pickup_until=UNTIL),
            "the saga",
            "told that the order is ready until 2026-03-15 09:26 UTC",
        ),
        (orders.OrderReadied(order_id=ORDER), "the saga", "told that the order is ready"),
        (orders.PickupReminded(order_id=ORDER, number=2), "the saga", "reminded the customer (reminder 2)"),
        (orders.OrderCompleted(order_id=ORDER, by="bea"), "staff bea", "handed the order over"),
        (
            orders.OrderExpired(order_id=ORDER, expiry=Expiry(pickup_until=UNTIL)),
            "the saga",
            "let the order expire: nobody came until 2026-03-15 09:26 UTC",
        ),
        (
            orders.OrderRefunded(
                order_id=ORDER,
                refund_id=new_id(),
                lines=[priced("rooibos", 2)],
                amount_cents=900,
                currency="USD",
                reason="it was open",
                by="bea",
            ),
            "staff bea",
            "began to give 9.00 USD back for 2 items: it was open",
        ),
        (
            orders.OrderRefundWithdrawn(order_id=ORDER, refund_id=new_id(), reason="not_refundable"),
            "the saga",
            "withdrew the refund: not refundable",
        ),
        (
            stores.StockAdjusted(order_id=ORDER, round=1, missing=MISSING, substitutes=[], lines=LINES),
            "the saga",
            "holds 3 items now: 2 of tea and 1 of mug missing",
        ),
        (
            stores.StockAdjusted(order_id=ORDER, round=1, missing=[], substitutes=[], lines=LINES),
            "the saga",
            "holds 3 items now",
        ),
        (
            stores.StockReleased(
                order_id=ORDER, reason="expired", lines=LINES, carried=[Pieces(sku="rose", quantity=1)]
            ),
            "the saga",
            "released 3 items, but for 1 item that a robot carries: expired",
        ),
        (
            stores.StockReturned(order_id=ORDER, pieces=MISSING),
            "the mall",
            "released 2 of tea and 1 of mug, back on the shelf",
        ),
        (stores.StockConsumed(order_id=ORDER, lines=LINES), "the saga", "took 3 items out of stock"),
        (
            stores.StockFoundMissing(sku="tea", order_id=ORDER, quantity=1),
            "the saga",
            "took 1 of tea for missing: somebody should count",
        ),
        (
            stores.StockCorrected(sku="tea", on_hand=1, difference=-3, reason="Saturday", by="bea"),
            "staff bea",
            "counted 1 item, -3: Saturday",
        ),
        (
            stores.StoreRenamed(store_id=new_id(), name="Floral", by="bea"),
            "staff bea",
            "renamed the store to Floral",
        ),
        (
            stores.StoreParticipationChanged(store_id=new_id(), open=True, by="bea"),
            "staff bea",
            "opened the store",
        ),
        (
            stores.ProductRenamed(sku="tea", name="Tea", brand="Ours", by="bea"),
            "staff bea",
            "renamed the product to Tea (Ours)",
        ),
        (stores.ProductRemoved(sku="tea", by="bea"), "staff bea", "ended the sale of the product"),
        (
            stores.AlternativesChanged(sku="tea", alternatives=["a", "b", "c"], by="bea"),
            "staff bea",
            "set the alternatives: a, b and c",
        ),
        (
            stores.AlternativesChanged(sku="tea", alternatives=[], by="bea"),
            "staff bea",
            "set the alternatives: none",
        ),
        (stores.LowStockChanged(sku="tea", low_at=10, by="bea"), "staff bea", "set that 10 are few"),
        (stores.LowStockChanged(sku="tea", low_at=0, by="bea"), "staff bea", "set that none are too few"),
        (
            payments.PaymentAdjusted(order_id=ORDER, round=1, amount_cents=1248, currency="USD"),
            "the saga",
            "adjusted the payment: 12.48 USD",
        ),
        (
            payments.PaymentHoldLapsed(order_id=ORDER, reason="seven days are over"),
            "the payment provider",
            "let go of the hold: seven days are over",
        ),
        (captured("card"), "the saga", "took 12.48 USD on the card"),
        (captured("desk_card"), "the saga", "took 12.48 USD by card at the desk"),
        (
            captured("cash", tendered_cents=2000, change_cents=752),
            "the saga",
            "took 12.48 USD in cash (20.00 USD tendered, 7.52 USD change)",
        ),
        (refunded("cash"), "the saga", "refunded 5.99 USD in cash: it was open"),
        (
            payments.PaymentRefundFailed(
                order_id=ORDER, refund_id=new_id(), amount_cents=599, currency="USD", reason="lost_or_stolen_card"
            ),
            "the payment provider",
            "could not give 5.99 USD back: lost or stolen card",
        ),
        (depot.ShoppingListReleased(order_id=ORDER), "the saga", "released the shopping list to the robots"),
        (
            depot.ShoppingListReleased(order_id=ORDER, robot="r2"),
            "the mall",
            "took the shopping list from robot r2",
        ),
        (
            depot.ShoppingListReleased(order_id=ORDER, robot="r2", by="bea"),
            "staff bea",
            "took the shopping list from robot r2",
        ),
        (depot.ShoppingListAssigned(order_id=ORDER, robot="r2"), "robot r2", "took the shopping list"),
        (
            depot.ItemMissing(order_id=ORDER, robot="r2", store="Grocery", sku="tea", name="Tea", quantity=2),
            "robot r2",
            "did not find 2 of Tea at Grocery",
        ),
        (depot.ShoppingListAmended(order_id=ORDER, stops=[]), "the saga", "told the robot to bring what it has"),
        (
            depot.ShoppingListAmended(
                order_id=ORDER,
                stops=[depot.Stop(store="Grocery", items=[depot.Item(sku="tea", name="Tea", quantity=2)])],
            ),
            "the saga",
            "told the robot to pick 2 items instead",
        ),
        (
            depot.ItemsReturned(order_id=ORDER, robot="r2", pieces=MISSING),
            "robot r2",
            "took 2 of tea and 1 of mug back to the shelf",
        ),
        (
            depot.ItemsReturned(order_id=ORDER, robot="r2", pieces=MISSING[:1], by="bea"),
            "staff bea",
            "took 2 of tea of robot r2 back to the shelf",
        ),
        (depot.RobotRegistered(robot="r2"), "robot r2", "came for the first time"),
        (depot.RobotHeld(robot="r2", by="bea"), "staff bea", "let the robot rest"),
        (depot.RobotRetired(robot="r2", by="bea"), "staff bea", "retired the robot"),
    ],
)
def test_an_event_is_told_in_words(event: Event, who: str, what: str) -> None:
    assert act_of(recorded(event.model_dump_json().encode(), domain_of(event), type(event).__name__)) == (
        who,
        what,
    )


@pytest.mark.parametrize("kind", [kind for published in PUBLISHED.values() for kind in published.events])
def test_every_event_that_is_kept_has_words_of_its_own(kind: type[Event]) -> None:
    (domain,) = (domain for domain, published in PUBLISHED.items() if kind in published.events)
    example = example_of(domain, kind)
    if CONSUMER.wants(example, CONSUMER.partition_of(example)):
        unknown = act_of(replace(example, type=f"{kind.__name__}OfTomorrow"))
        assert act_of(example).what != unknown.what.removesuffix(" of tomorrow")


def test_an_event_that_nobody_taught_the_trail_is_told_by_its_name() -> None:
    assert act_of(recorded(b"{}", "orders", "OrderBlessedTwice")) == Act("the saga", "order blessed twice")


def domain_of(event: Event) -> DomainName:
    return next(domain for domain, published in PUBLISHED.items() if type(event) in published.events)


def recorded(data: bytes, domain: DomainName, name: str) -> RecordedEvent:
    return RecordedEvent(
        id=new_id(),
        domain=domain,
        position=START,
        stream="test-1",
        version=1,
        type=name,
        schema_version=1,
        data=data,
        correlation_id=None,
        causation_id=None,
        trace_context=None,
        recorded_at=datetime.now(UTC),
    )

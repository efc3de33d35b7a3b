"""The audit trail: who did what to which order, from the events of every domain."""

from datetime import UTC, datetime

import pytest

from consumers.trail.acts import Act, act_of
from consumers.trail.consumer import CONSUMER, Trail
from domains.depot.messages import ItemMissing, ScheduleShopping, ShoppingListAssigned
from domains.depot.service import Depot
from domains.orders.messages import ApproveOrder, CancelOrder, OrderReadied
from domains.orders.service import Orders
from domains.payments.messages import VoidPayment
from domains.payments.sandbox import Sandbox
from domains.payments.service import Payments
from domains.stores.messages import ReleaseStock, ReserveStock
from domains.stores.service import Stores
from events.event import Event
from events.recorded import START, RecordedEvent
from events.store import Causation, caused_by
from kernel.database import Database
from kernel.errors import NotFound
from kernel.ids import new_id
from kernel.messages import Cancellation
from tests.consumers.reading import handle_again, read_all
from tests.samples import authorize, line, place, stocked


async def test_the_trail_tells_who_did_what_to_the_order(fresh_database: Database) -> None:
    orders, stores, depot = Orders(fresh_database), Stores(fresh_database), Depot(fresh_database)
    payments = Payments(fresh_database, Sandbox(fresh_database))
    tea = line((await stocked(fresh_database, tea=5))["tea"], 2)
    order = place(None, tea)
    order_id = order.order_id
    with caused_by(Causation(order_id, "orders.place/run/1")):
        await orders.place(order)
    held = await stores.reserve(ReserveStock(order_id=order_id, lines=[tea], currency="USD"))
    await payments.authorize(authorize(order_id=order_id, cents=held.total_cents))
    await depot.schedule(ScheduleShopping(order_id=order_id, lines=held.lines))
    approved = await orders.approve(
        ApproveOrder(order_id=order_id, lines=held.lines, total_cents=held.total_cents)
    )
    await payments.void(VoidPayment(order_id=order_id, reason="cancelled by staff"))
    await stores.release(ReleaseStock(order_id=order_id, reason="cancelled by staff"))
    cancellation = Cancellation(by="staff", reason="the customer rang")
    await orders.cancel(CancelOrder(order=order, cancellation=cancellation))
    await orders.place(place(None, tea))  # somebody else's

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


@pytest.mark.parametrize(
    ("event", "act"),
    [
        (OrderReadied(order_id=new_id()), Act("the saga", "told that the order is ready")),
        (ShoppingListAssigned(order_id=new_id(), robot="r2"), Act("robot r2", "took the shopping list")),
        (
            ItemMissing(order_id=new_id(), robot="r2", store="Grocery", sku="tea", name="Tea", quantity=2),
            Act("robot r2", "did not find 2 of Tea at Grocery"),
        ),
    ],
)
def test_what_robots_do_is_told_by_their_names(event: Event, act: Act) -> None:
    domain = "orders" if isinstance(event, OrderReadied) else "depot"
    assert act_of(recorded(event.model_dump_json().encode(), domain, type(event).__name__)) == act


def test_an_event_that_nobody_taught_the_trail_is_told_by_its_name() -> None:
    assert act_of(recorded(b"{}", "orders", "OrderBlessedTwice")) == Act("the saga", "order blessed twice")


def recorded(data: bytes, domain: str, name: str) -> RecordedEvent:
    return RecordedEvent(
        id=new_id(),
        domain=domain,  # type: ignore[arg-type]
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

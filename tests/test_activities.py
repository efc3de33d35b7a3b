"""The activities on real PostgreSQL: each may run twice, and every step of the story has one."""

from typing import Any

import pytest
from temporalio import activity
from temporalio.testing import ActivityEnvironment

import worker
from activities.depot import DepotActivities
from activities.orders import OrderActivities
from activities.payments import PaymentActivities
from activities.stores import StoreActivities
from domains.depot.messages import CancelShopping, ScheduleShopping
from domains.depot.service import Depot
from domains.orders.messages import ApproveOrder, CancelOrder, RejectOrder
from domains.orders.service import Orders
from domains.payments.messages import VoidPayment
from domains.payments.service import Payments
from domains.stores.messages import ReleaseStock, ReserveStock
from domains.stores.service import Stores
from kernel.database import Database
from kernel.errors import Refusal
from kernel.messages import Cancellation, Message
from mallbots.cli import Domain
from mallbots.settings import Settings
from tests.samples import authorize, line, place, stocked
from workflows.steps import IF_MISSING, REFUND, REMIND, STORY


async def twice(act: Any, command: Message) -> Any:
    """What the activity replies, which a second run must reply too."""
    reply = await ActivityEnvironment().run(act, command)
    assert await ActivityEnvironment().run(act, command) == reply
    return reply


@pytest.mark.parametrize("ending", ["cancelled", "rejected"])
async def test_every_activity_may_run_twice_on_the_way_there_and_back(
    database: Database, orders: Orders, stores: Stores, payments: Payments, depot: Depot, ending: str
) -> None:
    order_acts, store_acts = OrderActivities(orders), StoreActivities(stores)
    payment_acts, depot_acts = PaymentActivities(payments), DepotActivities(depot)
    tea = line((await stocked(database, tea=5))["tea"], 2)
    order = place(None, tea)
    order_id = order.order_id

    await twice(order_acts.place, order)
    held = await twice(store_acts.reserve, ReserveStock(order_id=order_id, lines=[tea], currency="USD"))
    await twice(payment_acts.authorize, authorize(order_id=order_id, cents=held.total_cents))
    await twice(depot_acts.schedule, ScheduleShopping(order_id=order_id, lines=held.lines))
    assert (await stores.product(tea.sku)).available == 3

    await twice(depot_acts.cancel, CancelShopping(order_id=order_id, reason=ending))
    await twice(payment_acts.void, VoidPayment(order_id=order_id, reason=ending))
    await twice(store_acts.release, ReleaseStock(order_id=order_id, reason=ending))
    if ending == "rejected":
        refusal = Refusal(code="payment_declined", detail="the card was declined")
        answer = await twice(order_acts.reject, RejectOrder(order=order, refusal=refusal))
        assert answer.refusal == refusal
    else:
        approve = ApproveOrder(order_id=order_id, lines=held.lines, total_cents=held.total_cents)
        approved = await twice(order_acts.approve, approve)
        cancel = CancelOrder(order=order, cancellation=Cancellation(by="customer"))
        assert await twice(order_acts.cancel, cancel) == approved
    assert (await stores.product(tea.sku)).available == 5
    view = await orders.view(order_id)
    assert view is not None
    assert view.status == ending


async def test_every_step_and_every_undo_has_its_activity_on_its_domains_queue(database: Database) -> None:
    offered = set()
    for name in worker.DOMAINS:
        for act in worker.activities_of(name, Settings(), lambda _: database):
            definition = activity._Definition.must_from_callable(act)
            assert str(definition.name).startswith(f"{name}.")
            offered.add(definition.name)
    wanted = {
        name
        for step in (*STORY, *IF_MISSING, REMIND, *REFUND)
        for name in (step.activity, step.undo, step.undo_if_cancelled, step.undo_if_expired)
        if name
    }
    assert offered == wanted


def test_the_command_offers_every_worker_that_there_is() -> None:
    assert tuple(domain.value for domain in Domain) == worker.CHOICES

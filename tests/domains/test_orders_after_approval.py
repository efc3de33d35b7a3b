"""Orders, after the approval: adjusted, ready, reminded of, completed or expired, and refunded."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from domains.orders.messages import (
    AdjustOrder,
    ApproveOrder,
    CancelOrder,
    CompleteOrder,
    ExpireOrder,
    OrderView,
    PlaceOrder,
    ReadyOrder,
    RefundOrder,
    RemindOfPickup,
    WithdrawRefund,
)
from domains.orders.service import Orders
from kernel.database import Database
from kernel.errors import ConcurrencyConflict, Conflict, OrderClosed, Refused
from kernel.ids import new_id
from kernel.messages import Cancellation, Expiry, Pieces, Substitution
from tests.domains.test_orders import events_of
from tests.samples import place, priced

UNTIL = datetime(2026, 1, 2, 12, tzinfo=UTC)
TEAS = priced("tea", 3, 450)
CHEAP_TEA = priced("tea", 1, 400)
CUP = priced("cup", 1, 900)


async def approved(orders: Orders) -> PlaceOrder:
    command = place()
    await orders.place(command)
    lines = [TEAS, CHEAP_TEA, CUP]
    await orders.approve(ApproveOrder(order_id=command.order_id, lines=lines, total_cents=2650))
    return command


async def completed(orders: Orders) -> UUID:
    order_id = (await approved(orders)).order_id
    await orders.make_ready(ReadyOrder(order_id=order_id, pickup_until=UNTIL))
    await orders.complete(CompleteOrder(order_id=order_id, by="bea"))
    return order_id


async def view(orders: Orders, order_id: UUID) -> OrderView:
    found = await orders.view(order_id)
    assert found is not None
    return found


def refund(order_id: UUID, **pieces: int) -> RefundOrder:
    lines = [Pieces(sku=sku, quantity=quantity) for sku, quantity in pieces.items()] or None
    return RefundOrder(order_id=order_id, refund_id=new_id(), lines=lines, by="bea")


async def test_every_step_after_the_approval_takes_effect_once(orders: Orders, database: Database) -> None:
    order_id = (await approved(orders)).order_id
    missing = [Pieces(sku="cup", quantity=1)]
    mug = Substitution(sku="cup", line=priced("mug", 1, 800))
    for _ in range(2):
        await orders.adjust(
            AdjustOrder(
                order_id=order_id,
                round=1,
                lines=[TEAS, mug.line],
                total_cents=2150,
                missing=missing,
                substituted=[mug],
            )
        )
    for _ in range(2):
        await orders.make_ready(ReadyOrder(order_id=order_id, pickup_until=UNTIL))
    for number in (1, 1, 2, 1):
        await orders.remind(RemindOfPickup(order_id=order_id, number=number))
    ready = await view(orders, order_id)
    assert (ready.status, ready.total_cents, ready.items) == ("ready", 2150, [TEAS, mug.line])
    assert (ready.missing, ready.substituted, ready.pickup_until) == (missing, [mug], UNTIL)
    for _ in range(2):
        await orders.complete(CompleteOrder(order_id=order_id, by="bea"))
    await orders.remind(RemindOfPickup(order_id=order_id, number=3))
    done = await view(orders, order_id)
    assert (done.status, done.completed_by) == ("completed", "bea")
    assert await events_of(database, order_id) == [
        "OrderPlaced", "OrderApproved", "OrderAdjusted", "OrderReadied",
        "PickupReminded", "PickupReminded", "OrderCompleted",
    ]  # fmt: skip


async def test_what_the_kiosk_was_told_stays_although_items_were_missing(orders: Orders) -> None:
    order_id = (await approved(orders)).order_id
    before = await orders.answer(order_id)
    await orders.adjust(
        AdjustOrder(order_id=order_id, round=1, lines=[TEAS], total_cents=1350, missing=[], substituted=[])
    )
    assert await orders.answer(order_id) == before


async def test_an_order_that_nobody_came_for_expires_once(orders: Orders, database: Database) -> None:
    command = await approved(orders)
    await orders.make_ready(ReadyOrder(order_id=command.order_id, pickup_until=UNTIL))
    answers = [await orders.expire(ExpireOrder(order=command, expiry=Expiry(pickup_until=UNTIL))) for _ in "ab"]
    assert answers[0] == answers[1] == await orders.answer(command.order_id)
    assert (await view(orders, command.order_id)).status == "expired"
    with pytest.raises(OrderClosed):
        await orders.complete(CompleteOrder(order_id=command.order_id, by="bea"))
    assert (await events_of(database, command.order_id))[-1] == "OrderExpired"


async def test_an_order_that_was_handed_over_can_not_be_undone(orders: Orders) -> None:
    command = await approved(orders)
    await orders.make_ready(ReadyOrder(order_id=command.order_id, pickup_until=UNTIL))
    await orders.complete(CompleteOrder(order_id=command.order_id, by="bea"))
    with pytest.raises(Conflict, match="was handed over"):
        await orders.cancel(CancelOrder(order=command, cancellation=Cancellation(by="staff")))
    with pytest.raises(Conflict, match="was handed over"):
        await orders.expire(ExpireOrder(order=command, expiry=Expiry(pickup_until=UNTIL)))


async def test_an_order_is_not_completed_before_it_is_ready(orders: Orders) -> None:
    order_id = (await approved(orders)).order_id
    with pytest.raises(Conflict, match="is approved and can not be completed"):
        await orders.complete(CompleteOrder(order_id=order_id, by="bea"))


async def test_a_cancel_and_a_hand_over_at_once_end_the_order_in_one_way(orders: Orders) -> None:
    command = await approved(orders)
    await orders.make_ready(ReadyOrder(order_id=command.order_id, pickup_until=UNTIL))
    outcomes = await asyncio.gather(
        orders.complete(CompleteOrder(order_id=command.order_id, by="bea")),
        orders.cancel(CancelOrder(order=command, cancellation=Cancellation(by="staff"))),
        return_exceptions=True,
    )
    lost = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    assert len(lost) == 1
    assert isinstance(lost[0], ConcurrencyConflict | Conflict | OrderClosed)
    assert (await view(orders, command.order_id)).status in ("completed", "cancelled")


class TestRefund:
    """What was handed over can be given back, each piece once."""

    async def test_a_refund_asked_for_twice_is_one_refund(self, orders: Orders, database: Database) -> None:
        order_id = await completed(orders)
        command = refund(order_id, cup=1)
        first = await orders.refund(command)
        assert await orders.refund(command) == first
        assert (first.amount_cents, first.lines, first.currency) == (900, [CUP], "USD")
        assert (await view(orders, order_id)).refunded_cents == 900
        assert (await events_of(database, order_id)).count("OrderRefunded") == 1

    async def test_of_pieces_with_different_prices_the_dearest_are_refunded_first(self, orders: Orders) -> None:
        order_id = await completed(orders)
        assert (await orders.refund(refund(order_id, tea=2))).amount_cents == 900
        assert (await orders.refund(refund(order_id, tea=2))).amount_cents == 850
        with pytest.raises(Refused, match="there are 0 of tea to refund, not 1"):
            await orders.refund(refund(order_id, tea=1))

    async def test_a_refund_in_full_is_what_is_left(self, orders: Orders) -> None:
        order_id = await completed(orders)
        await orders.refund(refund(order_id, tea=1))
        rest = await orders.refund(refund(order_id))
        assert rest.amount_cents == 2650 - 450
        with pytest.raises(Refused, match="all of it was refunded"):
            await orders.refund(refund(order_id))

    async def test_a_refund_that_could_not_be_paid_leaves_the_pieces_to_be_refunded(self, orders: Orders) -> None:
        order_id = await completed(orders)
        command = refund(order_id)
        await orders.refund(command)
        for _ in range(2):
            await orders.withdraw_refund(
                WithdrawRefund(order_id=order_id, refund_id=command.refund_id, reason="payment_declined")
            )
        assert (await view(orders, order_id)).refunded_cents == 0
        assert (await orders.refund(command)).amount_cents == 2650  # a late repeat says what it was
        assert (await orders.refund(refund(order_id))).amount_cents == 2650

    async def test_a_refund_that_was_withdrawn_before_it_came_is_refused(self, orders: Orders) -> None:
        order_id = await completed(orders)
        command = refund(order_id)
        await orders.withdraw_refund(
            WithdrawRefund(order_id=order_id, refund_id=command.refund_id, reason="refused")
        )
        with pytest.raises(Refused, match="was withdrawn"):
            await orders.refund(command)

    async def test_what_was_not_handed_over_is_not_refunded(self, orders: Orders) -> None:
        order_id = (await approved(orders)).order_id
        with pytest.raises(Refused, match="the order is approved"):
            await orders.refund(refund(order_id))

    async def test_two_refunds_at_once_never_give_back_more_than_was_sold(self, orders: Orders) -> None:
        order_id = await completed(orders)

        async def persist(command: RefundOrder) -> int:
            while True:
                try:
                    return (await orders.refund(command)).amount_cents
                except ConcurrencyConflict:
                    continue
                except Refused:
                    return 0

        amounts = await asyncio.gather(*(persist(refund(order_id, cup=1)) for _ in range(5)))
        assert sorted(amounts) == [0, 0, 0, 0, 900]


async def test_staff_find_an_order_by_its_pickup_code_and_page_through_the_rest(orders: Orders) -> None:
    first, second = [(await approved(orders)).order_id for _ in range(2)]
    code = (await view(orders, first)).pickup_code
    assert [order.order_id for order in await orders.find(pickup_code=code)] == [first]
    newest = await orders.find(statuses=["approved"], limit=2)
    assert [order.order_id for order in newest] == [second, first]
    assert (await orders.find(statuses=["approved"], before=second, limit=1))[0].order_id == first
    assert await orders.find(pickup_code=code, statuses=["completed"]) == []
    assert newest[0].placed_at + timedelta(minutes=1) > datetime.now(UTC)


async def test_staff_find_orders_by_the_beginning_of_a_name_and_by_kiosk(orders: Orders) -> None:
    kiosk = f"kiosk-{new_id()}"

    async def placed(customer: str | None, where: str = kiosk) -> UUID:
        command = place().model_copy(update={"customer": customer, "kiosk": where})
        await orders.place(command)
        return command.order_id

    async def found(customer: str, where: str | None = kiosk) -> list[UUID]:
        return [order.order_id for order in await orders.find(customer=customer, kiosk=where)]

    ada, adam, eve = await placed("Ada L."), await placed("ADAM"), await placed("100% Eve")
    nobody, elsewhere = await placed(None), await placed("Ada", f"{kiosk}-2")
    assert await found("ada") == [adam, ada]
    assert (await found("aDa", None))[0] == elsewhere
    assert await found("da") == []
    assert await found("100%") == [eve]
    assert await found("%") == await found("Ada_") == await found("\\") == []
    assert [order.order_id for order in await orders.find(kiosk=kiosk)] == [nobody, eve, adam, ada]

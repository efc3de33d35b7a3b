"""Orders: what an order may and may not become."""

import asyncio

import pytest
from sqlalchemy import text

from domains.orders.messages import ApproveOrder, CancelOrder, NamedLine, RejectOrder
from domains.orders.service import PICKUP_CODE_LENGTH, PICKUP_CODE_SIGNS, Orders
from kernel.database import Database
from kernel.errors import ConcurrencyConflict, Conflict, IdempotencyKeyReused, OrderClosed, Refusal
from kernel.ids import new_id
from kernel.messages import Cancellation
from tests.samples import line, place, priced

REFUSAL = Refusal(code="payment_declined", detail="the card was declined")
BY_CUSTOMER = Cancellation(by="customer", reason="changed my mind")


async def events_of(database: Database, order_id: object) -> list[str]:
    async with database.transaction() as connection:
        rows = await connection.execute(
            text("SELECT type FROM orders.events WHERE stream = :stream ORDER BY version"),
            {"stream": f"order-{order_id}"},
        )
        return [row.type for row in rows]


async def test_an_order_placed_twice_is_recorded_once(orders: Orders, database: Database) -> None:
    command = place()
    await orders.place(command)
    await orders.place(command)
    assert await events_of(database, command.order_id) == ["OrderPlaced"]
    view = await orders.view(command.order_id)
    assert view is not None
    lines = [NamedLine(**line.model_dump()) for line in command.lines]
    assert (view.status, view.kiosk, view.lines) == ("pending", "kiosk-1", lines)


async def test_another_order_under_the_same_id_is_refused(orders: Orders) -> None:
    command = place()
    await orders.place(command)
    with pytest.raises(IdempotencyKeyReused):
        await orders.place(place(command.order_id, line("coffee", 1)))


async def test_an_approved_order_keeps_its_prices_and_its_first_pickup_code(
    orders: Orders, database: Database
) -> None:
    command = place()
    await orders.place(command)
    approve = ApproveOrder(order_id=command.order_id, lines=[priced()], total_cents=900)
    first = await orders.approve(approve)
    again = await orders.approve(approve)
    assert again == first
    assert first.total_cents == 900
    assert first.items == [priced()]
    assert first.pickup_code is not None
    assert len(first.pickup_code) == PICKUP_CODE_LENGTH
    assert set(first.pickup_code) <= set(PICKUP_CODE_SIGNS)
    assert await events_of(database, command.order_id) == ["OrderPlaced", "OrderApproved"]


async def test_an_order_that_was_never_placed_is_not_approved(orders: Orders) -> None:
    with pytest.raises(Conflict):
        await orders.approve(ApproveOrder(order_id=new_id(), lines=[priced()], total_cents=900))


async def test_a_rejected_order_tells_its_reason_and_stays_rejected(orders: Orders, database: Database) -> None:
    command = place()
    await orders.place(command)
    for _ in range(2):
        await orders.reject(RejectOrder(order=command, refusal=REFUSAL))
    answer = await orders.answer(command.order_id)
    assert answer is not None
    assert answer.refusal == REFUSAL
    assert await events_of(database, command.order_id) == ["OrderPlaced", "OrderRejected"]
    with pytest.raises(OrderClosed):
        await orders.approve(ApproveOrder(order_id=command.order_id, lines=[priced()], total_cents=900))
    assert (await orders.cancel(CancelOrder(order=command, cancellation=BY_CUSTOMER))).refusal == REFUSAL
    assert await events_of(database, command.order_id) == ["OrderPlaced", "OrderRejected"]


async def test_a_late_approval_never_overwrites_a_cancellation(orders: Orders) -> None:
    command = place()
    await orders.place(command)
    await orders.cancel(CancelOrder(order=command, cancellation=BY_CUSTOMER))
    with pytest.raises(OrderClosed):
        await orders.approve(ApproveOrder(order_id=command.order_id, lines=[priced()], total_cents=900))
    view = await orders.view(command.order_id)
    assert view is not None
    assert (view.status, view.cancellation) == ("cancelled", BY_CUSTOMER)
    answer = await orders.answer(command.order_id)
    assert answer is not None
    assert answer.refusal is not None
    assert answer.refusal.code == "order_cancelled"


async def test_an_order_cancelled_after_its_approval_was_still_answered_with_the_approval(
    orders: Orders,
) -> None:
    command = place()
    await orders.place(command)
    approved = await orders.approve(ApproveOrder(order_id=command.order_id, lines=[priced()], total_cents=900))
    for _ in range(2):
        await orders.cancel(CancelOrder(order=command, cancellation=BY_CUSTOMER))
    assert await orders.answer(command.order_id) == approved


@pytest.mark.parametrize("ending", ["rejected", "cancelled"])
async def test_an_order_that_ended_before_it_was_placed_is_on_record_and_never_placed_again(
    orders: Orders, ending: str
) -> None:
    command = place()
    if ending == "rejected":
        await orders.reject(RejectOrder(order=command, refusal=REFUSAL))
    else:
        await orders.cancel(CancelOrder(order=command, cancellation=BY_CUSTOMER))
    view = await orders.view(command.order_id)
    assert view is not None
    assert view.status == ending
    with pytest.raises(OrderClosed):
        await orders.place(command)


async def test_of_an_approval_and_a_cancellation_at_once_the_order_ends_as_exactly_one_story(
    orders: Orders, database: Database
) -> None:
    for _ in range(10):
        command = place()
        await orders.place(command)
        await asyncio.gather(
            orders.approve(ApproveOrder(order_id=command.order_id, lines=[priced()], total_cents=900)),
            orders.cancel(CancelOrder(order=command, cancellation=BY_CUSTOMER)),
            return_exceptions=True,
        )
        story = await events_of(database, command.order_id)
        assert story in (
            ["OrderPlaced", "OrderApproved"],
            ["OrderPlaced", "OrderCancelled"],
            ["OrderPlaced", "OrderApproved", "OrderCancelled"],
        )
        view = await orders.view(command.order_id)
        assert view is not None
        assert view.status == ("cancelled" if story[-1] == "OrderCancelled" else "approved")


async def test_the_row_of_an_order_tells_what_its_stream_tells(orders: Orders, database: Database) -> None:
    command = place()
    await orders.place(command)
    answer = await orders.approve(ApproveOrder(order_id=command.order_id, lines=[priced()], total_cents=900))
    async with database.transaction() as connection:
        row = (
            await connection.execute(
                text("SELECT status, version, total_cents, pickup_code FROM orders.orders WHERE id = :id"),
                {"id": command.order_id},
            )
        ).one()
    assert tuple(row) == ("approved", 2, 900, answer.pickup_code)


async def test_two_open_orders_never_share_a_pickup_code(orders: Orders, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = place(), place()
    await orders.place(first)
    await orders.place(second)
    codes = iter(["SAMESAME", "SAMESAME", "OTHER"])
    monkeypatch.setattr("domains.orders.service._new_pickup_code", lambda: next(codes))
    await orders.approve(ApproveOrder(order_id=first.order_id, lines=[priced()], total_cents=900))
    again = ApproveOrder(order_id=second.order_id, lines=[priced()], total_cents=900)
    with pytest.raises(ConcurrencyConflict):
        await orders.approve(again)
    assert (await orders.approve(again)).pickup_code == "OTHER"

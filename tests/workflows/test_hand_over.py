"""The desk: the pickup code, the payment, and all that may go wrong before an order leaves the mall."""

import asyncio
from datetime import timedelta

import pytest

from domains.orders.messages import RefundOrder
from domains.payments.messages import CashPayment, PickupPayment, Receipt
from kernel.errors import (
    HandOverUnderWay,
    IdempotencyKeyReused,
    InvalidInput,
    MallError,
    NotReady,
    OrderClosed,
    ProviderTimeout,
    Refusal,
    Refused,
    TooManyAttempts,
    Unavailable,
    WrongPickupCode,
)
from kernel.ids import new_id
from kernel.messages import Expiry, Pieces
from tests.workflows.conftest import Story
from tests.workflows.test_saga import UNDO, Gate, refuse
from tests.workflows.test_shopping import BY_STAFF, TO_READY
from workflows.attributes import ORDER_STATUS, REASON
from workflows.client import OrderSagas
from workflows.desk import SHUT_FOR, WRONG_CODES
from workflows.messages import HandOver, RefundOutcome
from workflows.order import OrderWorkflow

CODE = "BCDFGH"
HANDED_OVER = ["payments.capture", "stores.consume", "orders.complete"]
SOON = timedelta(seconds=10)


async def hand_over(story: Story, code: str = CODE, *, cash: int | None = None, by: str = "bea") -> Receipt:
    """One attempt of a member of staff; raises as the desk is told."""
    payment = CashPayment(tendered_cents=cash) if cash is not None else None
    receipt = await OrderSagas(story.domains.client).hand_over(
        story.id, HandOver(pickup_code=code, payment=payment, by=by), attempt=str(new_id()), timeout=SOON
    )
    assert receipt is not None
    return receipt


@pytest.mark.recorded
async def test_an_order_is_handed_over_and_paid(story: Story) -> None:
    await story.ready()
    receipt = await hand_over(story)
    assert receipt == Receipt(method="card", amount_cents=900, currency="USD")
    outcome = await story.handle.result()
    assert (outcome.status, outcome.cause, outcome.receipt) == ("completed", None, receipt)
    assert story.done == [*TO_READY, *HANDED_OVER]
    assert (await story.handle.describe()).typed_search_attributes[ORDER_STATUS] == "completed"
    assert len((await story.history()).events) <= 105


async def test_the_same_attempt_twice_is_one_hand_over_with_one_receipt(story: Story) -> None:
    await story.ready()
    sagas, request = OrderSagas(story.domains.client), HandOver(pickup_code=CODE, by="bea")
    first, second = await asyncio.gather(
        *(sagas.hand_over(story.id, request, attempt="1", timeout=SOON) for _ in range(2))
    )
    await story.handle.result()
    assert first == second == await sagas.hand_over(story.id, request, attempt="1", timeout=SOON)
    assert story.done == [*TO_READY, *HANDED_OVER]


async def test_of_two_staff_at_once_one_hands_over_and_the_other_is_told(story: Story) -> None:
    gate = Gate()
    story.domains.when(story.id, "payments.capture", gate)
    await story.ready()
    bea = asyncio.create_task(hand_over(story, by="bea"))
    await gate.reached.wait()
    with pytest.raises(HandOverUnderWay, match="bea is handing the order over"):
        await hand_over(story, by="cy")
    gate.opened.set()
    await bea
    await story.handle.result()
    with pytest.raises(OrderClosed):
        await hand_over(story, by="cy")
    assert story.done == [*TO_READY, *HANDED_OVER]


async def test_an_order_that_is_not_at_the_desk_is_not_handed_over(story: Story) -> None:
    await story.answer()
    with pytest.raises(NotReady):
        await hand_over(story)


@pytest.mark.recorded
async def test_five_wrong_pickup_codes_shut_the_order_for_a_while(story: Story) -> None:
    await story.ready()
    for _ in range(WRONG_CODES):
        with pytest.raises(WrongPickupCode):
            await hand_over(story, "222222")
    before = len((await story.history()).events)
    with pytest.raises(TooManyAttempts) as shut:
        await hand_over(story)
    assert 0 < shut.value.retry_after_seconds <= SHUT_FOR.total_seconds() + 1
    assert len((await story.history()).events) == before
    await story.let_pass(SHUT_FOR)
    await hand_over(story)
    assert (await story.handle.result()).status == "completed"


async def test_four_wrong_codes_and_a_right_one_are_forgotten(story: Story) -> None:
    story.domains.when(story.id, "payments.capture", refuse())
    await story.ready()
    for _ in range(2):
        for _ in range(WRONG_CODES - 1):
            with pytest.raises(WrongPickupCode):
                await hand_over(story, "é")
        with pytest.raises(Refused):
            await hand_over(story)


@pytest.mark.recorded
async def test_a_refused_capture_leaves_the_order_ready_and_it_can_be_paid_otherwise(story: Story) -> None:
    refusals = [Refused(Refusal(code="hold_lapsed", detail="the hold is gone"))]

    async def refuse_once(attempt: int) -> None:
        if refusals:
            raise refusals.pop()

    story.domains.when(story.id, "payments.capture", refuse_once)
    await story.ready()
    with pytest.raises(Refused, match="the hold is gone"):
        await hand_over(story)
    assert (await story.account()).status == "ready"
    await hand_over(story, cash=1000)
    assert (await story.handle.result()).status == "completed"
    assert story.done == [*TO_READY, *HANDED_OVER]


@pytest.mark.recorded
async def test_a_capture_that_nobody_answers_is_given_up_and_can_be_tried_again(story: Story) -> None:
    down = True

    async def silent(attempt: int) -> None:
        if down:
            raise ProviderTimeout("the payment provider did not answer in time")

    story.domains.when(story.id, "payments.capture", silent)
    await story.ready()
    failing = asyncio.create_task(hand_over(story))
    await story.until(lambda account: account.status == "handing_over")
    await story.let_pass(timedelta(minutes=1))
    with pytest.raises(MallError, match="did not answer in time"):
        await failing
    account = await story.account()
    assert (account.status, account.stuck) == ("ready", None)
    down = False
    await hand_over(story)
    assert (await story.handle.result()).status == "completed"


async def test_cash_that_is_too_little_is_told_at_once(story: Story) -> None:
    async def too_little(attempt: int) -> None:
        raise InvalidInput("9.00 USD are due", "payment.tendered_cents")

    story.domains.when(story.id, "payments.capture", too_little)
    await story.ready()
    with pytest.raises(InvalidInput, match=r"9.00 USD are due") as refused:
        await hand_over(story, cash=1)
    assert refused.value.field == "payment.tendered_cents"
    assert (await story.account()).status == "ready"


async def test_an_order_to_be_paid_at_the_desk_needs_a_payment(story: Story) -> None:
    story.request = story.request.model_copy(update={"payment": PickupPayment()})
    await story.ready()
    with pytest.raises(InvalidInput, match="paid at the desk") as missing:
        await hand_over(story)
    assert missing.value.field == "payment"
    await hand_over(story, cash=1000)


@pytest.mark.recorded
async def test_a_cancel_that_comes_while_the_payment_is_taken_comes_too_late(story: Story) -> None:
    gate = Gate()
    story.domains.when(story.id, "payments.capture", gate)
    await story.ready()
    handing = asyncio.create_task(hand_over(story))
    await gate.reached.wait()
    await story.handle.signal(OrderWorkflow.cancel, BY_STAFF)
    await story.handle.cancel()
    gate.opened.set()
    await handing
    assert (await story.handle.result()).status == "completed"
    assert story.done == [*TO_READY, *HANDED_OVER]


@pytest.mark.recorded
async def test_a_cancel_that_comes_while_the_payment_fails_undoes_everything(story: Story) -> None:
    gate = Gate()

    async def refuse_in_the_end(attempt: int) -> None:
        await gate(attempt)
        raise Refused(Refusal(code="payment_declined", detail="the card was declined"))

    story.domains.when(story.id, "payments.capture", refuse_in_the_end)
    await story.ready()
    handing = asyncio.create_task(hand_over(story))
    await gate.reached.wait()
    await story.handle.signal(OrderWorkflow.cancel, BY_STAFF)
    gate.opened.set()
    with pytest.raises(Refused):
        await handing
    assert (await story.handle.result()).cause == BY_STAFF
    assert story.done == [*TO_READY, *UNDO["orders.approve"], "orders.cancel"]


async def test_staff_can_cancel_an_order_at_the_desk(story: Story) -> None:
    await story.ready()
    await story.handle.signal(OrderWorkflow.cancel, BY_STAFF)
    assert (await story.handle.result()).status == "cancelled"
    with pytest.raises(OrderClosed):
        await hand_over(story)


@pytest.mark.recorded
async def test_an_order_that_nobody_comes_for_expires_after_two_reminders(story: Story) -> None:
    await story.ready()
    assert (until := (await story.account()).pickup_until) is not None
    await story.let_pass(timedelta(hours=3))
    assert story.done == [*TO_READY, "orders.remind"]
    outcome = await story.end()
    assert (outcome.status, outcome.cause) == ("expired", Expiry(pickup_until=until))
    assert story.done == [*TO_READY, "orders.remind", "orders.remind", *UNDO["orders.approve"], "orders.expire"]
    assert (await story.handle.describe()).typed_search_attributes[ORDER_STATUS] == "expired"


async def test_an_order_can_still_be_handed_over_in_the_last_hour(story: Story) -> None:
    await story.ready()
    await story.let_pass(timedelta(hours=23, minutes=30))
    await hand_over(story)
    assert (await story.handle.result()).status == "completed"


async def test_after_the_payment_the_order_completes_however_often_its_steps_fail(story: Story) -> None:
    failures = 3

    async def fail_for_a_while(attempt: int) -> None:
        if attempt <= failures:
            raise ProviderTimeout("down")

    story.domains.when(story.id, "stores.consume", fail_for_a_while)
    story.domains.when(story.id, "orders.complete", fail_for_a_while)
    await story.ready()
    await hand_over(story)
    assert (await story.handle.result()).status == "completed"


async def test_a_hand_over_that_waits_while_a_reminder_is_sent_is_told_when_the_order_is_cancelled(
    story: Story,
) -> None:
    gate = Gate()
    story.domains.when(story.id, "orders.remind", gate)
    await story.ready()
    passing = asyncio.create_task(story.let_pass(timedelta(hours=2)))
    await gate.reached.wait()
    waiting = asyncio.create_task(hand_over(story))
    await story.until(lambda account: account.status == "handing_over")
    await story.handle.signal(OrderWorkflow.cancel, BY_STAFF)
    gate.opened.set()
    with pytest.raises(OrderClosed, match="is being undone"):
        await waiting
    assert (await story.handle.result()).cause == BY_STAFF
    await passing


@pytest.mark.recorded
async def test_a_reminder_that_does_not_get_through_keeps_nobody_from_being_served(story: Story) -> None:
    async def down(attempt: int) -> None:
        raise Unavailable("the orders database does not answer")

    story.domains.when(story.id, "orders.remind", down)
    await story.ready()
    await story.let_pass(timedelta(hours=3))
    assert (await story.account()).stuck is None
    await hand_over(story)
    assert (await story.handle.result()).status == "completed"


class TestRefund:
    """A refund is a saga of its own."""

    @pytest.mark.recorded
    async def test_a_refund_is_given_back_once_however_often_it_is_asked_for(self, story: Story) -> None:
        request = await _completed(story)
        sagas = OrderSagas(story.domains.client)
        first, second = await asyncio.gather(*(sagas.refund(request, timeout=SOON) for _ in range(2)))
        assert first == second == await sagas.refund(request, timeout=SOON)
        assert isinstance(first, RefundOutcome)
        assert first.refund is not None
        assert first.refund.amount_cents == 450
        assert story.done[-2:] == ["orders.refund", "payments.refund"]
        assert story.done.count("payments.refund") == 1

    async def test_another_refund_under_the_same_id_is_told(self, story: Story) -> None:
        request = await _completed(story)
        sagas = OrderSagas(story.domains.client)
        await sagas.refund(request, timeout=SOON)
        other = request.model_copy(update={"lines": [Pieces(sku="tea", quantity=1)]})
        with pytest.raises(IdempotencyKeyReused):
            await sagas.refund(other, timeout=SOON)

    @pytest.mark.recorded
    async def test_a_refund_that_can_not_be_paid_is_withdrawn(self, story: Story) -> None:
        request = await _completed(story)
        story.domains.when(story.id, "payments.refund", refuse())
        outcome = await OrderSagas(story.domains.client).refund(request, timeout=SOON)
        assert outcome is not None
        assert outcome.refusal is not None
        assert story.done[-2:] == ["orders.refund", "orders.withdraw_refund"]
        listed = await story.domains.client.get_workflow_handle(f"refund-{request.refund_id}").describe()
        assert listed.typed_search_attributes.get(REASON) == outcome.refusal.code

    @pytest.mark.recorded
    async def test_a_cancelled_refund_workflow_still_gives_the_money_back(self, story: Story) -> None:
        gate = Gate()
        request = await _completed(story)
        story.domains.when(story.id, "payments.refund", gate)
        refunding = asyncio.create_task(OrderSagas(story.domains.client).refund(request, timeout=SOON))
        await gate.reached.wait()
        await story.domains.client.get_workflow_handle(f"refund-{request.refund_id}").cancel()
        gate.opened.set()
        outcome = await refunding
        assert outcome is not None
        assert outcome.refund is not None


async def _completed(story: Story) -> RefundOrder:
    await story.ready()
    await hand_over(story)
    await story.handle.result()
    story.refund_id = new_id()
    return RefundOrder(order_id=story.id, refund_id=story.refund_id, lines=None, by="bea")

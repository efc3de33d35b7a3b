"""The order in the hands of robots: taken, lost, picked, not found, brought to the desk."""

import asyncio
from datetime import timedelta

import pytest
from temporalio.api.enums.v1 import EventType

from domains.depot.messages import ShoppingResult
from domains.stores.messages import Adjustment
from kernel.errors import OrderClosed, Refusal, Refused, Unavailable
from kernel.messages import Cancellation, Substitution
from tests.samples import priced
from tests.workflows.conftest import Answer, Behaviour, Story
from tests.workflows.test_saga import BY_CUSTOMER, STEPS, UNDO
from workflows.attributes import ORDER_STATUS, ROBOT
from workflows.order import OrderWorkflow

BY_STAFF = Cancellation(by="staff", reason="the customer called", name="bea")
TO_READY = [*STEPS, "orders.ready"]


async def test_a_robot_brings_the_order_to_the_desk(story: Story) -> None:
    await story.ready()
    assert story.done == TO_READY
    attributes = (await story.handle.describe()).typed_search_attributes
    assert (attributes[ORDER_STATUS], attributes[ROBOT]) == ("ready", "robot-1")
    account = await story.account()
    assert (account.robot, account.picked, account.pieces) == ("robot-1", 2, 2)


async def test_an_order_waits_for_a_robot_without_end(story: Story) -> None:
    await story.answer()
    await story.until(lambda account: account.steps[5].state == "running")
    scheduled = [event.activity_task_scheduled_event_attributes for event in (await story.history()).events]
    waiting = next(one for one in scheduled if one.activity_id == "depot.assign-1")
    # Nothing ends it but a robot: attempts are repeated without end, which no event tells of.
    assert waiting.retry_policy.maximum_attempts == 0
    assert waiting.schedule_to_close_timeout.ToTimedelta() in (timedelta(), timedelta(days=36500))


@pytest.mark.recorded
async def test_a_robot_that_is_silent_for_too_long_loses_the_list_to_the_next(story: Story) -> None:
    seen: list[int] = []

    async def silent_from_the_second_attempt_on(attempt: int) -> None:
        seen.append(attempt)
        if attempt == 2:
            raise Answer(ShoppingResult(silent="robot-1"))

    story.domains.when(story.id, "depot.shop", silent_from_the_second_attempt_on)
    story.request = story.request.model_copy(update={"silence": timedelta(seconds=1)})
    await story.answer()
    await story.robot_takes("robot-1")
    await story.robot_takes("robot-2", round=2)
    await story.robot_brings(round=2)
    await story.until(lambda account: account.status == "ready")
    assert (await story.account()).robot == "robot-2"
    assert seen == [1, 2, 1]


async def test_a_customer_can_cancel_until_a_robot_has_the_list(story: Story) -> None:
    await story.answer()
    await story.handle.signal(OrderWorkflow.cancel, BY_CUSTOMER)
    assert (await story.handle.result()).cause == BY_CUSTOMER
    assert story.done == [*STEPS, *UNDO["orders.approve"], "orders.cancel"]


@pytest.mark.recorded
async def test_once_a_robot_has_the_list_only_staff_can_cancel(story: Story) -> None:
    await story.answer()
    await story.robot_takes()
    await story.handle.signal(OrderWorkflow.cancel, BY_CUSTOMER)
    assert (await story.account()).cause is None
    await story.handle.signal(OrderWorkflow.cancel, BY_STAFF)
    assert (await story.handle.result()).cause == BY_STAFF
    assert story.done == [*STEPS, *UNDO["orders.approve"], "orders.cancel"]


@pytest.mark.recorded
async def test_what_is_missing_is_skipped_and_total_and_hold_go_down(story: Story) -> None:
    await story.answer()
    await story.robot_takes()
    await story.robot_brings(1, missing=1, completed=False)
    await story.robot_brings(1, missing=1, round=2)
    await story.until(lambda account: account.status == "ready")
    assert story.done == [
        *STEPS, "stores.adjust", "payments.adjust", "orders.adjust", "depot.amend", "orders.ready",
    ]  # fmt: skip
    account = await story.account()
    assert (account.picked, account.pieces) == (1, 1)
    assert [step.activity for step in account.steps[6:11]] == [
        "depot.shop", "stores.adjust", "payments.adjust", "orders.adjust", "depot.amend",
    ]  # fmt: skip


@pytest.mark.recorded
async def test_an_order_of_which_nothing_is_found_is_cancelled_and_undone(story: Story) -> None:
    await story.answer()
    await story.robot_takes()
    await story.robot_brings(0, missing=2, completed=False)
    outcome = await story.handle.result()
    assert outcome.cause == Cancellation(by="mall", reason="nothing of it was found")
    assert story.done == [*STEPS, "stores.adjust", *UNDO["orders.approve"], "orders.cancel"]


@pytest.mark.recorded
async def test_a_line_that_must_not_be_missing_cancels_the_order(story: Story) -> None:
    story.domains.when(story.id, "stores.adjust", answer(Adjustment(lines=[], total_cents=0, must_cancel=["tea"])))
    await story.answer()
    await story.robot_takes()
    await story.robot_brings(1, missing=1, completed=False)
    outcome = await story.handle.result()
    assert outcome.status == "cancelled"
    assert outcome.cause == Cancellation(by="mall", reason="tea was not found, and must not be missing")


@pytest.mark.recorded
async def test_a_dearer_substitute_that_the_card_does_not_pay_is_dropped(story: Story) -> None:
    coffee = Substitution(sku="tea", line=priced("coffee", 1, 900))
    dearer = Adjustment(lines=[priced(quantity=1), coffee.line], total_cents=1350, substitutes=[coffee])
    refusals = [Refused(Refusal(code="insufficient_funds", detail="not enough"))]

    async def refuse_once(attempt: int) -> None:
        if refusals:
            raise refusals.pop()

    story.domains.when(story.id, "stores.adjust", answer(dearer))
    story.domains.when(story.id, "payments.adjust", refuse_once)
    await story.answer()
    await story.robot_takes()
    await story.robot_brings(1, missing=1, completed=False)
    await story.robot_brings(1, missing=1, round=2)
    await story.until(lambda account: account.status == "ready")
    assert story.done[len(STEPS) :] == [
        "stores.drop_substitutes", "payments.adjust", "orders.adjust", "depot.amend", "orders.ready",
    ]  # fmt: skip


async def test_an_approved_order_whose_payment_is_gone_is_cancelled_and_not_rejected(story: Story) -> None:
    async def gone(attempt: int) -> None:
        raise OrderClosed("it was captured at the provider")

    story.domains.when(story.id, "payments.adjust", gone)
    await story.answer()
    await story.robot_takes()
    await story.robot_brings(1, missing=1, completed=False)
    outcome = await story.handle.result()
    assert outcome.cause == Cancellation(by="mall", reason="it was captured at the provider")
    assert story.done[-1] == "orders.cancel"


async def test_a_step_that_was_refused_once_is_shown_as_stuck_when_it_fails_the_next_time(story: Story) -> None:
    refusals: list[Exception] = [Refused(Refusal(code="insufficient_funds", detail="not enough"))]

    async def refuse_then_fail(attempt: int) -> None:
        raise refusals.pop() if refusals else Unavailable("the payments database does not answer")

    story.domains.when(story.id, "payments.adjust", refuse_then_fail)
    await story.answer()
    await story.robot_takes()
    await story.robot_brings(1, missing=1, completed=False)
    await story.until(lambda account: any(step.attempts > 0 for step in account.steps if "drop" in step.activity))
    await story.let_pass(timedelta(minutes=3))
    assert (await story.account()).stuck == "payments.adjust"
    await story.handle.signal(OrderWorkflow.cancel, BY_STAFF)
    assert (await story.handle.result()).status == "cancelled"


async def test_a_cancel_while_missing_items_are_settled_undoes_everything(story: Story) -> None:
    reached, opened = asyncio.Event(), asyncio.Event()

    async def stand_still(attempt: int) -> None:
        reached.set()
        await opened.wait()

    story.domains.when(story.id, "payments.adjust", stand_still)
    await story.answer()
    await story.robot_takes()
    await story.robot_brings(1, missing=1, completed=False)
    await reached.wait()
    await story.handle.signal(OrderWorkflow.cancel, BY_STAFF)
    await story.until(lambda account: account.status == "undoing")
    opened.set()
    assert (await story.handle.result()).status == "cancelled"
    assert story.done == [*STEPS, "stores.adjust", "payments.adjust", *UNDO["orders.approve"], "orders.cancel"]


async def test_an_order_completed_without_trouble_has_a_small_history(story: Story) -> None:
    await story.ready()
    history = await story.history()
    assert len(history.events) <= 75
    waits = [event for event in history.events if event.event_type == EventType.EVENT_TYPE_TIMER_STARTED]
    assert len(waits) == 1


def answer(reply: object) -> Behaviour:
    async def behave(attempt: int) -> None:
        raise Answer(reply)

    return behave

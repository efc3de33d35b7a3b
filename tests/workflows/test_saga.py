"""The saga: every step beside its undo, and what happens when one fails, or somebody changes his mind."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from temporalio import activity
from temporalio.api.enums.v1 import EventType
from temporalio.api.sdk.v1 import WorkflowMetadata
from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError
from temporalio.service import RPCError
from temporalio.testing import WorkflowEnvironment

from kernel.errors import OrderClosed, Refusal, Refused, Unavailable
from kernel.messages import Cancellation, DomainName
from tests.workflows.conftest import Behaviour, Domains, Story
from workflows.attributes import ORDER_STATUS, STUCK, TOTAL_CENTS
from workflows.details import as_markdown
from workflows.messages import OrderOutcome, SagaAccount
from workflows.order import OrderWorkflow
from workflows.steps import PATIENCE, WORKFLOW_QUEUE

STEPS = ["orders.place", "stores.reserve", "payments.authorize", "depot.schedule", "orders.approve"]
UNDO = {
    "orders.place": [],
    "stores.reserve": ["stores.release"],
    "payments.authorize": ["payments.void", "stores.release"],
    "depot.schedule": ["depot.cancel", "payments.void", "stores.release"],
    "orders.approve": ["depot.cancel", "payments.void", "stores.release"],
}
"""What is undone, in this order, when the saga ends at a step; then comes `orders.reject` or `orders.cancel`."""

REFUSAL = Refusal(code="payment_declined", detail="the card was declined")
BY_CUSTOMER = Cancellation(by="customer", reason="changed my mind")


def refuse() -> Behaviour:
    async def behave(attempt: int) -> None:
        raise Refused(REFUSAL)

    return behave


def fail(times: int) -> Behaviour:
    left = times

    async def behave(attempt: int) -> None:
        nonlocal left
        left -= 1
        if left >= 0:
            raise Unavailable(f"down, attempt {attempt}")

    return behave


class Gate:
    """An activity that stands still while the test does something: `reached`, then `open` it."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()

    async def __call__(self, attempt: int) -> None:
        self.reached.set()
        await self.opened.wait()


async def cancel(story: Story) -> OrderOutcome:
    await story.handle.signal(OrderWorkflow.cancel, BY_CUSTOMER)
    return await story.handle.result()


@pytest.mark.recorded
async def test_an_order_goes_from_the_kiosk_to_approved(story: Story) -> None:
    answer = await story.answer()
    assert (answer.pickup_code, answer.total_cents, answer.refusal) == ("BCDFGH", 900, None)
    assert story.done == STEPS
    account = await story.account()
    assert account.status == "approved"
    assert [(step.activity, step.state, step.attempts) for step in account.steps[: len(STEPS)]] == [
        (step, "done", 1) for step in STEPS
    ]
    assert [step.undo.activity if step.undo else None for step in account.steps[: len(STEPS)]] == [
        "orders.reject", "stores.release", "payments.void", "depot.cancel", None,
    ]  # fmt: skip
    attributes = (await story.handle.describe()).typed_search_attributes
    assert (attributes[ORDER_STATUS], attributes[TOTAL_CENTS]) == ("approved", 900)


async def test_an_order_sent_twice_is_one_order_with_one_answer(story: Story) -> None:
    first, second = await asyncio.gather(story.answer(), story.answer())
    assert first == second == await story.answer()
    assert story.done == STEPS


@pytest.mark.recorded
@pytest.mark.parametrize("step", STEPS)
async def test_when_a_step_is_refused_the_steps_so_far_are_undone_in_reverse(story: Story, step: str) -> None:
    story.domains.when(story.id, step, refuse())
    answer = await story.answer()
    assert answer.refusal == REFUSAL
    outcome = await story.handle.result()
    assert (outcome.status, outcome.cause) == ("rejected", REFUSAL)
    assert story.done == [*STEPS[: STEPS.index(step)], *UNDO[step], "orders.reject"]
    assert (await story.handle.describe()).typed_search_attributes[ORDER_STATUS] == "rejected"


@pytest.mark.recorded
@pytest.mark.parametrize("step", STEPS)
async def test_when_an_order_is_cancelled_at_a_step_that_step_ends_before_it_is_undone(
    story: Story, step: str
) -> None:
    gate = Gate()
    story.domains.when(story.id, step, gate)
    await story.begin()
    await gate.reached.wait()
    cancelling = asyncio.create_task(cancel(story))
    await story.until(lambda account: account.status == "undoing")
    assert story.done == STEPS[: STEPS.index(step)]
    gate.opened.set()
    outcome = await cancelling
    assert (outcome.status, outcome.cause) == ("cancelled", BY_CUSTOMER)
    assert story.done == [*STEPS[: STEPS.index(step) + 1], *UNDO[step], "orders.cancel"]
    await story.handle.result()


async def test_a_cancel_while_the_approval_runs_still_answers_the_kiosk_with_the_approval(
    story: Story,
) -> None:
    gate = Gate()
    story.domains.when(story.id, "orders.approve", gate)
    await story.begin()
    await gate.reached.wait()
    cancelling = asyncio.create_task(cancel(story))
    await story.until(lambda account: account.status == "undoing")
    gate.opened.set()
    await cancelling
    assert (await story.answer()).pickup_code == "BCDFGH"


@pytest.mark.recorded
@pytest.mark.parametrize("step", STEPS)
async def test_a_cancel_in_the_temporal_web_ui_undoes_everything_too(story: Story, step: str) -> None:
    gate = Gate()
    story.domains.when(story.id, step, gate)
    await story.begin()
    await gate.reached.wait()
    await story.handle.cancel()
    await _until_it_is_history(story, EventType.EVENT_TYPE_ACTIVITY_TASK_CANCEL_REQUESTED)
    gate.opened.set()
    with pytest.raises(WorkflowFailureError):
        await story.handle.result()
    assert story.done == [*STEPS[: STEPS.index(step) + 1], *UNDO[step], "orders.cancel"]
    description = await story.handle.describe()
    assert description.status == WorkflowExecutionStatus.CANCELED
    assert description.typed_search_attributes[ORDER_STATUS] == "cancelled"


async def test_an_order_cancelled_in_the_web_ui_before_it_began_is_still_recorded(
    story: Story, domains: Domains
) -> None:
    await domains.down(WORKFLOW_QUEUE)
    await story.begin()
    await story.handle.cancel()
    await domains.up(WORKFLOW_QUEUE)
    with pytest.raises(WorkflowFailureError):
        await story.handle.result()
    assert story.done == ["orders.cancel"]


async def test_a_cancel_is_on_record_although_no_worker_runs(story: Story, domains: Domains) -> None:
    await story.answer()
    await domains.down(WORKFLOW_QUEUE)
    await story.handle.signal(OrderWorkflow.cancel, BY_CUSTOMER)
    await domains.up(WORKFLOW_QUEUE)
    assert (await story.handle.result()).status == "cancelled"
    assert story.done == [*STEPS, *UNDO["orders.approve"], "orders.cancel"]


async def test_an_approval_whose_reply_got_lost_is_what_a_cancelled_order_answers(story: Story) -> None:
    gate = Gate()

    async def approve_and_lose_the_reply(attempt: int) -> None:
        story.done.append("orders.approve")
        await gate(attempt)
        raise Unavailable("the worker was killed")

    story.domains.when(story.id, "orders.approve", approve_and_lose_the_reply)
    answering = asyncio.create_task(story.answer())
    await gate.reached.wait()
    cancelling = asyncio.create_task(cancel(story))
    await story.until(lambda account: account.status == "undoing")
    gate.opened.set()
    assert (await cancelling).status == "cancelled"
    assert (await answering).pickup_code == "BCDFGH"


async def test_an_undo_that_is_refused_is_tried_again_and_the_rest_is_undone(story: Story) -> None:
    refusals = [OrderClosed("not in this state")]

    async def refuse_once(attempt: int) -> None:
        if refusals:
            raise refusals.pop()

    story.domains.when(story.id, "orders.approve", refuse())
    story.domains.when(story.id, "depot.cancel", refuse_once)
    await story.begin()
    assert (await story.end()).status == "rejected"
    assert story.done == [*STEPS[:-1], *UNDO["orders.approve"], "orders.reject"]


@pytest.mark.recorded
async def test_an_approved_order_can_be_cancelled_and_everything_is_undone(story: Story) -> None:
    await story.answer()
    await story.handle.signal(OrderWorkflow.cancel, BY_CUSTOMER)
    assert (await cancel(story)).status == "cancelled"
    assert story.done == [*STEPS, *UNDO["orders.approve"], "orders.cancel"]


@pytest.mark.parametrize("undo", ["depot.cancel", "payments.void", "stores.release", "orders.reject"])
async def test_a_cancel_during_the_undo_changes_nothing(story: Story, undo: str) -> None:
    gate = Gate()
    story.domains.when(story.id, "orders.approve", refuse())
    story.domains.when(story.id, undo, gate)
    await story.begin()
    await gate.reached.wait()
    late = asyncio.create_task(cancel(story))
    await story.handle.cancel()
    gate.opened.set()
    assert (await late).status == "rejected"
    assert (await story.handle.result()).status == "rejected"
    assert story.done == [*STEPS[:-1], *UNDO["orders.approve"], "orders.reject"]


@pytest.mark.recorded
async def test_a_second_cancel_during_the_undo_of_a_cancelled_order_changes_nothing(story: Story) -> None:
    gate = Gate()
    await story.answer()
    story.domains.when(story.id, "payments.void", gate)
    first = asyncio.create_task(cancel(story))
    await gate.reached.wait()
    await story.handle.cancel()
    await story.handle.cancel()
    gate.opened.set()
    assert (await first).status == "cancelled"
    assert story.done == [*STEPS, *UNDO["orders.approve"], "orders.cancel"]


async def test_a_refused_order_is_answered_before_its_undo_is_through(story: Story) -> None:
    gate = Gate()
    story.domains.when(story.id, "depot.schedule", refuse())
    story.domains.when(story.id, "payments.void", gate)
    assert (await story.answer()).refusal == REFUSAL
    assert "orders.reject" not in story.done
    gate.opened.set()
    assert (await story.handle.result()).status == "rejected"


@pytest.mark.recorded
async def test_an_undo_that_fails_ten_times_is_shown_as_stuck_and_goes_through_in_the_end(
    story: Story,
) -> None:
    stuck: list[str | None] = []
    failing = fail(10)

    async def fail_and_look(attempt: int) -> None:
        stuck.append((await story.handle.describe()).typed_search_attributes.get(STUCK))
        await failing(attempt)

    story.domains.when(story.id, "depot.schedule", refuse())
    story.domains.when(story.id, "payments.void", fail_and_look)
    await story.begin()
    assert (await story.end()).status == "rejected"
    assert len(stuck) == 11
    assert stuck[0] is None
    assert stuck[-1] == "payments.void"
    assert story.done == [*STEPS[:3], *UNDO["depot.schedule"], "orders.reject"]
    assert (await story.handle.describe()).typed_search_attributes.get(STUCK) is None
    account = await story.account()
    undo = account.steps[2].undo
    assert undo is not None
    assert (undo.state, undo.attempts, undo.error) == ("done", 11, None)


async def test_while_an_undo_fails_the_details_say_which_and_why(story: Story) -> None:
    seen: list[str] = []
    failing = fail(10)

    async def fail_and_look(attempt: int) -> None:
        seen.append(as_markdown(await story.account()))
        await failing(attempt)

    story.domains.when(story.id, "depot.schedule", refuse())
    story.domains.when(story.id, "stores.release", fail_and_look)
    await story.begin()
    await story.end()
    assert "Stuck" not in seen[0]
    assert "**Stuck at stores.release**, tried on without end: unavailable: down, attempt" in seen[-1]
    assert "**payment_declined** the card was declined" in seen[-1]
    rows = [[cell.strip() for cell in row.strip("| ").split("|")] for row in seen[-1].splitlines() if "|" in row]
    assert ["stores.reserve", "done", "stores.release", "running"] in rows


async def test_operators_see_the_account_as_the_details_of_the_workflow(story: Story) -> None:
    await story.answer()
    metadata = await story.handle.query("__temporal_workflow_metadata", result_type=WorkflowMetadata)
    assert metadata.current_details == as_markdown(await story.account())


async def test_a_domain_that_is_down_for_two_hours_delays_the_order_and_loses_nothing(
    story: Story,
) -> None:
    step = "stores.reserve"
    seen: list[SagaAccount] = []

    async def down(attempt: int) -> None:
        down_still = activity.info().started_time < begun + timedelta(hours=2)
        if not (seen and down_still):
            seen.append(await story.account())
        if down_still:
            raise Unavailable("the database does not answer")

    story.domains.when(story.id, step, down)
    begun = datetime.now(UTC)
    await story.begin()
    passing = asyncio.create_task(story.let_pass(timedelta(hours=2, minutes=1)))
    assert (await story.answer()).pickup_code == "BCDFGH"
    passing.cancel()  # what is left of it would pass in real time, while the order waits for a robot
    assert story.done == STEPS
    assert {account.status for account in seen} == {"pending"}
    assert (seen[0].stuck, seen[-1].stuck) == (None, step)
    assert (await story.handle.describe()).typed_search_attributes.get(STUCK) is None


@pytest.mark.parametrize("domain", ["orders", "stores", "payments", "depot"])
async def test_an_order_waits_for_a_domain_without_a_worker_and_goes_on_when_it_is_back(
    story: Story, domains: Domains, domain: DomainName
) -> None:
    await domains.down(domain)
    await story.begin()
    step = next(step for step in STEPS if step.startswith(domain))
    await story.until(lambda account: account.steps[STEPS.index(step)].state == "running")
    assert story.done == STEPS[: STEPS.index(step)]
    await domains.up(domain)
    assert (await story.answer()).pickup_code == "BCDFGH"
    assert story.done == STEPS


async def test_a_step_that_fails_for_a_while_is_repeated_until_it_is_done(story: Story) -> None:
    story.domains.when(story.id, "payments.authorize", fail(3))
    answering = asyncio.create_task(story.answer())
    await answering
    account = await story.account()
    assert (account.steps[2].attempts, account.steps[2].state) == (4, "done")
    assert story.done == STEPS


async def test_an_order_can_be_cancelled_while_a_step_is_down(story: Story, env: WorkflowEnvironment) -> None:
    story.domains.when(story.id, "payments.authorize", fail(1_000_000))
    await story.begin()
    await story.let_pass(PATIENCE * 2)
    assert (await cancel(story)).status == "cancelled"
    assert story.done == [*STEPS[:2], *UNDO["payments.authorize"], "orders.cancel"]


async def test_a_step_that_finds_its_order_closed_ends_the_saga(story: Story) -> None:
    async def closed(attempt: int) -> None:
        raise OrderClosed("released by hand")

    story.domains.when(story.id, "payments.authorize", closed)
    answer = await story.answer()
    assert answer.refusal is not None
    assert answer.refusal.code == "order_cancelled"
    assert (await story.handle.result()).status == "rejected"
    assert story.done == [*STEPS[:2], *UNDO["payments.authorize"], "orders.reject"]


async def test_an_order_that_was_rejected_can_not_be_cancelled_any_more(story: Story) -> None:
    story.domains.when(story.id, "stores.reserve", refuse())
    await story.begin()
    await story.handle.result()
    with pytest.raises(RPCError, match="already completed"):
        await cancel(story)
    assert story.done == ["orders.place", "stores.release", "orders.reject"]


async def _until_it_is_history(story: Story, event_type: EventType.ValueType) -> None:
    """Wait until the workflow's history has such an event."""
    async with asyncio.timeout(10):
        while True:
            history = await story.handle.fetch_history()
            if any(event.event_type == event_type for event in history.events):
                return

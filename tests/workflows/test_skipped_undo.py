"""What a person can do for what is stuck: skip an undo that can never work, and try what was mended at once."""

import asyncio
from datetime import timedelta
from functools import partial

import pytest
from temporalio.client import WorkflowExecutionStatus

from domains.orders.messages import RefundOrder
from kernel.errors import InvalidInput, NotStuck, OrderClosed, Refused, Unavailable
from kernel.ids import new_id
from tests.waiting import eventually
from tests.workflows.conftest import REPLAYER, Behaviour, Domains, Story
from tests.workflows.test_saga import REFUSAL, STEPS, Gate, cancel, refuse
from workflows.details import as_markdown
from workflows.ids import refund_workflow_id, workflow_id
from workflows.messages import ActionAccount, SagaAccount, SkipUndo
from workflows.operators import QUEUES, StuckSaga, StuckSagas
from workflows.refund import RefundWorkflow
from workflows.steps import PATIENCE, WORKFLOW_QUEUE

SOON = timedelta(seconds=5)


class Fault:
    """A fault that fails every attempt until it `is_mended`."""

    def __init__(self) -> None:
        self.attempts = 0
        self.is_mended = False

    async def __call__(self, attempt: int) -> None:
        self.attempts += 1
        if not self.is_mended:
            raise Unavailable("the card network does not answer")


@pytest.fixture
def operators(domains: Domains) -> StuckSagas:
    return StuckSagas(domains.client)


def skip(activity: str, reason: str = "the provider has closed the account") -> SkipUndo:
    return SkipUndo(activity=activity, reason=reason, by="ann")


async def until_stuck(story: Story, at: str, fault: Behaviour) -> None:
    """Let an order be refused last of all, and one of its undos fail for longer than anybody has patience."""
    story.domains.when(story.id, "orders.approve", refuse())
    story.domains.when(story.id, at, fault)
    await story.begin()
    await let_pass(story, PATIENCE * 2)
    await story.until(lambda account: account.stuck == at)


async def let_pass(story: Story, time: timedelta) -> None:
    await asyncio.wait_for(story.let_pass(time), 20)


def action(account: SagaAccount, activity: str) -> ActionAccount:
    actions = (action for step in account.steps for action in (step, step.undo) if action)
    return next(action for action in actions if action.activity == activity)


async def found(operators: StuckSagas, workflow: str) -> StuckSaga | None:
    return next((one for one in await operators.find(50) if one.workflow_id == workflow), None)


@pytest.mark.recorded
@pytest.mark.parametrize("activity", ["payments.void", "stores.release"])
async def test_an_undo_that_can_never_work_is_skipped_and_the_rest_is_undone(
    story: Story, operators: StuckSagas, activity: str
) -> None:
    fault = Fault()
    await until_stuck(story, activity, fault)
    skipped = await operators.skip_undo(story.id, skip(activity), timeout=SOON)
    assert skipped is not None
    assert (skipped.state, skipped.skipped_by) == ("skipped", "ann")
    assert skipped.skipped_because == "the provider has closed the account"
    assert skipped.error == "unavailable: the card network does not answer"
    assert (await story.handle.result()).status == "rejected"
    undone = [undo for undo in ("depot.cancel", "payments.void", "stores.release") if undo != activity]
    assert story.done == [*STEPS[:-1], *undone, "orders.reject"]
    account = await story.account()
    assert (account.stuck, account.status) == (None, "rejected")
    assert as_markdown(account).startswith(
        f"**{activity} was skipped by ann**, it is not undone: the provider has"
    )


async def test_a_skip_that_is_sent_twice_is_one(story: Story, operators: StuckSagas) -> None:
    await until_stuck(story, "payments.void", Fault())
    answers = await asyncio.gather(
        *(operators.skip_undo(story.id, skip("payments.void"), timeout=SOON) for _ in range(2))
    )
    assert answers[0] == answers[1]
    await story.handle.result()
    assert await operators.skip_undo(story.id, skip("payments.void", "again"), timeout=SOON) == answers[0]
    assert story.done == [*STEPS[:-1], "depot.cancel", "stores.release", "orders.reject"]


async def test_only_the_undo_that_is_stuck_is_skipped(story: Story, operators: StuckSagas) -> None:
    gate, fault = Gate(), Fault()

    async def stand_still_then_refuse(attempt: int) -> None:
        await gate(attempt)
        raise Refused(REFUSAL)

    story.domains.when(story.id, "orders.approve", stand_still_then_refuse)
    story.domains.when(story.id, "payments.void", fault)
    await story.begin()
    await gate.reached.wait()
    with pytest.raises(NotStuck, match=r"payments\.void is not an undo that is stuck now"):
        await operators.skip_undo(story.id, skip("payments.void"), timeout=SOON)
    gate.opened.set()
    await eventually(lambda: fault.attempts > 0)
    with pytest.raises(NotStuck):  # it has not failed for long
        await operators.skip_undo(story.id, skip("payments.void"), timeout=SOON)
    await let_pass(story, PATIENCE * 2)
    for other in ("stores.release", "payments.authorize", "moon.dust"):
        with pytest.raises(NotStuck):
            await operators.skip_undo(story.id, skip(other), timeout=SOON)
    with pytest.raises(InvalidInput, match="say why"):
        await operators.skip_undo(story.id, skip("payments.void", "  "), timeout=SOON)
    assert "stores.release" not in story.done
    fault.is_mended = True
    assert (await story.end()).status == "rejected"
    with pytest.raises(NotStuck, match="has ended"):
        await operators.skip_undo(story.id, skip("payments.void"), timeout=SOON)


async def test_a_step_that_is_stuck_is_no_undo_and_is_not_skipped(story: Story, operators: StuckSagas) -> None:
    story.domains.when(story.id, "payments.authorize", Fault())
    await story.begin()
    await let_pass(story, PATIENCE * 2)
    with pytest.raises(NotStuck):
        await operators.skip_undo(story.id, skip("payments.authorize"), timeout=SOON)
    assert (await cancel(story)).status == "cancelled"


async def test_what_ends_the_order_is_never_skipped(story: Story, operators: StuckSagas) -> None:
    fault = Fault()
    await until_stuck(story, "orders.reject", fault)
    with pytest.raises(InvalidInput, match="the order would be live for ever"):
        await operators.skip_undo(story.id, skip("orders.reject"), timeout=SOON)
    fault.is_mended = True
    assert await operators.retry_order(story.id) == ["orders.reject"]
    assert (await story.handle.result()).status == "rejected"


async def test_an_undo_that_goes_through_while_it_is_skipped_is_done(story: Story, operators: StuckSagas) -> None:
    gate, fault = Gate(), Fault()

    async def fail_then_stand_still(attempt: int) -> None:
        if fault.is_mended:
            await gate(attempt)
        await fault(attempt)

    await until_stuck(story, "payments.void", fail_then_stand_still)
    fault.is_mended = True
    await operators.retry_order(story.id)
    await gate.reached.wait()
    skipping = asyncio.create_task(operators.skip_undo(story.id, skip("payments.void"), timeout=SOON))
    await eventually(lambda: _is_being_skipped(story))
    gate.opened.set()
    account = await skipping
    assert account is not None
    assert (account.state, account.skipped_by) == ("done", None)
    assert (await story.handle.result()).status == "rejected"
    assert story.done == [*STEPS[:-1], "depot.cancel", "payments.void", "stores.release", "orders.reject"]


async def test_a_cancel_in_the_web_ui_while_an_undo_is_skipped_loses_nothing(
    story: Story, operators: StuckSagas
) -> None:
    await until_stuck(story, "payments.void", Fault())
    await story.handle.cancel()  # it changes nothing, as ever
    await operators.skip_undo(story.id, skip("payments.void"), timeout=SOON)
    assert (await story.handle.result()).status == "rejected"
    assert story.done == [*STEPS[:-1], "depot.cancel", "stores.release", "orders.reject"]


@pytest.mark.recorded
async def test_what_was_mended_is_tried_at_once(story: Story, operators: StuckSagas) -> None:
    fault = Fault()
    await until_stuck(story, "payments.void", fault)
    stuck = await found(operators, workflow_id(story.id))
    assert stuck is not None
    assert (stuck.order_id, stuck.activity, stuck.is_undo, stuck.is_skippable) == (
        story.id, "payments.void", True, True,
    )  # fmt: skip
    assert stuck.error == "the card network does not answer"
    assert stuck.attempts > 5
    assert stuck.since is not None
    assert stuck.next_attempt_at is not None
    fault.is_mended = True
    assert await operators.retry_order(story.id) == ["payments.void"]
    assert (await asyncio.wait_for(story.handle.result(), 5)).status == "rejected"
    assert await found(operators, workflow_id(story.id)) is None
    with pytest.raises(NotStuck, match="has ended"):
        await operators.retry_order(story.id)


@pytest.mark.recorded
async def test_what_failed_for_good_is_tried_at_once_too(story: Story, operators: StuckSagas) -> None:
    fault = Fault()

    async def refuse_until_mended(attempt: int) -> None:
        fault.attempts += 1
        if not fault.is_mended:
            raise OrderClosed("not in this state")

    story.domains.when(story.id, "depot.cancel", refuse_until_mended)
    story.domains.when(story.id, "orders.approve", refuse())
    await story.begin()
    await eventually(lambda: fault.attempts == 2)
    await story.until(lambda account: account.stuck == "depot.cancel")
    fault.is_mended = True
    await eventually(lambda: _retried(operators, story, ["depot.cancel"]))
    outcome = await asyncio.wait_for(story.handle.result(), 5)
    assert (outcome.status, outcome.cause) == ("rejected", REFUSAL)


async def test_what_is_stuck_is_found_although_no_worker_answers(
    story: Story, domains: Domains, operators: StuckSagas
) -> None:
    fault = Fault()
    await until_stuck(story, "payments.void", fault)
    await domains.down(WORKFLOW_QUEUE)
    stuck = await found(operators, workflow_id(story.id))
    await domains.up(WORKFLOW_QUEUE)
    assert stuck is not None
    assert (stuck.order_id, stuck.error, stuck.since) == (story.id, "the card network does not answer", None)
    fault.is_mended = True
    await operators.retry_order(story.id)
    await story.handle.result()


async def test_what_failed_for_good_can_be_skipped(story: Story, operators: StuckSagas) -> None:
    story.domains.when(story.id, "orders.approve", refuse())
    story.domains.when(story.id, "payments.void", refuse())
    await story.begin()
    await story.until(lambda account: account.stuck == "payments.void")
    with pytest.raises(InvalidInput, match="robots would go on"):
        await operators.skip_undo(story.id, skip("depot.cancel"), timeout=SOON)
    skipped = await operators.skip_undo(story.id, skip("payments.void"), timeout=SOON)
    assert skipped is not None
    assert skipped.state == "skipped"
    assert (await story.handle.result()).status == "rejected"


async def test_a_step_that_waits_for_a_robot_is_left_alone(story: Story, operators: StuckSagas) -> None:
    await story.answer()
    await story.until(lambda account: action(account, "depot.assign").state == "running")
    with pytest.raises(NotStuck, match="nothing waits"):
        await operators.retry_order(story.id)
    await story.robot_takes()
    with pytest.raises(NotStuck, match="nothing waits"):
        await operators.retry_order(story.id)
    await story.robot_brings()
    await story.until(lambda account: account.status == "ready")
    with pytest.raises(NotStuck, match="there is no workflow"):
        await operators.retry_order(new_id())


async def test_a_refund_that_is_stuck_is_found_and_tried_at_once(
    story: Story, domains: Domains, operators: StuckSagas
) -> None:
    await story.answer()
    fault = Fault()
    domains.when(story.id, "payments.refund", fault)
    request = RefundOrder(order_id=story.id, refund_id=new_id(), lines=None, reason="stale", by="ann")
    id = refund_workflow_id(request.refund_id)
    refund = await domains.client.start_workflow(
        RefundWorkflow.run, request, id=id, task_queue=WORKFLOW_QUEUE, static_summary="refund"
    )
    await eventually(lambda: fault.attempts > 0)
    await asyncio.wait_for(story.env.fast_forward(refund, PATIENCE * 2), 20)
    await eventually(lambda: found(operators, id))
    stuck = await found(operators, id)
    assert stuck is not None
    assert (stuck.order_id, stuck.refund_id, stuck.activity) == (story.id, request.refund_id, "payments.refund")
    assert (stuck.is_undo, stuck.is_skippable) == (False, False)
    fault.is_mended = True
    assert await operators.retry(id) == ["payments.refund"]
    outcome = await asyncio.wait_for(refund.result(), 5)
    assert outcome.refund is not None
    assert (await refund.describe()).status == WorkflowExecutionStatus.COMPLETED
    await REPLAYER.replay_workflow(await refund.fetch_history())


async def test_a_queue_that_nobody_works_on_is_seen(domains: Domains, operators: StuckSagas) -> None:
    for queue in QUEUES:
        await eventually(partial(operators.is_worked_on, queue))
    assert not await operators.is_worked_on("moon")


async def _is_being_skipped(story: Story) -> bool:
    history = await story.history()
    return any(event.HasField("workflow_execution_update_accepted_event_attributes") for event in history.events)


async def _retried(operators: StuckSagas, story: Story, activities: list[str]) -> bool:
    try:
        return await operators.retry_order(story.id) == activities
    except NotStuck:
        return False

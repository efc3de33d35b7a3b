"""A cancellation meets a step that is being tried, and that attempt fails: Temporal then tells the workflow of the
failure, not of the cancellation."""

import asyncio
from datetime import timedelta

import pytest

from kernel.errors import Refusal, Refused, Unavailable
from tests.workflows.conftest import Behaviour, Story
from tests.workflows.test_saga import STEPS, UNDO, Gate, cancel


def stand_still_then_raise(gate: Gate, error: Exception) -> Behaviour:
    async def behave(attempt: int) -> None:
        await gate(attempt)
        raise error

    return behave


@pytest.mark.parametrize("step", STEPS)
async def test_an_order_that_is_cancelled_while_an_attempt_runs_that_fails_is_undone_and_not_tried_again(
    story: Story, step: str
) -> None:
    gate = Gate()
    story.domains.when(story.id, step, stand_still_then_raise(gate, Unavailable("down")))
    await story.begin()
    await gate.reached.wait()
    cancelling = asyncio.create_task(cancel(story))
    await story.until(lambda account: account.status == "undoing")
    gate.opened.set()
    outcome = await asyncio.wait_for(cancelling, timedelta(seconds=10).total_seconds())
    assert outcome.status == "cancelled"
    assert story.done == [*STEPS[: STEPS.index(step)], *UNDO[step], "orders.cancel"]
    account = await story.account()
    assert account.steps[STEPS.index(step)].state == "cancelled"
    assert account.stuck is None


async def test_an_order_that_is_cancelled_while_a_step_is_being_refused_is_undone_as_cancelled(
    story: Story,
) -> None:
    gate = Gate()
    refusal = Refusal(code="payment_declined", detail="the card was declined")
    story.domains.when(story.id, "payments.authorize", stand_still_then_raise(gate, Refused(refusal)))
    await story.begin()
    await gate.reached.wait()
    cancelling = asyncio.create_task(cancel(story))
    await story.until(lambda account: account.status == "undoing")
    gate.opened.set()
    assert (await cancelling).status == "cancelled"
    assert story.done == [*STEPS[:2], *UNDO["payments.authorize"], "orders.cancel"]

"""A deployment in the middle of an order's life: what was approved before there were robots goes on."""

import pytest
from temporalio.worker import Worker

from tests.workflows.conftest import Domains, Story
from tests.workflows.order_before_robots import OrderBeforeRobots
from tests.workflows.test_hand_over import HANDED_OVER, hand_over
from tests.workflows.test_saga import BY_CUSTOMER, STEPS, UNDO
from tests.workflows.test_shopping import TO_READY
from workflows.order import OrderWorkflow
from workflows.steps import WORKFLOW_QUEUE


@pytest.fixture
async def approved_before(story: Story, domains: Domains) -> Story:
    """An order that the old code has approved, in the hands of the new."""
    await domains.down(WORKFLOW_QUEUE)
    async with Worker(domains.client, task_queue=WORKFLOW_QUEUE, workflows=[OrderBeforeRobots]):
        await story.answer()
    await domains.up(WORKFLOW_QUEUE)
    return story


@pytest.mark.recorded
async def test_an_order_approved_before_there_were_robots_is_shopped_when_it_is_told_so(
    approved_before: Story,
) -> None:
    story = approved_before
    assert (await story.account()).status == "approved"
    await story.handle.signal(OrderWorkflow.shop)
    await story.robot_takes()
    await story.robot_brings()
    await story.until(lambda account: account.status == "ready")
    await hand_over(story)
    assert (await story.handle.result()).status == "completed"
    assert story.done == [*TO_READY, *HANDED_OVER]


async def test_an_order_approved_before_there_were_robots_can_be_cancelled(approved_before: Story) -> None:
    await approved_before.handle.signal(OrderWorkflow.cancel, BY_CUSTOMER)
    assert (await approved_before.handle.result()).status == "cancelled"
    assert approved_before.done == [*STEPS, *UNDO["orders.approve"], "orders.cancel"]

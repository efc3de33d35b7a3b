"""The steps of the saga that robots complete, with a real Temporal: `depot.assign` and `depot.shop`."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from temporalio import activity, workflow
from temporalio.client import Client, WorkflowHandle
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import ActivityEnvironment, WorkflowEnvironment
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from activities.depot import DepotActivities
from activities.interceptor import StepInterceptor
from api.generated.mallbots.automation.v1 import automation_pb2 as pb
from domains.depot.messages import AmendList, AssignList, Assignment, ShopList, ShoppingResult
from domains.depot.service import Depot
from kernel.messages import Message, Pieces
from mallbots.embedded import find_binary
from tests.robots.conftest import Gateways, Robot
from tests.robots.lists import fall_silent, released, schedule
from tests.samples import priced
from tests.waiting import eventually
from workflows.ids import activity_id, workflow_id
from workflows.shopping import ShoppingSteps
from workflows.steps import ASSIGN, SHOP, Step

HEARTBEAT = timedelta(seconds=1)


@workflow.defn(name="ShoppingOfAnOrder")
class Shopping:
    """What the story of an order does with its list, and no more."""

    @workflow.run
    async def run(self, order_id: UUID) -> list[str]:
        """How often it went from robot to robot, and what came of it."""
        told, waiting, shopping = [], 0, 0
        while True:
            waiting += 1
            assignment = await self._do(ASSIGN, AssignList(order_id=order_id, round=waiting), waiting)
            told.append(f"{assignment.robot} has it")
            while True:
                shopping += 1
                result = await self._do(SHOP, ShopList(order_id=order_id, round=shopping), shopping)
                if result.silent:
                    told.append(f"{result.silent} is silent")
                    break
                if result.completed:
                    return [*told, f"{sum(one.quantity for one in result.picked)} at the desk"]
                told.append(f"{sum(one.quantity for one in result.missing)} missing")
                await workflow.execute_activity(
                    "depot.amend",
                    AmendList(order_id=order_id, round=shopping, lines=[priced("mate", 2)]),
                    task_queue="depot",
                    start_to_close_timeout=timedelta(seconds=10),
                )

    async def _do(self, step: Step[Any], command: Message, round: int) -> Any:
        done = await workflow.execute_activity(
            step.activity,
            command,
            task_queue=step.task_queue,
            activity_id=activity_id(step.activity, round),
            result_type=step.reply,
            start_to_close_timeout=step.attempt_timeout,
            heartbeat_timeout=HEARTBEAT if step is SHOP else None,
            retry_policy=step.retry_policy,
        )
        return done.reply


@pytest.fixture(scope="module")
async def temporal() -> AsyncIterator[Client]:
    async with await WorkflowEnvironment.start_local(
        dev_server_existing_path=str(find_binary("temporal")),
        dev_server_extra_args=[
            part
            for setting in (
                "history.transferProcessorMaxPollRPS=10000",
                'history.timerProcessorMaxTimeShift="10ms"',
            )
            for part in ("--dynamic-config-value", setting)
        ],
        data_converter=pydantic_data_converter,
    ) as env:
        yield env.client


@pytest.fixture
async def worker(temporal: Client, gateways: Gateways) -> AsyncIterator[Worker]:
    activities = DepotActivities(gateways.depot)
    async with Worker(
        temporal,
        task_queue="depot",
        workflows=[Shopping],
        activities=[activities.assign, activities.shop, activities.amend],
        interceptors=[StepInterceptor()],
        workflow_runner=UnsandboxedWorkflowRunner(),
    ) as worker:
        yield worker


async def begin(client: Client, depot: Depot) -> tuple[UUID, WorkflowHandle[Any, list[str]]]:
    command = schedule()
    await depot.schedule(command)
    handle = await client.start_workflow(
        Shopping.run, command.order_id, id=workflow_id(command.order_id), task_queue="depot"
    )
    return command.order_id, handle


async def test_a_robot_takes_the_saga_from_the_list_to_the_desk_and_operators_see_how_far_it_is(
    temporal: Client, gateways: Gateways, worker: Worker
) -> None:
    steps = ShoppingSteps(temporal)

    async def find() -> ShoppingSteps:
        return steps

    gateways.steps.find = find  # type: ignore[method-assign]
    async with gateways.up(silent_after=1.2) as (_, channel), Robot(channel, "robot-1") as robot:
        await robot.ready()
        _, handle = await begin(temporal, gateways.depot)
        shopping = await robot.hear("list")
        await robot.report(shopping.order_id, 1, "rose", 1)
        await robot.hear("item_accepted")

        async def seen() -> bool:
            await robot.say(heartbeat=pb.Heartbeat())
            pending = (await handle.describe()).raw_description.pending_activities
            return any(
                b"robot-1: 1 of 6" in payload.data for one in pending for payload in one.heartbeat_details.payloads
            )

        await eventually(seen)
        await robot.report(shopping.order_id, 2, "tea", 3, missing=2)
        await robot.hear("item_accepted", "wait")
        await robot.shop(await robot.hear("list"))
        assert await handle.result() == ["robot-1 has it", "2 missing", "6 at the desk"]


async def test_what_no_gateway_told_the_saga_it_finds_with_its_next_attempt(
    temporal: Client, gateways: Gateways, worker: Worker
) -> None:
    depot, steps = gateways.depot, ShoppingSteps(temporal)
    order_id, handle = await begin(temporal, depot)
    for robot in ("robot-1", "robot-2"):
        await depot.online(robot)

    async def taken(robot: str) -> bool:
        return await depot.take_list(robot) is not None

    await eventually(lambda: taken("robot-1"))
    await steps.assigned(order_id, 1, Assignment(robot="robot-1"))
    # Here the gateway is killed: nobody tells of the silence, nor that everything is at the desk.
    await fall_silent(gateways.database, "robot-1")
    await eventually(lambda: taken("robot-2"))
    await steps.assigned(order_id, 2, Assignment(robot="robot-2"))
    for stop, sku, quantity in ((1, "rose", 1), (2, "tea", 5)):
        await depot.report_item("robot-2", order_id, stop, sku, picked=quantity, missing=0)
    await depot.finish("robot-2", order_id)
    assert await handle.result() == [
        "robot-1 has it",
        "robot-1 is silent",
        "robot-2 has it",
        "6 at the desk",
    ]


async def test_a_step_that_nobody_waits_for_may_be_told(temporal: Client, gateways: Gateways) -> None:
    order_id = await released(gateways.depot)
    steps = ShoppingSteps(temporal)
    await steps.assigned(order_id, 1, Assignment(robot="robot-1"))
    await steps.shopped(order_id, 1, ShoppingResult(completed=True))
    await steps.heard_of(order_id, 1, robot="robot-1", picked=1, total=2)


async def test_an_activity_answers_at_once_if_the_robot_was_faster(gateways: Gateways) -> None:
    depot = gateways.depot
    activities = DepotActivities(depot)
    order_id = await released(depot)
    env = ActivityEnvironment()
    with pytest.raises(activity._CompleteAsyncError):
        await env.run(activities.assign, AssignList(order_id=order_id, round=1))
    await depot.online("robot-1")
    await depot.take_list("robot-1")
    assert await env.run(activities.assign, AssignList(order_id=order_id, round=1)) == Assignment(robot="robot-1")
    with pytest.raises(activity._CompleteAsyncError):
        await env.run(activities.shop, ShopList(order_id=order_id, round=1))
    await depot.report_item("robot-1", order_id, 1, "rose", picked=1, missing=0)
    await depot.report_item("robot-1", order_id, 2, "tea", picked=4, missing=1)
    result = await env.run(activities.shop, ShopList(order_id=order_id, round=1))
    assert result.missing == [Pieces(sku="tea", quantity=1)]

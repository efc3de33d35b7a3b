"""The saga alone: real workflows on Temporal's time-skipping server, with steps that do as the test says."""

import asyncio
import json
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from temporalio import activity
from temporalio.client import Client, WithStartWorkflowOperation, WorkflowHandle, WorkflowHistory
from temporalio.common import RawValue, WorkflowIDConflictPolicy
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import TimeSkippingConfig, WorkflowEnvironment
from temporalio.worker import Replayer, Worker

from activities.interceptor import StepInterceptor
from domains.depot.messages import Assignment, CancelledShopping, ShoppingResult
from domains.orders.messages import OrderAnswer, Refund
from domains.payments.messages import CardPayment, Receipt
from domains.stores.messages import Adjustment, Reservation
from kernel.errors import Refusal
from kernel.ids import new_id
from kernel.messages import Pieces
from mallbots.embedded import find_binary
from tests.samples import line, priced
from workflows.attributes import ALL
from workflows.ids import refund_workflow_id, workflow_id
from workflows.messages import OrderOutcome, OrderRequest, SagaAccount
from workflows.order import OrderWorkflow
from workflows.refund import RefundWorkflow
from workflows.shopping import ShoppingSteps
from workflows.steps import WORKFLOW_QUEUE

Behaviour = Callable[[int], Awaitable[None]]
"""What an activity does before it succeeds; it is given the number of the attempt."""

REPLAYER = Replayer(workflows=[OrderWorkflow, RefundWorkflow], data_converter=pydantic_data_converter)
WORKERS = (WORKFLOW_QUEUE, "orders", "stores", "payments", "depot")


class Answer(Exception):
    """No error: a behaviour raises it to let the activity answer so."""

    def __init__(self, reply: object) -> None:
        super().__init__()
        self.reply = reply


@dataclass
class Domains:
    """The four domains as the saga sees them. `done` lists what each order's saga has done, in order."""

    client: Client
    done: dict[UUID, list[str]] = field(default_factory=lambda: defaultdict(list))
    _behaviours: dict[tuple[UUID, str], Behaviour] = field(default_factory=dict)
    _workers: dict[str, Worker] = field(default_factory=dict)

    def when(self, order_id: UUID, name: str, behave: Behaviour) -> None:
        """Let an activity of an order do this first, on each attempt."""
        self._behaviours[order_id, name] = behave

    async def up(self, domain: str) -> None:
        """Start the worker of a domain, or of the workflows."""
        worker = Worker(
            self.client,
            task_queue=domain,
            workflows=[OrderWorkflow, RefundWorkflow] if domain == WORKFLOW_QUEUE else [],
            activities=[] if domain == WORKFLOW_QUEUE else [self._act],
            interceptors=[StepInterceptor()],
        )
        self._workers[domain] = worker
        await worker.__aenter__()

    async def down(self, domain: str) -> None:
        """Stop the worker of a domain, or of the workflows."""
        await self._workers.pop(domain).__aexit__(None, None, None)

    @activity.defn(dynamic=True)
    async def _act(self, args: Sequence[RawValue]) -> Any:
        info = activity.info()
        command = activity.payload_converter().from_payload(args[0].payload, dict)
        order_id = UUID(command["order"]["order_id"] if "order" in command else command["order_id"])
        if behave := self._behaviours.get((order_id, info.activity_type)):
            try:
                await behave(info.attempt)
            except Answer as answer:
                return answer.reply
        if info.activity_type in ("depot.assign", "depot.shop"):
            activity.raise_complete_async()
        self.done[order_id].append(info.activity_type)
        match info.activity_type:
            case "stores.reserve":
                return Reservation.of([priced(quantity=2, cents=450)])
            case "stores.adjust" | "stores.drop_substitutes":
                return self.adjusted(command)
            case "orders.approve" | "orders.reject" | "orders.cancel" | "orders.expire":
                return self._answer(order_id, command)
            case "payments.capture":
                return Receipt(method="card", amount_cents=900, currency="USD")
            case "orders.refund":
                refund = {"refund_id": command["refund_id"], "lines": [], "amount_cents": 450, "currency": "USD"}
                return Refund.model_validate(refund)
            case "depot.cancel":
                return CancelledShopping()
        return None

    def adjusted(self, command: dict[str, Any]) -> Adjustment:
        """What is held of two teas at 450 cents when some are missing: what was found, unless a test says else."""
        found = 2 - sum(one["quantity"] for one in command.get("missing", []))
        lines = [priced(quantity=found, cents=450)] if found else []
        return Adjustment(lines=lines, total_cents=450 * found)

    def _answer(self, order_id: UUID, command: dict[str, Any]) -> OrderAnswer:
        if "orders.approve" in self.done[order_id]:
            return OrderAnswer(
                order_id=order_id, currency="USD", pickup_code="BCDFGH", total_cents=900, items=[priced()]
            )
        refusal = command.get("refusal", {"code": "order_cancelled", "detail": "cancelled"})
        return OrderAnswer(order_id=order_id, currency="USD", refusal=Refusal.model_validate(refusal))


@dataclass
class Story:
    """One order in the hands of its workflow."""

    env: WorkflowEnvironment
    domains: Domains
    request: OrderRequest
    handle: WorkflowHandle[OrderWorkflow, OrderOutcome]
    refund_id: UUID | None = None

    @property
    def id(self) -> UUID:
        return self.request.order_id

    @property
    def done(self) -> list[str]:
        return self.domains.done[self.id]

    async def begin(self) -> None:
        """Start the workflow."""
        await self.domains.client.start_workflow(
            OrderWorkflow.run, self.request, id=self.handle.id, task_queue=WORKFLOW_QUEUE
        )

    async def answer(self) -> OrderAnswer:
        """Start the workflow, or find it, and wait for the kiosk's answer."""
        start: WithStartWorkflowOperation[OrderWorkflow, OrderOutcome] = WithStartWorkflowOperation(
            OrderWorkflow.run,
            self.request,
            id=self.handle.id,
            task_queue=WORKFLOW_QUEUE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        )
        answer: OrderAnswer = await self.domains.client.execute_update_with_start_workflow(
            "answer", id="answer", result_type=OrderAnswer, start_workflow_operation=start
        )
        return answer

    async def robot_takes(self, robot: str = "robot-1", round: int = 1) -> None:
        """Let a robot have the list that waits for one."""
        await self.until(lambda account: _running(account, "depot.assign"))
        await self._tell(lambda steps: steps.assigned(self.id, round, Assignment(robot=robot)), "depot.assign")

    async def robot_brings(
        self, picked: int = 2, missing: int = 0, *, round: int = 1, completed: bool = True
    ) -> None:
        """Let the robot have brought so many teas, or wait for word on those that are missing."""
        await self.until(lambda account: _running(account, "depot.shop"))
        result = ShoppingResult(
            picked=[Pieces(sku="tea", quantity=picked)] if picked else [],
            missing=[Pieces(sku="tea", quantity=missing)] if missing else [],
            completed=completed,
        )
        await self._tell(lambda steps: steps.shopped(self.id, round, result), "depot.shop")

    async def ready(self) -> None:
        """Bring the order to the desk."""
        await self.answer()
        await self.robot_takes()
        await self.robot_brings()
        await self.until(lambda account: account.status == "ready")

    async def _tell(self, tell: Callable[[ShoppingSteps], Awaitable[None]], activity: str) -> None:
        """Say it again until the step has heard it: it is completed from outside only once it has begun."""
        finished = _finished(await self.account(), activity)
        async with asyncio.timeout(10):
            while _finished(await self.account(), activity) == finished:
                await tell(ShoppingSteps(self.domains.client))

    async def account(self) -> SagaAccount:
        """What the workflow tells of itself."""
        account: SagaAccount = await self.handle.query("saga", result_type=SagaAccount)
        return account

    async def until(self, happened: Callable[[SagaAccount], bool]) -> None:
        """Wait until the workflow tells so."""
        async with asyncio.timeout(10):
            while not happened(await self.account()):
                pass

    async def let_pass(self, time: timedelta) -> None:
        """Let so much of the workflow's time pass, at once."""
        await self.env.fast_forward(self.handle, time)

    async def end(self) -> OrderOutcome:
        """Skip all waiting until the workflow ends, and return how it did."""
        await self.env.fast_forward(self.handle)
        return await self.handle.result()

    async def history(self) -> WorkflowHistory:
        """All that happened so far, as Temporal keeps it."""
        return await self.handle.fetch_history()


@asynccontextmanager
async def time_skipping_server() -> AsyncIterator[WorkflowEnvironment]:
    """A Temporal server that skips time, but only when a test says so."""
    settings = (
        "frontend.WorkflowTimeSkippingEnabled=true",
        "history.transferProcessorMaxPollRPS=10000",
        "history.timerProcessorMaxPollRPS=10000",
        'history.timerProcessorMaxTimeShift="10ms"',
    )
    async with await WorkflowEnvironment.start_time_skipping_v2(
        ts_config=TimeSkippingConfig(enabled=False),
        dev_server_existing_path=str(find_binary("temporal")),
        dev_server_extra_args=[part for one in settings for part in ("--dynamic-config-value", one)],
        data_converter=pydantic_data_converter,
        search_attributes=ALL,
    ) as env:
        yield env


@pytest.fixture(scope="session")
async def env() -> AsyncIterator[WorkflowEnvironment]:
    """The server that the tests of the saga share."""
    async with time_skipping_server() as env:
        yield env


@pytest.fixture(scope="session")
async def domains(env: WorkflowEnvironment) -> AsyncIterator[Domains]:
    """Every worker, with steps that do as the test says."""
    domains = Domains(env.client)
    for domain in WORKERS:
        await domains.up(domain)
    yield domains
    await asyncio.gather(*map(domains.down, WORKERS))


@pytest.fixture
async def story(
    env: WorkflowEnvironment, domains: Domains, request: pytest.FixtureRequest
) -> AsyncIterator[Story]:
    """An order that has not begun yet. Whatever becomes of it, its history must replay."""
    order = OrderRequest(
        order_id=new_id(),
        kiosk="kiosk-1",
        customer="ada",
        lines=[line("tea", 2)],
        payment=CardPayment(token="tok_approved"),
        currency="USD",
    )
    handle: WorkflowHandle[OrderWorkflow, OrderOutcome] = env.client.get_workflow_handle_for(
        OrderWorkflow.run, workflow_id(order.order_id)
    )
    story = Story(env, domains, order, handle)
    yield story
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower()).strip("-")
    histories = {name: await story.history()}
    if story.refund_id:
        refund = env.client.get_workflow_handle(refund_workflow_id(story.refund_id))
        histories[f"{name}-refund"] = await refund.fetch_history()
    record_in: str | None = request.config.getoption("--record-histories")
    for name, history in histories.items():
        await REPLAYER.replay_workflow(history)
        if record_in and request.node.get_closest_marker("recorded"):
            Path(record_in).mkdir(parents=True, exist_ok=True)
            events = map(json.dumps, _portable(history.to_json_dict())["events"])
            Path(record_in, f"{name}.json").write_text('{"events": [\n' + ",\n".join(events) + "\n]}\n")


def _running(account: SagaAccount, activity: str) -> bool:
    return any(step.activity == activity and step.state == "running" for step in account.steps)


def _finished(account: SagaAccount, activity: str) -> object:
    return next(step.finished_at for step in account.steps if step.activity == activity)


def _portable(value: Any) -> Any:
    """A history without what tells of the machine that it was recorded on."""
    if isinstance(value, dict):
        return {key: _portable(part) for key, part in value.items() if key not in ("stackTrace", "identity")}
    return [_portable(part) for part in value] if isinstance(value, list) else value

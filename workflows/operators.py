"""What operators do with workflows that are stuck: find them, let them try again at once, skip an undo that can
never work; and whether anybody works at all."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from temporalio.api.common.v1 import WorkflowExecution as Execution
from temporalio.api.enums.v1 import PendingActivityState, TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflow.v1 import PendingActivityInfo
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest, ResetActivityRequest
from temporalio.client import (
    Client,
    WorkflowExecution,
    WorkflowExecutionStatus,
    WorkflowHandle,
    WorkflowQueryFailedError,
    WorkflowQueryRejectedError,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
    WorkflowUpdateStage,
)
from temporalio.service import RPCError, RPCStatusCode

from kernel.errors import NotStuck, Unavailable
from workflows.attributes import STUCK
from workflows.client import RPC_TIMEOUT, as_mall_error, as_unavailable, last_failure, next_attempt
from workflows.ids import workflow_id
from workflows.messages import ActionAccount, OrderOutcome, RefundAccount, SagaAccount, SkipUndo
from workflows.order import OrderWorkflow
from workflows.refund import RefundWorkflow
from workflows.steps import SKIPPABLE, STORY, UNDOS, WORKFLOW_QUEUE

QUEUES: Final = (WORKFLOW_QUEUE, *sorted({step.task_queue for step in STORY}))
"""Every task queue that somebody must work on."""

_STUCK_NOW: Final = f"{STUCK.name} IS NOT NULL AND ExecutionStatus = 'Running'"
_NO_WORKER: Final = "no worker answers for the workflow: start one with `mallbots worker`"
_ASK_WITHIN: Final = timedelta(seconds=1)
# A worker asks at least once a minute, also when there is nothing to do.
_GONE_AFTER: Final = timedelta(seconds=90)
_WAITING: Final = (
    PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED,
    PendingActivityState.PENDING_ACTIVITY_STATE_PAUSED,
)
_TOO_LATE: Final = (RPCStatusCode.NOT_FOUND, RPCStatusCode.FAILED_PRECONDITION, RPCStatusCode.INVALID_ARGUMENT)


@dataclass(frozen=True)
class Queue:
    """A task queue: whether a worker asks for its tasks, about how many of them wait, and for how many seconds the
    oldest does."""

    is_worked_on: bool
    backlog: int
    oldest: float


@dataclass(frozen=True)
class StuckSaga:
    """A workflow that needs a person, at an activity that has been tried in vain since `since`. While no worker
    answers for it that is not known, nor the order of a refund, nor the `attempts` of the first minute. What was
    tried before a retry by hand is not counted."""

    workflow_id: str
    activity: str
    order_id: UUID | None
    refund_id: UUID | None
    error: str | None
    attempts: int
    since: datetime | None
    next_attempt_at: datetime | None

    @property
    def is_undo(self) -> bool:
        """Whether something is being undone."""
        return self.activity in UNDOS

    @property
    def is_skippable(self) -> bool:
        """Whether a person may let it be skipped."""
        return self.refund_id is None and self.activity in SKIPPABLE


class StuckSagas:
    """The workflows that are stuck, through a Temporal client."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def find(self, most: int) -> list[StuckSaga]:
        """The workflows that are stuck, at most so many. Raises `Unavailable`."""
        listed = self._client.list_workflows(_STUCK_NOW, limit=most, rpc_timeout=RPC_TIMEOUT)
        try:
            found = [one async for one in listed]
            looked = await asyncio.gather(*map(self._look, found))
        except RPCError as error:
            raise as_unavailable(error) from error
        return [one for one in looked if one is not None]

    async def count(self, most: int) -> Counter[str]:
        """How many workflows are stuck, by the activity that they are stuck at; at most so many are counted.
        Raises `Unavailable`."""
        found = self._client.list_workflows(_STUCK_NOW, limit=most, rpc_timeout=RPC_TIMEOUT)
        try:
            return Counter([one.typed_search_attributes.get(STUCK) or "" async for one in found])
        except RPCError as error:
            raise as_unavailable(error) from error

    async def retry_order(self, order_id: UUID) -> Sequence[str]:
        """As `retry`, for the saga of an order."""
        return await self.retry(workflow_id(order_id))

    async def retry(self, workflow: str) -> Sequence[str]:
        """Let everything of a workflow that waits for its next attempt be tried at once, and with short pauses
        again. What runs, or waits for a robot, is left alone. Returns the activities.

        Raises `NotStuck` if nothing waits, `Unavailable`.
        """
        handle = self._client.get_workflow_handle(workflow)
        try:
            description = await handle.describe(rpc_timeout=RPC_TIMEOUT)
        except RPCError as error:
            if error.status == RPCStatusCode.NOT_FOUND:
                raise NotStuck(f"there is no workflow {workflow}") from error
            raise as_unavailable(error) from error
        if description.status != WorkflowExecutionStatus.RUNNING:
            raise NotStuck(f"the workflow {workflow} has ended")
        pending = description.raw_description.pending_activities
        retried = [one.activity_type.name for one in pending if _waits(one) and await self._reset(workflow, one)]
        stuck = description.typed_search_attributes.get(STUCK)
        if not retried and stuck is not None and all(one.activity_type.name != stuck for one in pending):
            # It failed for good: the workflow itself waits.
            retried = [await self._wake(workflow)]
        if not retried:
            raise NotStuck("nothing waits for its next attempt")
        return retried

    async def skip_undo(self, order_id: UUID, skip: SkipUndo, *, timeout: timedelta) -> ActionAccount | None:
        """Let an order's saga go on without the undo that is stuck: once, however often it is asked for.

        Returns the undo's account: it was skipped, or is done after all. None if an attempt still runs after
        `timeout`: what becomes of it decides. Raises `NotStuck`, `InvalidInput` if there is no reason or this undo
        may not be skipped, `Unavailable`.
        """
        handle: WorkflowHandle[OrderWorkflow, OrderOutcome] = self._client.get_workflow_handle_for(
            OrderWorkflow.run, workflow_id(order_id)
        )
        try:
            update = await handle.start_update(
                "skip_undo",
                skip,
                id=f"skip-{skip.activity}",
                wait_for_stage=WorkflowUpdateStage.ACCEPTED,
                result_type=ActionAccount,
                rpc_timeout=RPC_TIMEOUT,
            )
        except WorkflowUpdateRPCTimeoutOrCancelledError as error:
            raise Unavailable(_NO_WORKER) from error
        except WorkflowUpdateFailedError as error:
            raise as_mall_error(error) from error
        except RPCError as error:
            if error.status == RPCStatusCode.NOT_FOUND:
                raise NotStuck(f"the saga of order {order_id} has ended") from error
            raise as_unavailable(error) from error
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                account: ActionAccount = await update.result()
                return account
        except (WorkflowUpdateRPCTimeoutOrCancelledError, TimeoutError):
            return None
        except WorkflowUpdateFailedError as error:
            raise as_mall_error(error) from error
        except RPCError as error:
            if error.status == RPCStatusCode.NOT_FOUND:
                raise NotStuck(f"the saga of order {order_id} has ended") from error
            raise as_unavailable(error) from error

    async def is_worked_on(self, queue: str) -> bool:
        """Whether a worker asks for the tasks of a queue. One that was killed is missed after 90 seconds. Raises
        `Unavailable`."""
        return (await self.queue(queue)).is_worked_on

    async def queue(self, queue: str) -> Queue:
        """How a task queue is, as `is_worked_on` says. Raises `Unavailable`."""
        workflows = queue == WORKFLOW_QUEUE
        request = DescribeTaskQueueRequest(
            namespace=self._client.namespace,
            task_queue=TaskQueue(name=queue),
            task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW
            if workflows
            else TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
            report_stats=True,
        )
        try:
            answer = await self._client.workflow_service.describe_task_queue(request, timeout=RPC_TIMEOUT)
        except RPCError as error:
            raise as_unavailable(error) from error
        since = datetime.now(UTC) - _GONE_AFTER
        return Queue(
            any(poller.last_access_time.ToDatetime(UTC) > since for poller in answer.pollers),
            answer.stats.approximate_backlog_count,
            answer.stats.approximate_backlog_age.ToTimedelta().total_seconds(),
        )

    async def _look(self, found: WorkflowExecution) -> StuckSaga | None:
        """What a workflow is stuck at, and why; None if it is not any more."""
        handle = self._client.get_workflow_handle(found.id, run_id=found.run_id)
        description = await handle.describe(rpc_timeout=RPC_TIMEOUT)
        activity = description.typed_search_attributes.get(STUCK)
        if activity is None:
            return None
        pending = next(
            (one for one in description.raw_description.pending_activities if one.activity_type.name == activity),
            None,
        )
        account: SagaAccount | RefundAccount | None = None
        # Without a worker nobody answers; the server itself knows enough.
        with suppress(WorkflowQueryFailedError, WorkflowQueryRejectedError, RPCError):
            query = OrderWorkflow.saga if found.workflow_type == "Order" else RefundWorkflow.saga
            account = await handle.query(query, rpc_timeout=_ASK_WITHIN)
        action = _action(account, activity) if account else None
        kind, _, id = found.id.partition("-")
        return StuckSaga(
            workflow_id=found.id,
            activity=activity,
            order_id=account.order_id if account else UUID(id) if kind == "order" else None,
            refund_id=UUID(id) if kind == "refund" else None,
            error=(await last_failure(self._client, pending) if pending else "")
            or (action.error if action else None),
            attempts=(pending.attempt if pending else 0) + (action.attempts if action else 0),
            since=action.started_at if action else None,
            next_attempt_at=next_attempt(pending) if pending else None,
        )

    async def _reset(self, workflow: str, activity: PendingActivityInfo) -> bool:
        """Whether the activity is tried at once; if not, it has begun, or ended, meanwhile."""
        request = ResetActivityRequest(
            namespace=self._client.namespace,
            execution=Execution(workflow_id=workflow),
            identity=self._client.identity,
            id=activity.activity_id,
        )
        try:
            await self._client.workflow_service.reset_activity(request, timeout=RPC_TIMEOUT)
        except RPCError as error:
            if error.status in _TOO_LATE:
                return False
            raise as_unavailable(error) from error
        return True

    async def _wake(self, workflow: str) -> str:
        handle = self._client.get_workflow_handle(workflow)
        try:
            woken: str = await handle.execute_update("retry_now", result_type=str, rpc_timeout=RPC_TIMEOUT)
        except WorkflowUpdateRPCTimeoutOrCancelledError as error:
            raise Unavailable(_NO_WORKER) from error
        except WorkflowUpdateFailedError as error:
            raise as_mall_error(error) from error
        except RPCError as error:
            if error.status == RPCStatusCode.NOT_FOUND:
                raise NotStuck(f"workflow {workflow} has ended") from error
            raise as_unavailable(error) from error
        return woken


def _waits(activity: PendingActivityInfo) -> bool:
    """Whether it has failed and waits for its next attempt, or somebody has paused it."""
    is_paused = activity.state == PendingActivityState.PENDING_ACTIVITY_STATE_PAUSED
    return activity.state in _WAITING and (activity.attempt > 1 or is_paused)


def _action(account: SagaAccount | RefundAccount, activity: str) -> ActionAccount | None:
    actions = (action for step in account.steps for action in (step, step.undo) if action)
    return next((action for action in actions if action.activity == activity), None)

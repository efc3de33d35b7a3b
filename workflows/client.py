"""What gateways may do with orders' workflows: start, await, cancel, look at."""

import asyncio
from datetime import timedelta
from typing import Final
from uuid import UUID

from temporalio.client import (
    Client,
    WithStartWorkflowOperation,
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowQueryFailedError,
    WorkflowQueryRejectedError,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.common import (
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from domains.orders.messages import OrderAnswer
from kernel.errors import NotFound, Unavailable
from kernel.messages import Cancellation
from workflows.attributes import CUSTOMER, KIOSK, ORDER_STATUS
from workflows.messages import OrderOutcome, OrderRequest, SagaAccount
from workflows.order import OrderWorkflow
from workflows.steps import WORKFLOW_QUEUE

_RPC_TIMEOUT: Final = timedelta(seconds=3)


def workflow_id(order_id: UUID) -> str:
    """The id of an order's workflow."""
    return f"order-{order_id}"


class OrderSagas:
    """The orders' workflows, through a Temporal client."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def answer(self, request: OrderRequest, *, summary: str, timeout: timedelta) -> OrderAnswer | None:
        """Start the order's saga, or find it, and wait for its answer.

        `summary` is the line that operators read. Returns None if the order is on its way but has no answer
        within `timeout`. Raises `Unavailable` if it could not be started (nothing is lost: ask again), and
        `NotFound` if it ended without an answer (somebody terminated it).
        """
        start: WithStartWorkflowOperation[OrderWorkflow, OrderOutcome] = WithStartWorkflowOperation(
            OrderWorkflow.run,
            request,
            id=workflow_id(request.order_id),
            task_queue=WORKFLOW_QUEUE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            static_summary=summary,
            search_attributes=_attributes(request),
        )
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                answer: OrderAnswer = await self._client.execute_update_with_start_workflow(
                    "answer", id="answer", result_type=OrderAnswer, start_workflow_operation=start
                )
                return answer
        except (WorkflowUpdateRPCTimeoutOrCancelledError, TimeoutError):
            # Told apart by looking: accepted but slow, or never heard.
            await self._check_started(request.order_id)
            return None
        except (WorkflowUpdateFailedError, WorkflowAlreadyStartedError) as error:
            raise NotFound(f"order {request.order_id} ended without an answer") from error
        except RPCError as error:
            raise _as_unavailable(error) from error
        finally:
            _take_error(start)

    async def cancel(self, order_id: UUID, cancellation: Cancellation, *, timeout: timedelta) -> bool:
        """Cancel an order for good, unless it is being undone already, and wait until it is undone.

        Returns whether it has ended; if not, that takes longer than `timeout`, but it will. How it ended, Orders
        knows: another cause may have been first. Raises `Unavailable` if Temporal did not answer: send it again.
        """
        handle = self._handle(order_id)
        try:
            await handle.signal(OrderWorkflow.cancel, cancellation, rpc_timeout=_RPC_TIMEOUT)
            async with asyncio.timeout(timeout.total_seconds()):
                await handle.result()
        except TimeoutError:
            return False
        except WorkflowFailureError:
            return True
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise _as_unavailable(error) from error
        return True

    async def account(self, order_id: UUID) -> SagaAccount:
        """The saga's own account, with the attempts and the last failure of what is being retried right now.

        Raises `NotFound` if there is no such saga (any more), `Unavailable` if Temporal does not answer or no
        worker is there to answer for the workflow.
        """
        handle = self._handle(order_id)
        try:
            account = await handle.query(OrderWorkflow.saga, rpc_timeout=_RPC_TIMEOUT)
            description = await handle.describe(rpc_timeout=_RPC_TIMEOUT)
        except (WorkflowQueryFailedError, WorkflowQueryRejectedError) as error:
            raise Unavailable(f"the workflow of order {order_id} can not tell: {error}") from error
        except RPCError as error:
            if error.status == RPCStatusCode.NOT_FOUND:
                raise NotFound(f"there is no saga of order {order_id}") from error
            # The server answers for a workflow's history, but only a worker for its queries.
            if error.status in (RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.FAILED_PRECONDITION):
                raise Unavailable(
                    f"no worker answers for the workflow of order {order_id}: start one with `mallbots worker`"
                ) from error
            raise _as_unavailable(error) from error
        pending = {
            activity.activity_type.name: activity for activity in description.raw_description.pending_activities
        }
        for step in account.steps:
            for action in (step, step.undo):
                if action and action.state == "running" and action.activity in pending:
                    action.attempts = pending[action.activity].attempt
                    action.error = pending[action.activity].last_failure.message or action.error
        return account

    def _handle(self, order_id: UUID) -> WorkflowHandle[OrderWorkflow, OrderOutcome]:
        return self._client.get_workflow_handle_for(OrderWorkflow.run, workflow_id(order_id))

    async def _check_started(self, order_id: UUID) -> None:
        try:
            await self._handle(order_id).describe(rpc_timeout=_RPC_TIMEOUT)
        except RPCError as error:
            raise _as_unavailable(error) from error


def _take_error(start: WithStartWorkflowOperation[OrderWorkflow, OrderOutcome]) -> None:
    """Take the error from the operation's own future too: asyncio logs one that nobody takes."""
    handle = asyncio.ensure_future(start.workflow_handle())
    handle.add_done_callback(lambda done: done.cancelled() or done.exception())


def _attributes(request: OrderRequest) -> TypedSearchAttributes:
    pairs: list[SearchAttributePair[str]] = [
        SearchAttributePair(ORDER_STATUS, "pending"),
        SearchAttributePair(KIOSK, request.kiosk),
    ]
    if request.customer is not None:
        pairs.append(SearchAttributePair(CUSTOMER, request.customer))
    return TypedSearchAttributes(pairs)


def _as_unavailable(error: RPCError) -> Unavailable:
    return Unavailable(f"Temporal did not answer ({error.status.name.lower()}): try again")

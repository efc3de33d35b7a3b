"""What gateways may do with orders' workflows: start, await, cancel, look at."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from temporalio.api.enums.v1 import PendingActivityState
from temporalio.api.workflow.v1 import PendingActivityInfo
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
from temporalio.exceptions import ApplicationError, FailureError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from domains.orders.messages import OrderAnswer, RefundOrder
from domains.payments.messages import Receipt
from kernel.errors import (
    HandOverUnderWay,
    IdempotencyKeyReused,
    InvalidInput,
    MallError,
    Misconfigured,
    NotFound,
    NotReady,
    NotStuck,
    OrderClosed,
    Refusal,
    Refused,
    ShoppingBegan,
    TooManyAttempts,
    Unavailable,
    WrongPickupCode,
)
from kernel.messages import Cancellation, Pieces, pieces_by_sku
from workflows.attributes import CUSTOMER, KIOSK, ORDER_STATUS
from workflows.ids import refund_workflow_id, workflow_id
from workflows.messages import HandOver, OrderOutcome, OrderRequest, RefundOutcome, SagaAccount
from workflows.order import OrderWorkflow
from workflows.refund import RefundWorkflow
from workflows.steps import WORKFLOW_QUEUE

RPC_TIMEOUT: Final = timedelta(seconds=3)


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
            search_attributes=_attributes(
                request, is_private=self._client.data_converter.payload_codec is not None
            ),
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
            raise as_unavailable(error) from error
        finally:
            _take_error(start)

    async def cancel(self, order_id: UUID, cancellation: Cancellation, *, timeout: timedelta) -> bool:
        """Cancel an order for good, unless it is being undone already, and wait until it is undone.

        Returns whether it has ended; if not, that takes longer than `timeout`, but it will. How it ended, Orders
        knows: another cause may have been first, or the hand-over. Raises `ShoppingBegan` if a customer can not
        cancel it any more, `Unavailable` if Temporal did not answer: send it again.
        """
        handle = self._handle(order_id)
        try:
            await handle.signal(OrderWorkflow.cancel, cancellation, rpc_timeout=RPC_TIMEOUT)
            if cancellation.by == "customer":
                await self._check_cancelled(handle)
            async with asyncio.timeout(timeout.total_seconds()):
                await handle.result()
        except TimeoutError:
            return False
        except WorkflowFailureError:
            return True
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise as_unavailable(error) from error
        return True

    async def hand_over(
        self, order_id: UUID, request: HandOver, *, attempt: str, timeout: timedelta
    ) -> Receipt | None:
        """Hand an order over and take its payment. The same `attempt` again gets the same answer.

        Returns None if it takes longer than `timeout`: it goes on, ask again with the same `attempt`. Raises
        `WrongPickupCode`, `TooManyAttempts`, `NotReady`, `HandOverUnderWay`, `OrderClosed`, `InvalidInput` (the
        payment), `Refused` (the payment was), or `Unavailable` (nobody answered). Where the order stays ready, it
        takes a new attempt to try again.
        """
        handle = self._handle(order_id)
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                receipt: Receipt = await handle.execute_update(
                    "hand_over", request, id=f"hand-over-{attempt}", result_type=Receipt
                )
                return receipt
        except (WorkflowUpdateRPCTimeoutOrCancelledError, TimeoutError):
            return None
        except WorkflowUpdateFailedError as error:
            raise as_mall_error(error) from error
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise as_unavailable(error) from error
            raise OrderClosed(f"order {order_id} has ended") from error

    async def refund(self, request: RefundOrder, *, timeout: timedelta) -> RefundOutcome | None:
        """Refund a completed order; the same refund id again is the same refund.

        Returns None if it takes longer than `timeout`, but it will be done. Raises `IdempotencyKeyReused` if the
        id came with other lines, `Unavailable`.
        """
        try:
            handle = await self._client.start_workflow(
                RefundWorkflow.run,
                request,
                id=refund_workflow_id(request.refund_id),
                task_queue=WORKFLOW_QUEUE,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                static_summary=f"refund of order {request.order_id}, by {request.by}",
                rpc_timeout=RPC_TIMEOUT,
            )
        except WorkflowAlreadyStartedError:
            handle = self._client.get_workflow_handle_for(
                RefundWorkflow.run, refund_workflow_id(request.refund_id)
            )
        except RPCError as error:
            raise as_unavailable(error) from error
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                outcome = await handle.result()
        except TimeoutError:
            return None
        except WorkflowFailureError as error:
            raise Unavailable(f"refund {request.refund_id} was ended by an operator: ask them") from error
        except RPCError as error:
            raise as_unavailable(error) from error
        if _as_asked(outcome.asked) != _as_asked(request.lines):
            raise IdempotencyKeyReused("this refund was asked for with other lines before: ask for a new one")
        return outcome

    async def account(self, order_id: UUID) -> SagaAccount:
        """The saga's own account, with the attempts and the last failure of what is being retried right now.

        Raises `NotFound` if there is no such saga (any more), `Unavailable` if Temporal does not answer or no
        worker is there to answer for the workflow.
        """
        handle = self._handle(order_id)
        try:
            account = await handle.query(OrderWorkflow.saga, rpc_timeout=RPC_TIMEOUT)
            description = await handle.describe(rpc_timeout=RPC_TIMEOUT)
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
            raise as_unavailable(error) from error
        pending = {
            activity.activity_type.name: activity for activity in description.raw_description.pending_activities
        }
        for step in account.steps:
            for action in (step, step.undo):
                if action and action.state == "running" and action.activity in pending:
                    action.attempts = pending[action.activity].attempt
                    action.error = await last_failure(self._client, pending[action.activity]) or action.error
                    action.next_attempt_at = next_attempt(pending[action.activity])
        return account

    def _handle(self, order_id: UUID) -> WorkflowHandle[OrderWorkflow, OrderOutcome]:
        return self._client.get_workflow_handle_for(OrderWorkflow.run, workflow_id(order_id))

    async def _check_cancelled(self, handle: WorkflowHandle[OrderWorkflow, OrderOutcome]) -> None:
        """Raise `ShoppingBegan` if the workflow says that it was too late; while nobody answers for it, that is
        decided when somebody does."""
        try:
            account = await handle.query(OrderWorkflow.saga, rpc_timeout=RPC_TIMEOUT)
        except (WorkflowQueryFailedError, WorkflowQueryRejectedError, RPCError):
            return
        if account.status in ("shopping", "ready", "handing_over"):
            raise ShoppingBegan("a robot shops for the order: only staff can cancel it now")

    async def _check_started(self, order_id: UUID) -> None:
        try:
            await self._handle(order_id).describe(rpc_timeout=RPC_TIMEOUT)
        except RPCError as error:
            raise as_unavailable(error) from error


async def last_failure(client: Client, activity: PendingActivityInfo) -> str:
    """Why its last attempt failed; empty if none has."""
    if not activity.HasField("last_failure"):
        return ""
    failure = activity.last_failure
    # A long one the server keeps as the cause of its own.
    if failure.HasField("server_failure_info") and failure.HasField("cause"):
        failure = failure.cause
    try:
        told = await client.data_converter.decode_failure(failure)
    except Misconfigured as error:
        return error.message
    return told.message if isinstance(told, FailureError) else failure.message


def next_attempt(activity: PendingActivityInfo) -> datetime | None:
    """When an activity that waits for that is tried again."""
    if activity.state == PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED and activity.HasField(
        "next_attempt_schedule_time"
    ):
        return activity.next_attempt_schedule_time.ToDatetime(UTC)
    return None


def _take_error(start: WithStartWorkflowOperation[OrderWorkflow, OrderOutcome]) -> None:
    """Take the error from the operation's own future too: asyncio logs one that nobody takes."""
    handle = asyncio.ensure_future(start.workflow_handle())
    handle.add_done_callback(lambda done: done.cancelled() or done.exception())


def _attributes(request: OrderRequest, *, is_private: bool) -> TypedSearchAttributes:
    """What the order is found by. Temporal reads search attributes, so a private order is found by no name."""
    pairs: list[SearchAttributePair[str]] = [
        SearchAttributePair(ORDER_STATUS, "pending"),
        SearchAttributePair(KIOSK, request.kiosk),
    ]
    if request.customer is not None and not is_private:
        pairs.append(SearchAttributePair(CUSTOMER, request.customer))
    return TypedSearchAttributes(pairs)


def _as_asked(lines: Sequence[Pieces] | None) -> dict[str, int] | None:
    return None if lines is None else pieces_by_sku(lines)


def as_mall_error(error: WorkflowUpdateFailedError) -> MallError:
    """The error of our tree that an update failed with."""
    cause = error.cause
    if not isinstance(cause, ApplicationError):
        return Unavailable(f"the order's workflow could not do it: {cause}")
    detail = cause.details[0] if cause.details else None
    match cause.type:
        case "refused":
            return Refused(Refusal.model_validate(detail))
        case TooManyAttempts.code:
            return TooManyAttempts(cause.message, int(detail or 0))
        case InvalidInput.code | WrongPickupCode.code:
            kind = WrongPickupCode if cause.type == WrongPickupCode.code else InvalidInput
            return kind(cause.message, str(detail) if detail else None)
        case NotReady.code | NotStuck.code | HandOverUnderWay.code | OrderClosed.code:
            known: tuple[type[MallError], ...] = (NotReady, NotStuck, HandOverUnderWay, OrderClosed)
            return next(kind for kind in known if kind.code == cause.type)(cause.message)
    return Unavailable(cause.message or "the payment could not be taken: try again, or let it be paid otherwise")


def as_unavailable(error: RPCError) -> Unavailable:
    return Unavailable(f"Temporal did not answer ({error.status.name.lower()}): try again")

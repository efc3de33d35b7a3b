"""What lets the workflow of an order begin again with its first step: the database is older than Temporal."""

import asyncio
from datetime import timedelta
from uuid import UUID, uuid4

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType, ResetReapplyExcludeType
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import (
    Client,
    WorkflowExecutionStatus,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.service import RPCError, RPCStatusCode

from domains.orders.messages import OrderAnswer
from workflows.client import RPC_TIMEOUT, as_unavailable
from workflows.ids import workflow_id


async def status_of(client: Client, order_id: UUID) -> WorkflowExecutionStatus | None:
    """That of the newest workflow of an order, by Temporal itself, not by its list; None if there is none. Raises
    `Unavailable`."""
    try:
        description = await client.get_workflow_handle(workflow_id(order_id)).describe(rpc_timeout=RPC_TIMEOUT)
    except RPCError as error:
        if error.status == RPCStatusCode.NOT_FOUND:
            return None
        raise as_unavailable(error) from error
    return description.status


async def repeat_from_start(client: Client, order_id: UUID, *, reason: str) -> None:
    """Let the newest workflow of an order, also one that has ended, do all its steps again. What it was told so
    far, that it was to be cancelled or handed over, it does not hear again. Raises `Unavailable`."""
    workflow = client.get_workflow_handle(workflow_id(order_id))
    nothing_again = (
        ResetReapplyExcludeType.RESET_REAPPLY_EXCLUDE_TYPE_SIGNAL,
        ResetReapplyExcludeType.RESET_REAPPLY_EXCLUDE_TYPE_UPDATE,
        ResetReapplyExcludeType.RESET_REAPPLY_EXCLUDE_TYPE_CANCEL_REQUEST,
    )
    try:
        run_id = (await workflow.describe(rpc_timeout=RPC_TIMEOUT)).run_id
        async for event in workflow.fetch_history_events():
            if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED:
                break
        else:
            # It has not done anything yet.
            return
        await client.workflow_service.reset_workflow_execution(
            ResetWorkflowExecutionRequest(
                namespace=client.namespace,
                workflow_execution=WorkflowExecution(workflow_id=workflow.id, run_id=run_id),
                reason=reason,
                workflow_task_finish_event_id=event.event_id,
                request_id=str(uuid4()),
                reset_reapply_exclude_types=nothing_again,
            ),
            timeout=RPC_TIMEOUT,
        )
    except RPCError as error:
        raise as_unavailable(error) from error


async def until_approved(client: Client, order_id: UUID, *, timeout: timedelta) -> bool:
    """Wait until the workflow of an order has its answer, from when on a cancel undoes all of it. False if that
    takes longer than `timeout`. Raises `Unavailable`."""
    workflow = client.get_workflow_handle(workflow_id(order_id))
    try:
        async with asyncio.timeout(timeout.total_seconds()):
            await workflow.execute_update("answer", id=f"answer-{uuid4()}", result_type=OrderAnswer)
    except (WorkflowUpdateRPCTimeoutOrCancelledError, TimeoutError):
        return False
    except WorkflowUpdateFailedError:
        # It ended meanwhile.
        return True
    except RPCError as error:
        raise as_unavailable(error) from error
    return True

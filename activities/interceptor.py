"""What every activity has in common, in one place: what its errors mean to Temporal, whose cause its events
carry, and that its reply says how many attempts it took."""

from typing import Any
from uuid import UUID

from temporalio import activity
from temporalio.exceptions import ApplicationError
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from events.store import Cause, caused_by
from kernel.errors import MallError, OrderClosed, Refused
from kernel.messages import Done


class StepInterceptor(Interceptor):
    """Give to every worker that runs activities."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        return _StepInbound(next)


class _StepInbound(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        info = activity.info()
        cause = Cause(
            correlation_id=_order_id(info.workflow_id),
            causation_id=f"{info.activity_type}/{info.workflow_run_id}/{info.activity_id}",
        )
        try:
            with caused_by(cause):
                reply = await super().execute_activity(input)
        except Refused as refused:
            raise ApplicationError(
                refused.message, refused.refusal.model_dump(), type=Refused.code, non_retryable=True
            ) from refused
        except OrderClosed as closed:
            raise ApplicationError(closed.message, type=closed.code, non_retryable=True) from closed
        except MallError as error:
            raise ApplicationError(error.message, type=error.code) from error
        return Done(attempts=info.attempt, reply=reply)


def _order_id(workflow_id: str | None) -> UUID | None:
    try:
        return UUID((workflow_id or "").removeprefix("order-"))
    except ValueError:
        return None

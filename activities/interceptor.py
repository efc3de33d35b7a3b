"""What every activity has in common, in one place: what its errors mean to Temporal, whose cause its events
carry, and that its reply says how many attempts it took."""

from typing import Any
from uuid import UUID

from temporalio import activity
from temporalio.exceptions import ApplicationError
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from events.store import Causation, caused_by
from kernel.errors import InvalidInput, MallError, OrderClosed, Refusal, Refused
from kernel.messages import Done, Failed


class StepInterceptor(Interceptor):
    """Give to every worker that runs activities."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        return _StepInbound(next)


class _StepInbound(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        info = activity.info()
        cause = Causation(
            correlation_id=_order_id(input.args[0]),
            causation_id=f"{info.activity_type}/{info.workflow_run_id}/{info.activity_id}",
        )
        try:
            with caused_by(cause):
                reply = await super().execute_activity(input)
        except MallError as error:
            failed = Failed(
                attempts=info.attempt,
                message=f"{error.code}: {error.message}",
                code=error.code,
                detail=error.message,
                field=error.field if isinstance(error, InvalidInput) else None,
                refusal=_refusal(error),
            )
            final = failed.refusal is not None or isinstance(error, InvalidInput)
            raise ApplicationError(error.message, failed, type=error.code, non_retryable=final) from error
        return Done(attempts=info.attempt, reply=reply)


def _refusal(error: MallError) -> Refusal | None:
    """Why the saga ends, where it does; None for what is tried again."""
    if isinstance(error, Refused):
        return error.refusal
    if isinstance(error, OrderClosed):
        return Refusal(code="order_cancelled", detail=error.message)
    return None


def _order_id(command: Any) -> UUID | None:
    """The order that a command is for."""
    order_id: UUID | None = getattr(getattr(command, "order", command), "order_id", None)
    return order_id

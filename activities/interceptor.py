"""What every activity has in common, in one place: what its errors mean to Temporal, whose cause its events
carry, and that its reply says how many attempts it took."""

from typing import Any, Final
from uuid import UUID

from opentelemetry import metrics
from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from events.store import Causation, caused_by
from kernel.errors import InvalidInput, MallError, OrderClosed, Refusal, Refused
from kernel.messages import Done, Failed
from kernel.order_context import about_order

_meter = metrics.get_meter("mallbots.step")
_retries = _meter.create_counter(
    "mallbots.step.retries", "{attempt}", "Attempts at a step or an undo after the first"
)
_refusals = _meter.create_counter("mallbots.step.refusals", "{attempt}", "Steps that a business rule refused")
_failures = _meter.create_counter(
    "mallbots.step.failures", "{attempt}", "Attempts at a step or an undo that failed, and are made again"
)
_undo_failures = _meter.create_counter("mallbots.undo.failures", "{attempt}", "Attempts at an undo that failed")


# Of a failure that is retried Temporal keeps 4 KiB, and lets drop what tells most of one that has more.
_LONGEST: Final = 500


class StepInterceptor(Interceptor):
    """Give to every worker that runs activities; `undos` are those activities that undo something."""

    def __init__(self, undos: frozenset[str] = frozenset()) -> None:
        self._undos = undos
        for undo in undos:
            # Prometheus sees a rise only in what it has seen before.
            _undo_failures.add(0, {"activity": undo})

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        return _StepInbound(next, self._undos)


class _StepInbound(ActivityInboundInterceptor):
    def __init__(self, next: ActivityInboundInterceptor, undos: frozenset[str]) -> None:
        super().__init__(next)
        self._undos = undos

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        info = activity.info()
        cause = Causation(
            correlation_id=_order_id(input.args[0]),
            causation_id=f"{info.activity_type}/{info.workflow_run_id}/{info.activity_id}",
        )
        if info.attempt > 1:
            _retries.add(1, {"activity": info.activity_type})
        try:
            with about_order(cause.correlation_id), caused_by(cause):
                reply = await super().execute_activity(input)
        except MallError as error:
            told = error.message[:_LONGEST]
            failed = Failed(
                attempts=info.attempt,
                message=f"{error.code}: {told}",
                code=error.code,
                detail=told,
                field=error.field if isinstance(error, InvalidInput) else None,
                refusal=_refusal(error),
            )
            self._count(info.activity_type, failed)
            final = failed.refusal is not None or isinstance(error, InvalidInput)
            # What a rule refuses is no fault: neither in traces nor in Temporal's log and metrics.
            is_fault = failed.refusal is None or info.activity_type in self._undos
            category = ApplicationErrorCategory.UNSPECIFIED if is_fault else ApplicationErrorCategory.BENIGN
            raise ApplicationError(
                told, failed, type=error.code, non_retryable=final, category=category
            ) from error
        except Exception:
            self._count(info.activity_type, None)
            raise
        return Done(attempts=info.attempt, reply=reply)

    def _count(self, activity: str, failed: Failed | None) -> None:
        """Tell of an attempt that did not go through. An undo is never refused: somebody must mend it."""
        is_undo = activity in self._undos
        if is_undo:
            _undo_failures.add(1, {"activity": activity})
        if failed is not None and failed.refusal is not None and not is_undo:
            _refusals.add(1, {"activity": activity, "code": failed.refusal.code})
        else:
            _failures.add(1, {"activity": activity, "code": failed.code if failed else "unexpected"})


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

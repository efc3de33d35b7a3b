"""What is said on a robot's stream, in the trace of the order that it is about. The stream itself, which may last
for days, is no span."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final
from uuid import UUID

from opentelemetry import propagate, trace
from opentelemetry.context import Context, get_current
from opentelemetry.trace import SpanKind, Status, StatusCode, get_current_span

from kernel.errors import MallError, Unavailable
from kernel.order_context import about_order

TraceContext = Mapping[str, str] | None

_tracer: Final = trace.get_tracer("mallbots.robots")


@contextmanager
def told(robot: str, what: str, order_id: UUID, context: TraceContext, began: int | None = None) -> Iterator[str]:
    """Around telling a robot something; inside, the `traceparent` that it can go on with, or nothing. It `began`
    at that time, in nanoseconds, or now."""
    with _spanned(f"tell robot {what}", SpanKind.PRODUCER, robot, order_id, context, began):
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        yield carrier.get("traceparent", "")


@contextmanager
def heard(robot: str, what: str, order_id: UUID, context: TraceContext) -> Iterator[None]:
    """Around the handling of what a robot says. That it is refused by a rule is no error."""
    with _spanned(f"hear robot {what}", SpanKind.SERVER, robot, order_id, context, None):
        yield


@contextmanager
def _spanned(
    name: str, kind: SpanKind, robot: str, order_id: UUID, context: TraceContext, began: int | None
) -> Iterator[None]:
    # What the robot is told while it is heard is the answer.
    parent = get_current() if get_current_span().is_recording() else propagate.extract(context or {}, Context())
    if not get_current_span(parent).get_span_context().is_valid:
        with about_order(order_id):
            yield
        return
    with (
        _tracer.start_as_current_span(
            name,
            parent,
            kind,
            {"rpc.system.name": "grpc", "mallbots.robot": robot},
            start_time=began,
            record_exception=False,
            set_status_on_exception=False,
        ) as span,
        about_order(order_id),
    ):
        try:
            yield
        except Exception as error:
            if isinstance(error, Unavailable) or not isinstance(error, MallError):
                span.record_exception(error)
                span.set_status(Status(StatusCode.ERROR, type(error).__name__))
            raise

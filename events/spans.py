"""Spans of events on their way: where one is published, and where it takes effect. Each belongs to the trace that
the event was written in; an event that was written in none is not traced."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from opentelemetry import propagate, trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from events.recorded import ROOT, RecordedEvent
from kernel.order_context import ORDER_ID, about_order

_tracer: Final = trace.get_tracer("mallbots.events")


@contextmanager
def published(events: Sequence[RecordedEvent]) -> Iterator[list[dict[str, str]]]:
    """Around the publishing of a batch; inside, the headers of each event that its readers go on from."""
    spans = [_publish_span(event, len(events)) for event in events]
    try:
        yield [_headers(span) for span in spans]
    except Exception as error:
        for span in spans:
            _fail(span, error)
        raise
    finally:
        for span in spans:
            span.end()


@contextmanager
def within(trace_context: Mapping[str, str] | None) -> Iterator[None]:
    """What happens inside the block belongs to this trace, if it is one, else to none."""
    token = attach(_context(trace_context) or Context())
    try:
        yield
    finally:
        detach(token)


@contextmanager
def about(event: RecordedEvent) -> Iterator[None]:
    """What is logged inside the block names the order and the trace of the event."""
    with within(event.trace_context), about_order(event.correlation_id):
        yield


@contextmanager
def taking_effect(event: RecordedEvent, consumer: str) -> Iterator[None]:
    """Around a consumer's handling of an event."""
    context = _context(event.trace_context)
    if context is None:
        with about_order(event.correlation_id):
            yield
        return
    with (
        _tracer.start_as_current_span(
            f"{consumer} process {_destination(event)}",
            context,
            SpanKind.CONSUMER,
            _attributes(event, "process") | {"messaging.consumer.group.name": consumer},
        ),
        about_order(event.correlation_id),
    ):
        yield


def _publish_span(event: RecordedEvent, count: int) -> Span:
    context = _context(event.trace_context)
    if context is None:
        return trace.INVALID_SPAN
    span = _tracer.start_span(f"publish {_destination(event)}", context, SpanKind.PRODUCER)
    if span.is_recording():
        span.set_attributes(_attributes(event, "send"))
        span.set_attribute("messaging.batch.message_count", count)
        if event.correlation_id is not None:
            span.set_attribute(ORDER_ID, str(event.correlation_id))
    return span


def _headers(span: Span) -> dict[str, str]:
    headers: dict[str, str] = {}
    if span.is_recording():
        propagate.inject(headers, trace.set_span_in_context(span, Context()))
    return headers


def _context(trace_context: Mapping[str, str] | None) -> Context | None:
    if not trace_context:
        return None
    context = propagate.extract(trace_context, Context())
    return context if trace.get_current_span(context).get_span_context().is_valid else None


def _destination(event: RecordedEvent) -> str:
    return f"{ROOT}.{event.domain}.{event.type}"


def _attributes(event: RecordedEvent, operation: str) -> dict[str, str]:
    return {
        "messaging.system": "nats",
        "messaging.operation.type": operation,
        "messaging.destination.name": event.subject,
        "messaging.destination.template": f"{_destination(event)}.{{stream}}",
        "messaging.message.id": str(event.id),
    }


def _fail(span: Span, error: Exception) -> None:
    span.set_attribute("error.type", type(error).__name__)
    span.set_status(Status(StatusCode.ERROR, str(error)))

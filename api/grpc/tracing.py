"""Calls in traces: what a call leads to belongs to the trace that it came with (W3C Trace Context)."""

from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

import grpc
from grpc import StatusCode as Code
from grpc import aio
from opentelemetry import propagate, trace
from opentelemetry.context import attach, detach
from opentelemetry.trace import SpanKind, Status, StatusCode

from api.grpc.handlers import Context, Continuation, Handler, Method, around, is_stream
from kernel.order_context import about_order

_NOT_TRACED: Final = ("/grpc.",)
"""Health and reflection."""
_FAULTS: Final = (
    Code.UNKNOWN,
    Code.DEADLINE_EXCEEDED,
    Code.UNIMPLEMENTED,
    Code.INTERNAL,
    Code.UNAVAILABLE,
    Code.DATA_LOSS,
)
"""What is a server's error, as the semantic conventions have it."""

_tracer: Final = trace.get_tracer("mallbots.grpc")


class TraceInterceptor(aio.ServerInterceptor):
    """Makes the `traceparent` of a call the current context of its method, and the call a span. A stream, which
    may last for days, is none: what is said on it may be."""

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> "Handler | None":
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        name = handler_call_details.method
        if is_stream(handler) or name.startswith(_NOT_TRACED):
            return around(handler, _within_trace)
        return around(handler, _as_span(name))


def _within_trace(method: Method) -> Method:
    async def traced(request: Any, context: Context) -> Any:
        sent = {name: str(value) for name, value in context.invocation_metadata() or ()}
        token = attach(propagate.extract(sent))
        try:
            return await method(request, context)
        finally:
            detach(token)

    return traced


def _as_span(name: str) -> Callable[[Method], Method]:
    service, _, called = name.removeprefix("/").rpartition("/")
    attributes = {"rpc.system.name": "grpc", "rpc.service": service, "rpc.method": called}

    def wrap(method: Method) -> Method:
        async def spanned(request: Any, context: Context) -> Any:
            with (
                _tracer.start_as_current_span(
                    f"{service}/{called}",
                    kind=SpanKind.SERVER,
                    attributes=attributes,
                    record_exception=False,
                    set_status_on_exception=False,
                ) as span,
                about_order(_order_of(request)),
            ):
                try:
                    return await method(request, context)
                except aio.AbortError:
                    code = context.code()
                    span.set_attribute("rpc.response.status_code", code.name)
                    if code in _FAULTS:
                        span.set_status(Status(StatusCode.ERROR, code.name))
                    raise

        return _within_trace(spanned)

    return wrap


def _order_of(request: Any) -> UUID | None:
    try:
        return UUID(getattr(request, "order_id", ""))
    except ValueError:
        return None

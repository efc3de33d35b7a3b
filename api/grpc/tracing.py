"""The caller's W3C trace context: what a call leads to belongs to the trace that it came with."""

from typing import Any

import grpc
from grpc import aio
from opentelemetry import context as trace_context
from opentelemetry import propagate

from api.grpc.handlers import Context, Continuation, Handler, Method, around


class TraceInterceptor(aio.ServerInterceptor):
    """Makes the `traceparent` of a call the current context of its method."""

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> "Handler | None":
        handler = await continuation(handler_call_details)
        return None if handler is None else around(handler, _within_trace)


def _within_trace(method: Method) -> Method:
    async def traced(request: Any, context: Context) -> Any:
        sent = {name: str(value) for name, value in context.invocation_metadata() or ()}
        token = trace_context.attach(propagate.extract(sent))
        try:
            return await method(request, context)
        finally:
            trace_context.detach(token)

    return traced

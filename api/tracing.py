"""Requests in traces: what a request leads to belongs to the trace that it came with (W3C Trace Context), and the
answer says which one that is, in `traceresponse`.

The spans are FastAPI's own. They are made only where there is somewhere to send them; the trace is carried on, and
told, without.
"""

import re
from collections.abc import MutableMapping
from typing import Any, Final
from uuid import UUID

from fastapi.telemetry import TelemetryConfig
from opentelemetry import propagate, trace
from opentelemetry.context import attach, detach, get_current
from opentelemetry.trace import format_span_id, format_trace_id
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kernel.order_context import about_order

_UNTOLD: Final = ("/healthz", "/metrics", "/assets/")
_STREAMS: Final = re.compile("/orders/[^/]+/events$")
_ORDER: Final = re.compile("/orders/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?:/|$)")


def _is_no_span(scope: MutableMapping[str, Any]) -> bool:
    """Health checks tell no story, and what lasts for days, as streams do, would be in none until it ends."""
    path: str = scope["path"]
    return scope["type"] == "websocket" or path.startswith(_UNTOLD) or _STREAMS.search(path) is not None


SPANS: Final[TelemetryConfig] = {"operation_spans": False, "logs": False, "exclude": _is_no_span}
"""What FastAPI is to make spans of: requests."""


class TraceContext:
    """Around the application: what it does belongs to the trace of the request, and is about its order."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return

        # Where FastAPI has made a span, that is the context.
        has_span = trace.get_current_span().get_span_context().is_valid
        context = get_current() if has_span else propagate.extract(Headers(scope=scope))
        here = trace.get_current_span(context).get_span_context()

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start" and here.is_valid:
                ids = f"{format_trace_id(here.trace_id)}-{format_span_id(here.span_id)}"
                MutableHeaders(scope=message)["traceresponse"] = f"00-{ids}-{here.trace_flags:02x}"
            await send(message)

        order = _ORDER.search(scope["path"])
        token = attach(context)
        try:
            with about_order(UUID(order[1]) if order else None):
                await self._app(scope, receive, answer)
        finally:
            detach(token)

"""What the gateways for people and kiosks tell Prometheus: requests, and the clients that follow what happens."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Final, Literal

from opentelemetry import metrics
from starlette.types import ASGIApp, Message, Receive, Scope, Send

Following = Literal["websocket", "order"]
"""A WebSocket with all events, or a stream of the events of one order."""

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_NO_ROUTE: Final = "none"

_meter = metrics.get_meter("mallbots.api")
_duration = _meter.create_histogram(
    "mallbots.http.request.duration",
    "s",
    "Time until the answer to a request begins",
    explicit_bucket_boundaries_advisory=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
_clients = _meter.create_up_down_counter(
    "mallbots.live.clients", "{client}", "Clients that follow what happens, on this process"
)


class RequestMetrics:
    """Around the application: notes each request by its route, never by its path, and the status of its answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        for kind in ("websocket", "order"):
            _clients.add(0, {"kind": kind})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, answered = perf_counter(), False

        async def note(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.start" and not answered:
                answered = True
                _note(scope, message["status"], perf_counter() - began)
            await send(message)

        try:
            await self._app(scope, receive, note)
        except Exception:
            if not answered:
                _note(scope, 500, perf_counter() - began)
            raise


def _note(scope: Scope, status: int, seconds: float) -> None:
    route = getattr(scope.get("route"), "path", _NO_ROUTE)
    method = scope["method"] if scope["method"] in _METHODS else "other"
    _duration.record(seconds, {"method": method, "route": route, "status": str(status)})


@contextmanager
def following(kind: Following) -> Iterator[None]:
    """Counts a client for as long as it follows."""
    _clients.add(1, {"kind": kind})
    try:
        yield
    finally:
        _clients.add(-1, {"kind": kind})

"""Traces: one an order, from the request that it began with to everything that this led to.

Where no collector is given, no span is made, and OpenTelemetry's SDK is not even imported. The context of the
caller's trace is carried on all the same: through Temporal, in every event, and to whoever reads it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mallbots.settings import Settings

if TYPE_CHECKING:
    from temporalio.client import Interceptor

_exporting: list[str] = []


@contextmanager
def tracing(settings: Settings, service: str) -> Iterator[None]:
    """Send the spans of this process, as those of `mallbots-<service>`, to the collector of the settings, if there
    is one. At the end what is left is sent, for a few seconds at most. Once a process.

    A collector that is away costs spans, and nothing else.
    """
    if settings.otlp_endpoint is None:
        yield
        return
    # Only now: it takes a second.
    from mallbots.otlp import start_exporting

    stop = start_exporting(str(settings.otlp_endpoint), settings.trace_ratio, service)
    _exporting.append(service)
    try:
        yield
    finally:
        stop()


def temporal_interceptor() -> "Interceptor":
    """What a client of Temporal carries traces with, and its workers; it makes spans where this process does."""
    if not _exporting:
        from mallbots.trace_headers import TraceHeaders

        return TraceHeaders()
    from temporalio.contrib.opentelemetry import OpenTelemetryInterceptor

    return OpenTelemetryInterceptor(add_temporal_spans=True)

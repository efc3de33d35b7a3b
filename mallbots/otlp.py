"""The spans of a process, sent by OTLP. This imports OpenTelemetry's SDK: `mallbots.tracing` does so late."""

import logging
import os
import re
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from importlib.metadata import version
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import (
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import Link, SpanKind, Status, StatusCode, TraceState
from opentelemetry.util.types import Attributes
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine, ExceptionContext, ExecutionContext
from temporalio import workflow
from temporalio.contrib.opentelemetry import create_tracer_provider

from kernel.order_context import ORDER_ID, current_order

FLUSH_WITHIN: Final = 2.0
"""Seconds that a process which ends may take to send what is left."""

_EXPORT_WITHIN: Final = 5.0
_FLUSH_IF_AWAY: Final = 0.1
_POSTGRES_PORT: Final = 5432
_STATEMENTS_KNOWN: Final = 1_000
_TARGET: Final = re.compile(r"\b(INSERT INTO|UPDATE|DELETE FROM|FROM)\s+([a-z_]+(?:\.[a-z_]+)?)", re.ASCII)
_INNERMOST: Final = re.compile(r"\([^()]*\)")
_OPERATIONS: Final = {"INSERT INTO": "INSERT", "UPDATE": "UPDATE", "DELETE FROM": "DELETE", "FROM": "SELECT"}
_OF_WORKFLOWS: Final = ("RunWorkflow:", "HandleUpdate:", "HandleSignal:")
_SPAN: Final = "_mallbots_span"

_log = logging.getLogger(__name__)


def start_exporting(endpoint: str, ratio: float, service: str) -> Callable[[], None]:
    """Send this process's spans to `endpoint`, and of the traces that begin here so many; returns what sends the
    rest and ends it."""
    url = endpoint.rstrip("/")
    if not url.endswith("/v1/traces"):
        url += "/v1/traces"
    resource = Resource.create(
        {
            "service.namespace": "mallbots",
            "service.name": f"mallbots-{service}",
            "service.version": version("mallbots"),
            "service.instance.id": f"{socket.gethostname()}-{os.getpid()}",
        }
    )
    provider = create_tracer_provider(
        sampler=ParentBased(_Beginnings(ratio)), resource=resource, shutdown_on_exit=False
    )
    provider.add_span_processor(_Attributes())
    exporter = _Patient(OTLPSpanExporter(url, timeout=_EXPORT_WITHIN), url)
    provider.add_span_processor(FinishedSpans(exporter))
    trace.set_tracer_provider(provider)
    # They would complain of each batch; `_Patient` does once.
    logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)
    logging.getLogger("opentelemetry.sdk._shared_internal").setLevel(logging.ERROR)
    # It complains of every workflow that is dropped from a worker's memory.
    logging.getLogger("opentelemetry.context").setLevel(logging.CRITICAL)
    _trace_sql()
    _trace_http_clients()

    def stop() -> None:
        ending = threading.Thread(target=provider.shutdown, daemon=True)
        ending.start()
        ending.join(_FLUSH_IF_AWAY if exporter.is_away else FLUSH_WITHIN)

    return stop


class _Beginnings(Sampler):
    """Which traces are begun: a part of them. None begins with what we ask of others: what no request led to, such
    as the polling of a database, is no story."""

    def __init__(self, ratio: float) -> None:
        self._ratio = TraceIdRatioBased(ratio)

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        if kind is SpanKind.CLIENT:
            return SamplingResult(Decision.DROP)
        return self._ratio.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        return f"Beginnings({self._ratio.get_description()})"


class _Attributes(SpanProcessor):
    """Lets every span name the order that it is about, and hides the queries of URLs: some hold secrets."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        if (span.attributes or {}).get("url.query"):
            span.set_attribute("url.query", "REDACTED")
        if (order_id := current_order()) is not None:
            span.set_attribute(ORDER_ID, str(order_id))
            return
        workflow_id = str((span.attributes or {}).get("temporalWorkflowID", ""))
        if workflow_id.startswith("order-"):
            span.set_attribute(ORDER_ID, workflow_id.removeprefix("order-"))


class FinishedSpans(BatchSpanProcessor):
    """Exports in batches, but not the spans of a workflow that is only dropped from a worker's memory: it goes on
    elsewhere, and these spans, with the same ids, end there."""

    def on_end(self, span: ReadableSpan) -> None:
        if span.name.startswith(_OF_WORKFLOWS) and not workflow.in_workflow():
            return
        super().on_end(span)


class _Patient(SpanExporter):
    """Says once that the collector does not take spans, and once that it does again."""

    def __init__(self, exporter: SpanExporter, url: str) -> None:
        self._exporter = exporter
        self._url = url
        self.is_away = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        is_away = result is not SpanExportResult.SUCCESS
        if is_away and not self.is_away:
            _log.warning("traces can not be sent to %s: they are dropped until they can", self._url)
        elif self.is_away and not is_away:
            _log.info("traces are sent to %s again", self._url)
        self.is_away = is_away
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


def _trace_sql() -> None:
    """A span for each statement of a traced story, on every engine. It has the statement's text, in which values
    are parameters, and never a value: not even of an error's message, which may quote some."""
    tracer = trace.get_tracer("mallbots.sql")

    def before(
        connection: Connection, _cursor: Any, statement: str, _: Any, context: ExecutionContext, _many: bool
    ) -> None:
        if trace.get_current_span().is_recording():
            name, described = _described(statement)
            url = connection.engine.url
            attributes: dict[str, str | int] = {
                **described,
                "db.namespace": url.database or "",
                "server.address": url.host or "",
                "server.port": url.port or _POSTGRES_PORT,
            }
            setattr(context, _SPAN, tracer.start_span(name, kind=SpanKind.CLIENT, attributes=attributes))

    def after(
        _connection: Connection, _cursor: Any, _statement: str, _: Any, context: ExecutionContext, _many: bool
    ) -> None:
        if (span := getattr(context, _SPAN, None)) is not None:
            span.end()

    def failed(error: ExceptionContext) -> None:
        if (span := getattr(error.execution_context, _SPAN, None)) is not None:
            cause = error.original_exception
            span.set_attribute("error.type", type(getattr(cause, "__cause__", None) or cause).__name__)
            span.set_status(Status(StatusCode.ERROR))
            span.end()

    event.listen(Engine, "before_cursor_execute", before)
    event.listen(Engine, "after_cursor_execute", after)
    event.listen(Engine, "handle_error", failed)


@lru_cache(maxsize=_STATEMENTS_KNOWN)
def _described(statement: str) -> tuple[str, Mapping[str, str]]:
    """What a statement does, as `INSERT orders.events`, and that as attributes."""
    outer = statement
    while statement.startswith("SELECT") and (shorter := _INNERMOST.sub("", outer)) != outer:
        outer = shorter
    found = _TARGET.search(outer) or _TARGET.search(statement)
    operation = _OPERATIONS[found[1]] if found else statement.split(maxsplit=1)[0]
    name = f"{operation} {found[2]}" if found else operation
    attributes = {
        "db.system.name": "postgresql",
        "db.operation.name": operation,
        "db.query.summary": name,
        "db.query.text": statement,
    }
    return name, attributes | ({"db.collection.name": found[2]} if found else {})


def _trace_http_clients() -> None:
    """Spans for what is asked of others by HTTP, which get the trace's context."""
    os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http")
    from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor

    async def hide_secrets(span: trace.Span, request: Any) -> None:
        url = urlsplit(str(request.url))
        span.set_attribute("url.full", urlunsplit((url.scheme, url.hostname or "", url.path, "", "")))

    HTTPXClientInstrumentor().instrument(async_request_hook=hide_secrets)

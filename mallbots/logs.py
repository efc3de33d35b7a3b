"""Logging of every process: one line a record, to standard error, for people or as JSON for machines.

A line names the order and the trace that it is about, wherever there are any.
"""

import logging
import sys
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import trace
from opentelemetry.trace import format_span_id, format_trace_id

from kernel.order_context import current_order
from mallbots.settings import Settings

if TYPE_CHECKING:
    from structlog.typing import Processor

_OURS: Final = ("mallbots", "api", "activities", "workflows", "domains", "events", "consumers", "clients")
_ORDER_WORKFLOW: Final = "order-"

_Line = MutableMapping[str, Any]


def configure_logging(settings: Settings) -> None:
    """Log at the level that the settings ask for; libraries at `warning` and above."""
    handler = logging.StreamHandler()
    handler.setFormatter(formatter(settings))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    for ours in _OURS:
        logging.getLogger(ours).setLevel(settings.log_level.upper())


def formatter(settings: Settings) -> logging.Formatter:
    """What makes a line of a record, as the settings ask for."""
    # Only now: it takes a while, and short commands log nothing.
    import structlog

    on_terminal = sys.stderr.isatty()
    as_json = settings.log_format == "json" or (settings.log_format == "auto" and not on_terminal)
    every_line: list[Processor] = [
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_order,
        _add_trace,
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
    ]
    if as_json:
        # Without local variables: they hold what is nobody's business.
        frames = structlog.tracebacks.ExceptionDictTransformer(show_locals=False, use_rich=False)
        rendered: list[Processor] = [
            structlog.processors.ExceptionRenderer(frames),
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ]
    else:
        plain = structlog.dev.plain_traceback
        rendered = [structlog.dev.ConsoleRenderer(colors=on_terminal, exception_formatter=plain)]
    return structlog.stdlib.ProcessorFormatter(processors=[*every_line, *rendered])


def _add_order(_: Any, __: str, line: _Line) -> _Line:
    order_id = current_order() or _order_of_temporal(line["_record"])
    if order_id is not None:
        line["order_id"] = str(order_id)
    return line


def _order_of_temporal(record: logging.LogRecord) -> str | None:
    """The order whose workflow or activity Temporal's own lines, and those of workflows, are about."""
    told: dict[str, Any] = getattr(record, "temporal_activity", None) or getattr(record, "temporal_workflow", {})
    workflow_id = str(told.get("workflow_id", ""))
    return workflow_id.removeprefix(_ORDER_WORKFLOW) if workflow_id.startswith(_ORDER_WORKFLOW) else None


def _add_trace(_: Any, __: str, line: _Line) -> _Line:
    span = trace.get_current_span().get_span_context()
    if span.is_valid:
        line["trace_id"] = format_trace_id(span.trace_id)
        line["span_id"] = format_span_id(span.span_id)
    return line

"""What a line of the log tells: people on a terminal, and machines elsewhere."""

import json
import logging
from typing import Any
from uuid import UUID

import pytest
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, use_span

from kernel.order_context import about_order, current_order
from mallbots.logs import formatter
from mallbots.settings import Settings

ORDER = UUID(int=7)
SPAN = NonRecordingSpan(SpanContext(0xA0, 0xB0, is_remote=True, trace_flags=TraceFlags(1)))


def written(record: logging.LogRecord, log_format: str = "json") -> str:
    return formatter(Settings.model_validate({"log_format": log_format})).format(record)


def line(record: logging.LogRecord) -> dict[str, Any]:
    return dict(json.loads(written(record)))


def record(**fields: Any) -> logging.LogRecord:
    made = logging.LogRecord("events.relay", logging.WARNING, __file__, 1, "relay of %s", ("orders",), None)
    made.__dict__ |= fields
    return made


def test_a_line_says_when_who_and_what() -> None:
    told = line(record())
    assert told.pop("timestamp").endswith("Z")
    assert told == {"event": "relay of orders", "level": "warning", "logger": "events.relay"}


def test_a_line_names_the_order_and_the_trace_that_it_is_about() -> None:
    with about_order(ORDER), use_span(SPAN):
        told = line(record())
    assert (told["order_id"], told["trace_id"], told["span_id"]) == (str(ORDER), f"{0xA0:032x}", f"{0xB0:016x}")
    assert current_order() is None


def test_within_an_order_what_is_about_no_order_of_its_own_is_about_that() -> None:
    with about_order(ORDER), about_order(None):
        assert current_order() == ORDER


@pytest.mark.parametrize("kind", ["temporal_activity", "temporal_workflow"])
def test_a_line_of_temporals_names_the_order_of_its_workflow(kind: str) -> None:
    assert line(record(**{kind: {"workflow_id": f"order-{ORDER}"}}))["order_id"] == str(ORDER)
    assert "order_id" not in line(record(**{kind: {"workflow_id": "refund-1"}}))


def test_an_exception_is_a_field_without_the_values_of_variables() -> None:
    failed = record()
    try:
        secret = "tok_secret"
        raise ValueError("no such token" if secret else "")
    except ValueError as error:
        failed.exc_info = (ValueError, error, error.__traceback__)
    told = line(failed)
    (raised,) = told["exception"]
    assert (raised["exc_type"], raised["exc_value"]) == ("ValueError", "no such token")
    assert "tok_secret" not in json.dumps(told)


def test_for_people_a_line_is_plain_text_with_the_order_behind_it() -> None:
    with about_order(ORDER):
        told = written(record(), "pretty")
    assert "relay of orders" in told
    assert told.rstrip().endswith(f"order_id={ORDER}")


def test_elsewhere_than_on_a_terminal_lines_are_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: False, raising=False)
    assert json.loads(written(record(), "auto"))["event"] == "relay of orders"
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert not written(record(), "auto").startswith("{")

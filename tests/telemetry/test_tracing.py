"""Tracing of one process: what it costs when nobody listens, what is kept, and what a collector that is away does.

The trace of a whole order is in `tests/end_to_end/test_a_trace.py`.
"""

import subprocess
import sys
import time
from pathlib import Path

from mallbots.embedded import free_port
from tests.collector import a_collector

NO_SDK = """
import sys
import worker, mallbots.relaying, mallbots.serving, mallbots.grpc_serving, mallbots.temporal
from mallbots.settings import Settings
from mallbots.tracing import temporal_interceptor, tracing

with tracing(Settings(), "test"):
    temporal_interceptor()
assert not [name for name in sys.modules if name.startswith("opentelemetry.sdk")]
"""

TRACED = """
import asyncio, sys
from opentelemetry import trace
from opentelemetry.trace import SpanKind
from sqlalchemy import text
from kernel.database import Database
from mallbots.logs import configure_logging
from mallbots.settings import Settings
from mallbots.tracing import tracing

async def ask(url):
    database = Database("orders", url)
    tracer = trace.get_tracer("test")

    async def execute(statement):
        async with database.transaction() as connection:
            await connection.execute(text(statement), {"name": "ada"})

    await execute("SELECT :name")
    for name in ("first", "second"):
        with tracer.start_as_current_span(name, kind=SpanKind.SERVER):
            await execute("SELECT FROM pg_catalog.pg_class WHERE relname = :name")
            try:
                await execute("SELECT CAST(CAST(:name AS text) AS int)")
            except Exception as error:
                assert "parameters hidden" in str(error), error
    with tracer.start_as_current_span("lonely", kind=SpanKind.CLIENT):
        pass
    await database.close()

settings = Settings()
configure_logging(settings)
with tracing(settings, "test"):
    asyncio.run(ask(sys.argv[1]))
print("went on")
"""


def run(program: str, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        (sys.executable, "-c", program, *arguments),
        env={**variables, "PATH": "/usr/bin:/bin"},
        cwd=Path(__file__).parent.parent.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_without_a_collector_the_sdk_is_not_even_imported() -> None:
    done = run(NO_SDK)
    assert done.returncode == 0, done.stderr


def test_sql_is_traced_by_what_it_does_where_a_request_led_to_it_and_without_values(migrated_url: str) -> None:
    with a_collector() as collector:
        done = run(TRACED, migrated_url, MALLBOTS_OTLP_ENDPOINT=f"{collector.endpoint}/")
        assert done.returncode == 0, done.stderr
        spans = collector.spans
    assert [span.name for span in spans].count("SELECT pg_catalog.pg_class") == 2
    assert {span.name for span in spans} == {"first", "second", "SELECT pg_catalog.pg_class", "SELECT"}
    assert {span.service for span in spans} == {"mallbots-test"}
    statement = next(span for span in spans if span.name.startswith("SELECT pg_catalog"))
    request = next(span for span in spans if span.span_id == statement.parent_id)
    assert request.trace_id == statement.trace_id
    assert "ada" not in str([span.attributes for span in spans])
    failed = [span for span in spans if span.is_error]
    assert {(span.name, span.attributes["error.type"]) for span in failed} == {
        ("SELECT", "InvalidTextRepresentationError")
    }


def test_a_collector_that_is_away_is_told_once_and_hinders_nothing(migrated_url: str) -> None:
    began = time.monotonic()
    done = run(
        f"import mallbots.otlp\nmallbots.otlp._EXPORT_WITHIN = 0.3\n{TRACED}",
        migrated_url,
        MALLBOTS_OTLP_ENDPOINT=f"http://127.0.0.1:{free_port()}",
        MALLBOTS_LOG_FORMAT="pretty",
        OTEL_BSP_MAX_EXPORT_BATCH_SIZE="1",
    )
    assert (done.returncode, done.stdout) == (0, "went on\n"), done.stderr
    assert done.stderr.count("traces can not be sent to http://127.0.0.1:") == 1, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert time.monotonic() - began < 30

"""The trace of a request goes through a workflow to its activities, whether processes make spans or not; a
workflow is one span, however many workers it had."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, use_span
from temporalio import activity, workflow
from temporalio.client import Client, WorkflowHistory
from temporalio.contrib.opentelemetry import OpenTelemetryInterceptor, _otel_interceptor, create_tracer_provider
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Replayer, Worker

from kernel.ids import new_id
from mallbots.otlp import FinishedSpans
from mallbots.trace_headers import TraceHeaders
from workflows.order import OrderWorkflow

TRACE_ID = 0x4BF92F3577B34DA6A3CE929D0E0E4736
REQUEST = NonRecordingSpan(SpanContext(TRACE_ID, 0xB0, is_remote=True, trace_flags=TraceFlags(1)))
QUEUE = "errands"

Interceptor = TraceHeaders | OpenTelemetryInterceptor
Spans = Callable[[], list[str]]


@activity.defn
async def trace_id() -> int:
    return trace.get_current_span().get_span_context().trace_id


@workflow.defn(sandboxed=False)
class Errand:
    """Asks an activity in which trace it is, once it is told to."""

    def __init__(self) -> None:
        self._told = False

    @workflow.run
    async def run(self) -> int:
        await workflow.wait_condition(lambda: self._told)
        return await workflow.execute_activity(trace_id, start_to_close_timeout=timedelta(seconds=10))

    @workflow.signal
    async def tell(self) -> None:
        self._told = True

    @workflow.update
    async def told(self) -> int:
        return await workflow.execute_activity(trace_id, start_to_close_timeout=timedelta(seconds=10))


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Spans:
    """Lets Temporal's interceptor make spans, and tells the names of those that are exported."""
    exporter = InMemorySpanExporter()
    provider = create_tracer_provider(shutdown_on_exit=False)
    provider.add_span_processor(FinishedSpans(exporter))
    # Not the provider of the process, which would be that of all tests.
    monkeypatch.setattr(_otel_interceptor, "get_tracer_provider", lambda: provider)
    monkeypatch.setattr(_otel_interceptor, "get_tracer", provider.get_tracer)

    def names() -> list[str]:
        provider.force_flush()
        return [span.name for span in exporter.get_finished_spans()]

    return names


def client_of(env: WorkflowEnvironment, interceptor: Interceptor) -> Client:
    config = env.client.config()
    config["interceptors"] = [interceptor]
    return Client(**config)


@asynccontextmanager
async def a_worker(env: WorkflowEnvironment, interceptor: Interceptor) -> AsyncIterator[None]:
    async with Worker(client_of(env, interceptor), task_queue=QUEUE, workflows=[Errand], activities=[trace_id]):
        yield


def with_spans() -> OpenTelemetryInterceptor:
    return OpenTelemetryInterceptor(add_temporal_spans=True)


@pytest.mark.parametrize("asks", [TraceHeaders, with_spans])
@pytest.mark.parametrize("works", [TraceHeaders, with_spans])
async def test_activities_are_in_the_trace_of_who_started_the_workflow_or_asks_it(
    env: WorkflowEnvironment, spans: Spans, asks: Callable[[], Interceptor], works: Callable[[], Interceptor]
) -> None:
    client = client_of(env, asks())
    async with a_worker(env, works()):
        with use_span(REQUEST):
            handle = await client.start_workflow(Errand.run, id=f"errand-{new_id()}", task_queue=QUEUE)
            assert await handle.execute_update(Errand.told) == TRACE_ID
        await handle.signal(Errand.tell)
        assert await handle.result() == TRACE_ID


async def test_a_workflow_that_moves_to_another_worker_is_one_span(env: WorkflowEnvironment, spans: Spans) -> None:
    client = client_of(env, with_spans())
    async with a_worker(env, with_spans()):
        with use_span(REQUEST):
            handle = await client.start_workflow(Errand.run, id=f"errand-{new_id()}", task_queue=QUEUE)
            assert await handle.execute_update(Errand.told) == TRACE_ID
    gc.collect()
    async with a_worker(env, with_spans()):
        await handle.signal(Errand.tell)
        await handle.result()
    gc.collect()
    assert spans().count("RunWorkflow:Errand") == 1


async def test_what_is_replayed_makes_no_spans_again(spans: Spans) -> None:
    histories = sorted((Path(__file__).parent / "histories").rglob("*.json"))[:3]
    replayer = Replayer(
        workflows=[OrderWorkflow], data_converter=pydantic_data_converter, interceptors=[with_spans()]
    )
    for file in histories:
        await replayer.replay_workflow(WorkflowHistory.from_json("recorded", file.read_text()))
    await asyncio.sleep(0)
    assert spans() == []


async def test_what_a_caller_without_a_trace_asks_is_in_that_of_the_workflow(env: WorkflowEnvironment) -> None:
    client = client_of(env, TraceHeaders())
    async with a_worker(env, TraceHeaders()):
        with use_span(REQUEST):
            handle = await client.start_workflow(Errand.run, id=f"errand-{new_id()}", task_queue=QUEUE)
        assert await handle.execute_update(Errand.told) == TRACE_ID
        await handle.terminate()

"""Carries the trace of a request through Temporal to the activities, in processes that make no spans.

The header and what is in it are those of Temporal's own interceptors, which make spans, so processes with and
without can be mixed. Those need OpenTelemetry's SDK, which takes half a second to import; this does not.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final

from opentelemetry import context, propagate
from temporalio import client, worker, workflow
from temporalio.api.common.v1 import Payload
from temporalio.converter import PayloadConverter

_HEADER: Final = "_tracer-data"

# It looks for its implementation in files when it is first used, which a workflow may not.
context.get_current()


class TraceHeaders(client.Interceptor, worker.Interceptor):
    """Give to the client; its workers use it, too."""

    def intercept_client(self, next: client.OutboundInterceptor) -> client.OutboundInterceptor:
        return _ClientOutbound(next)

    def intercept_activity(self, next: worker.ActivityInboundInterceptor) -> worker.ActivityInboundInterceptor:
        return _ActivityInbound(next)

    def workflow_interceptor_class(
        self, input: worker.WorkflowInterceptorClassInput
    ) -> type[worker.WorkflowInboundInterceptor]:
        return _WorkflowInbound


class _ClientOutbound(client.OutboundInterceptor):
    async def start_workflow(self, input: client.StartWorkflowInput) -> client.WorkflowHandle[Any, Any]:
        input.headers = _with_trace(input.headers)
        return await super().start_workflow(input)

    async def signal_workflow(self, input: client.SignalWorkflowInput) -> None:
        input.headers = _with_trace(input.headers)
        await super().signal_workflow(input)

    async def start_workflow_update(
        self, input: client.StartWorkflowUpdateInput
    ) -> client.WorkflowUpdateHandle[Any]:
        input.headers = _with_trace(input.headers)
        return await super().start_workflow_update(input)

    async def start_update_with_start_workflow(
        self, input: client.StartWorkflowUpdateWithStartInput
    ) -> client.WorkflowUpdateHandle[Any]:
        for part in (input.start_workflow_input, input.update_workflow_input):
            part.headers = _with_trace(part.headers)
        return await super().start_update_with_start_workflow(input)


class _ActivityInbound(worker.ActivityInboundInterceptor):
    async def execute_activity(self, input: worker.ExecuteActivityInput) -> Any:
        with _within_trace(input.headers):
            return await super().execute_activity(input)


class _WorkflowInbound(worker.WorkflowInboundInterceptor):
    def init(self, outbound: worker.WorkflowOutboundInterceptor) -> None:
        super().init(_WorkflowOutbound(outbound))

    async def execute_workflow(self, input: worker.ExecuteWorkflowInput) -> Any:
        with _within_trace(input.headers):
            return await super().execute_workflow(input)

    async def handle_signal(self, input: worker.HandleSignalInput) -> None:
        with _within_trace(_own_or_workflows(input.headers)):
            await super().handle_signal(input)

    async def handle_update_handler(self, input: worker.HandleUpdateInput) -> Any:
        with _within_trace(_own_or_workflows(input.headers)):
            return await super().handle_update_handler(input)


class _WorkflowOutbound(worker.WorkflowOutboundInterceptor):
    def start_activity(self, input: worker.StartActivityInput) -> Any:
        input.headers = _with_trace(input.headers)
        return super().start_activity(input)


def _own_or_workflows(headers: Mapping[str, Payload]) -> Mapping[str, Payload]:
    return headers if _HEADER in headers else workflow.info().headers


def _with_trace(headers: Mapping[str, Payload]) -> Mapping[str, Payload]:
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    if not carrier:
        return headers
    return {**headers, _HEADER: PayloadConverter.default.to_payload(carrier)}


@contextmanager
def _within_trace(headers: Mapping[str, Payload]) -> Iterator[None]:
    sent = headers.get(_HEADER)
    if sent is None:
        yield
        return
    token = context.attach(propagate.extract(PayloadConverter.default.from_payload(sent)))
    try:
        yield
    finally:
        # Of a workflow that is evicted this may run elsewhere, where there is nothing to take back.
        with suppress(ValueError):
            token.var.reset(token)

"""The way to Temporal: how to connect, and what the namespace must hold before the first order."""

import asyncio
from datetime import timedelta
from typing import Final

from google.protobuf.duration_pb2 import Duration
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.api.workflowservice.v1 import ListWorkflowExecutionsRequest, RegisterNamespaceRequest
from temporalio.client import Client
from temporalio.contrib.opentelemetry import TracingInterceptor
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.service import GrpcCompression, RPCError, RPCStatusCode

import workflows.attributes
from kernel.errors import Unavailable
from mallbots.settings import Settings

SEARCH_ATTRIBUTES: Final = {
    key.name: IndexedValueType.ValueType(key.indexed_value_type) for key in workflows.attributes.ALL
}
RETENTION: Final = timedelta(days=30)

_USABLE_WITHIN = 30.0
_NOT_YET = (RPCStatusCode.NOT_FOUND, RPCStatusCode.INVALID_ARGUMENT, RPCStatusCode.UNAVAILABLE)


async def connect(settings: Settings, *, lazy: bool = False) -> Client:
    """A client of the mall's namespace; with `lazy` it connects at its first call.

    Raises `Unavailable` when the server does not answer. A short program should `asyncio.sleep(0.05)`
    after its last call: the interpreter may abort when it exits while the client's threads still call back.
    """
    try:
        return await Client.connect(
            settings.temporal_address,
            namespace=settings.temporal_namespace,
            data_converter=pydantic_data_converter,
            # Payloads are small and the server is near: compressing them costs more than it saves.
            grpc_compression=GrpcCompression.NONE,
            # Carries the caller's trace through workflow and activities into the events.
            interceptors=[TracingInterceptor()],
            lazy=lazy,
        )
    except RuntimeError as error:
        raise Unavailable(f"Temporal does not answer at {settings.temporal_address}") from error


async def prepare_namespace(settings: Settings) -> None:
    """Creates what is missing of the namespace and its search attributes; returns once both can be used.

    Doing it again changes nothing. Raises `Unavailable` when the server does not answer or the namespace
    does not become usable, and `RPCError` when the server refuses.
    """
    client = await connect(settings)
    await _register_namespace(client)
    try:
        await asyncio.wait_for(_until_usable(client), _USABLE_WITHIN)
    except TimeoutError:
        raise Unavailable(f"Temporal does not offer the namespace {client.namespace} yet") from None


async def _register_namespace(client: Client) -> None:
    retention = Duration()
    retention.FromTimedelta(RETENTION)
    try:
        await client.workflow_service.register_namespace(
            RegisterNamespaceRequest(namespace=client.namespace, workflow_execution_retention_period=retention)
        )
    except RPCError as error:
        if error.status is not RPCStatusCode.ALREADY_EXISTS:
            raise


async def _until_usable(client: Client) -> None:
    while True:
        if await _is_usable(client):
            return
        await asyncio.sleep(0.1)


async def _is_usable(client: Client) -> bool:
    """Adds the missing search attributes, then tries a query that names them all."""
    try:
        await _add_search_attributes(client)
        names_all = " AND ".join(f"{name} IS NULL" for name in SEARCH_ATTRIBUTES)
        await client.workflow_service.list_workflow_executions(
            ListWorkflowExecutionsRequest(namespace=client.namespace, page_size=1, query=names_all)
        )
    except RPCError as error:
        # A server learns of a new namespace and of new attributes with a delay of its caches.
        if error.status in _NOT_YET:
            return False
        raise
    return True


async def _add_search_attributes(client: Client) -> None:
    answer = await client.operator_service.list_search_attributes(
        ListSearchAttributesRequest(namespace=client.namespace)
    )
    present = answer.custom_attributes
    missing = {name: kind for name, kind in SEARCH_ATTRIBUTES.items() if name not in present}
    if missing:
        await client.operator_service.add_search_attributes(
            AddSearchAttributesRequest(namespace=client.namespace, search_attributes=missing)
        )

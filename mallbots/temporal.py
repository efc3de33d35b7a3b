"""The way to Temporal: how to connect, and what the namespace must hold before the first order."""

import asyncio
from datetime import timedelta
from typing import Final

from google.protobuf.duration_pb2 import Duration
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.api.workflowservice.v1 import ListWorkflowExecutionsRequest, RegisterNamespaceRequest
from temporalio.client import Client
from temporalio.service import GrpcCompression, RPCError, RPCStatusCode, TLSConfig

import workflows.attributes
from kernel.errors import Misconfigured, Unavailable
from kernel.tls import HUNG_UP
from mallbots.encryption import data_converter
from mallbots.settings import Settings
from mallbots.telemetry import temporal_runtime
from mallbots.tracing import temporal_interceptor

SEARCH_ATTRIBUTES: Final = {
    key.name: IndexedValueType.ValueType(key.indexed_value_type) for key in workflows.attributes.ALL
}
RETENTION: Final = timedelta(days=30)

_USABLE_WITHIN = 30.0
_FORBIDDEN = (RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNAUTHENTICATED, RPCStatusCode.UNIMPLEMENTED)
_NOT_YET = (RPCStatusCode.NOT_FOUND, RPCStatusCode.INVALID_ARGUMENT, RPCStatusCode.UNAVAILABLE)


async def connect(settings: Settings, *, lazy: bool = False) -> Client:
    """A client of the mall's namespace; with `lazy` it connects at its first call.

    Raises `Unavailable` when the server does not answer or refuses us, `Misconfigured` when a file of TLS is no
    good. A short program should `asyncio.sleep(0.05)`
    after its last call: the interpreter may abort when it exits while the client's threads still call back.
    """
    try:
        return await Client.connect(
            settings.temporal_address,
            namespace=settings.temporal_namespace,
            api_key=settings.temporal_api_key.get_secret_value() if settings.temporal_api_key else None,
            tls=tls_config(settings),
            data_converter=data_converter(settings),
            # Payloads are small and the server is near: compressing them costs more than it saves.
            grpc_compression=GrpcCompression.NONE,
            # Carries the caller's trace through workflow and activities into the events.
            interceptors=[temporal_interceptor()],
            lazy=lazy,
            runtime=temporal_runtime(settings),
        )
    except RuntimeError as error:
        raise Unavailable(
            f"Temporal does not answer at {settings.temporal_address}{_why(str(error), settings)}"
        ) from error


def tls_config(settings: Settings) -> TLSConfig | bool:
    """How Temporal is spoken to by TLS; False if plainly. A CA, a certificate, a name and an API key imply TLS.

    Raises `Misconfigured`, which names the setting, if a file is missing or no good.
    """
    own = settings.pem_pair("temporal_tls_certificate", "temporal_tls_key")
    ca, name = settings.pem("temporal_tls_ca"), settings.temporal_tls_server_name
    if ca is None and name is None and own is None:
        return settings.temporal_tls or settings.temporal_api_key is not None
    certificate, key = own or (None, None)
    return TLSConfig(server_root_ca_cert=ca, domain=name, client_cert=certificate, client_private_key=key)


def _why(said: str, settings: Settings) -> str:
    """What its client says of a connection that failed, as far as a setting is to blame; else nothing."""
    whose = "whom MALLBOTS_TEMPORAL_TLS_CA names" if settings.temporal_tls_ca else "anybody this machine trusts"
    meanings = {
        "UnknownIssuer": f"its certificate is not signed by {whose}",
        "NotValidForName": "its certificate is for another name: MALLBOTS_TEMPORAL_TLS_SERVER_NAME may say which",
        "InvalidCertificate(Expired": "its certificate has expired",
        "InvalidCertificate": "its certificate is no good",
        "CertificateRequired": "it wants a client's certificate: MALLBOTS_TEMPORAL_TLS_CERTIFICATE",
        "fatal alert": "it does not take our certificate: MALLBOTS_TEMPORAL_TLS_CERTIFICATE"
        if settings.temporal_tls_certificate
        else "it breaks TLS off",
        "InvalidMessage": "it does not speak TLS",
        "code: Unauthenticated": "it does not take our MALLBOTS_TEMPORAL_API_KEY or certificate",
        "code: PermissionDenied": "it does not take our MALLBOTS_TEMPORAL_API_KEY or certificate, or they may not "
        f"use the namespace {settings.temporal_namespace}",
    }
    if tls_config(settings):
        meanings["error after connection"] = HUNG_UP
    return next((f": {meaning}" for word, meaning in meanings.items() if word in said), "")


async def prepare_namespace(settings: Settings) -> None:
    """Creates what is missing of the namespace and its search attributes; returns once both can be used.

    Doing it again changes nothing, and where nothing is missing no more rights are needed than a worker's. Raises
    `Unavailable` when the server does not answer or the namespace does not become usable, `Misconfigured` with
    what to do when the server does not let us create what is missing, and `RPCError` when it refuses otherwise.
    """
    client = await connect(settings)
    try:
        await asyncio.wait_for(_until_usable(client), _USABLE_WITHIN)
    except TimeoutError:
        raise Unavailable(f"Temporal does not offer the namespace {client.namespace} yet") from None


async def _until_usable(client: Client) -> None:
    while (refusal := await _refusal(client, *SEARCH_ATTRIBUTES)) is not None:
        try:
            if refusal.status is RPCStatusCode.NOT_FOUND:
                await _register_namespace(client)
            elif refusal.status is RPCStatusCode.INVALID_ARGUMENT:
                await _add_search_attributes(client)
        except RPCError as error:
            # A server learns of a new namespace and of new attributes with a delay of its caches.
            if error.status not in _NOT_YET:
                raise
        await asyncio.sleep(0.1)


async def _refusal(client: Client, *attributes: str) -> RPCError | None:
    """Why the namespace can not be asked for these search attributes yet; None if it can."""
    query = " AND ".join(f"{name} IS NULL" for name in attributes)
    try:
        await client.workflow_service.list_workflow_executions(
            ListWorkflowExecutionsRequest(namespace=client.namespace, page_size=1, query=query)
        )
    except RPCError as error:
        if error.status in _FORBIDDEN:
            raise Misconfigured(
                f"Temporal does not let us use the namespace {client.namespace}: there is none of that name, or "
                "the API key or certificate is not for it"
            ) from error
        if error.status not in _NOT_YET:
            raise
        return error
    return None


async def _register_namespace(client: Client) -> None:
    retention = Duration()
    retention.FromTimedelta(RETENTION)
    try:
        await client.workflow_service.register_namespace(
            RegisterNamespaceRequest(namespace=client.namespace, workflow_execution_retention_period=retention)
        )
    except RPCError as error:
        if error.status in _FORBIDDEN:
            raise Misconfigured(
                f"Temporal has no namespace {client.namespace}, and does not let us make it: make it with a "
                f"retention of {RETENTION.days} days"
            ) from error
        if error.status is not RPCStatusCode.ALREADY_EXISTS:
            raise


async def _add_search_attributes(client: Client) -> None:
    try:
        await _add_missing(client)
    except RPCError as error:
        if error.status not in _FORBIDDEN:
            raise
        # Who may not add them may not list them either, but may ask for each.
        missing = [name for name in SEARCH_ATTRIBUTES if await _refusal(client, name) is not None]
        if missing:
            raise Misconfigured(_how_to_add(client.namespace, missing)) from error


def _how_to_add(namespace: str, attributes: list[str]) -> str:
    kinds = {name: IndexedValueType.Name(SEARCH_ATTRIBUTES[name]) for name in attributes}
    words = {name: kind.removeprefix("INDEXED_VALUE_TYPE_").title() for name, kind in kinds.items()}
    options = " ".join(f'--sa "{name}={word}"' for name, word in words.items())
    return (
        f"Temporal's namespace {namespace} lacks search attributes, and does not let us add them: "
        f"`tcld namespace search-attributes add --namespace {namespace} {options}` adds them in Temporal Cloud"
    )


async def _add_missing(client: Client) -> None:
    answer = await client.operator_service.list_search_attributes(
        ListSearchAttributesRequest(namespace=client.namespace)
    )
    present = answer.custom_attributes
    missing = {name: kind for name, kind in SEARCH_ATTRIBUTES.items() if name not in present}
    if missing:
        await client.operator_service.add_search_attributes(
            AddSearchAttributesRequest(namespace=client.namespace, search_attributes=missing)
        )

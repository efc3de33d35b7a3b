"""The server by itself: health, reflection, TLS, and how it stops."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import grpc
import pytest
from grpc import StatusCode, aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from opentelemetry import trace

from api.generated.mallbots.automation.v1.automation_pb2 import FromRobot, Goodbye, Hello, ToRobot
from api.generated.mallbots.automation.v1.automation_pb2_grpc import AutomationStub
from api.generated.mallbots.orders.v1.orders_pb2 import GetSagaRequest
from api.generated.mallbots.orders.v1.orders_pb2_grpc import OrdersStub
from api.generated.mallbots.stores.v1.stores_pb2 import ListStoresRequest
from api.generated.mallbots.stores.v1.stores_pb2_grpc import StoresStub
from api.grpc.server import FOR_ROBOTS, FOR_SERVICES
from kernel.database import Database
from kernel.errors import Misconfigured
from kernel.ids import new_id
from mallbots.settings import DATABASES
from tests.grpc.serving import Mall, bearer, free_port, serving
from tests.waiting import eventually
from workflows.messages import SagaAccount

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def health(channel: aio.Channel) -> Any:
    return health_pb2_grpc.HealthStub(channel)


def health_of(service: str) -> health_pb2.HealthCheckRequest:
    return health_pb2.HealthCheckRequest(service=service)


@pytest.mark.parametrize("service", ["", *FOR_SERVICES, FOR_ROBOTS])
async def test_everybody_may_ask_whether_a_service_serves(channel: aio.Channel, service: str) -> None:
    answer = await health(channel).Check(health_of(service))
    assert answer.status == SERVING


async def test_a_service_that_there_is_not_has_no_health(channel: aio.Channel) -> None:
    with pytest.raises(aio.AioRpcError) as raised:
        await health(channel).Check(health_of("mallbots.theft.v1.Theft"))
    assert raised.value.code() is StatusCode.NOT_FOUND


async def test_everybody_may_see_what_there_is(channel: aio.Channel) -> None:
    either: Any = channel  # the stubs of these types know no asyncio
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(either)
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=FOR_ROBOTS),
    ]
    listed, found = [answer async for answer in stub.ServerReflectionInfo(iter(requests))]
    assert {service.name for service in listed.list_services_response.service} >= {*FOR_SERVICES, FOR_ROBOTS}
    assert b"mallbots/automation/v1/automation.proto" in found.file_descriptor_response.file_descriptor_proto[0]


async def test_a_server_that_stops_says_so_and_sends_the_robots_away(mall: Mall, robot: str, token: str) -> None:
    async with serving(mall) as (address, running), aio.insecure_channel(address) as channel:
        watching = health(channel).Watch(health_of(FOR_ROBOTS))
        assert (await watching.read()).status == SERVING
        call = AutomationStub(channel).Work(metadata=bearer(token))
        await call.read()
        began = time.monotonic()
        running.cancel()
        assert (await watching.read()).status == NOT_SERVING
        assert await call.read() == ToRobot(goodbye=Goodbye(reason="the gateway stops"))
        assert await call.read() is aio.EOF
        watching.cancel()
        await asyncio.wait({running})
        assert time.monotonic() - began < 2
    assert mall.robots.gone == [robot]


async def test_what_a_call_leads_to_belongs_to_its_trace(
    mall: Mall, channel: aio.Channel, bea: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    traces: list[int] = []

    async def account(order_id: UUID) -> SagaAccount:
        traces.append(trace.get_current_span().get_span_context().trace_id)
        return SagaAccount(order_id=order_id, status="pending", steps=[])

    monkeypatch.setattr(mall.sagas, "account", account)
    sent = ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    await OrdersStub(channel).GetSaga(GetSagaRequest(order_id=str(new_id())), metadata=(*bearer(bea), sent))
    assert traces == [0x0AF7651916CD43DD8448EB211C80319C]


async def test_a_port_that_is_taken_is_told(mall: Mall) -> None:
    async with serving(mall) as (address, _):
        with pytest.raises(Misconfigured, match="MALLBOTS_GRPC_PORT"):
            async with serving(mall, grpc_port=int(address.rpartition(":")[2])):
                pass


async def test_the_process_serves_until_it_is_told_to_stop(
    own_database: Database, robot: str, token: str, tmp_path: Path
) -> None:
    """The real robots' gateway, while Temporal is away."""
    port, ready_file = free_port(), tmp_path / "ready"
    url = own_database.engine.url.render_as_string(hide_password=False)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MALLBOTS_")}
    environment = {
        **inherited,
        **{f"MALLBOTS_{name.upper()}_DATABASE_URL": url for name in DATABASES},
        "MALLBOTS_DATA_DIR": str(tmp_path),
        "MALLBOTS_TEMPORAL_ADDRESS": "127.0.0.1:1",
        "MALLBOTS_GRPC_PORT": str(port),
        "MALLBOTS_READY_FILE": str(ready_file),
    }
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "mallbots", "grpc", env=environment)
    try:
        await eventually(ready_file.exists, 20)
        async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = AutomationStub(channel).Work(metadata=bearer(token))
            await call.write(FromRobot(hello=Hello()))
            welcome = await call.read()
            assert isinstance(welcome, ToRobot)
            assert welcome.welcome.robot == robot
            process.send_signal(signal.SIGTERM)
            last = await call.read()
            assert isinstance(last, ToRobot)
            assert last.WhichOneof("message") == "goodbye"
        assert await asyncio.wait_for(process.wait(), 8) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


class Identity:
    """A certificate that is signed by itself, and its key."""

    def __init__(self, directory: Path, name: str) -> None:
        self.certificate, self.key = directory / f"{name}.pem", directory / f"{name}.key"
        command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -batch"
        options = (
            *("-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-out", str(self.certificate), "-keyout", str(self.key)),
        )
        subprocess.run((*command.split(), *options), check=True, capture_output=True)

    def pair(self) -> tuple[bytes, bytes]:
        return self.key.read_bytes(), self.certificate.read_bytes()


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    return Identity(tmp_path_factory.mktemp("tls"), "mall")


@pytest.fixture(scope="module")
def robots_own(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    return Identity(tmp_path_factory.mktemp("tls"), "robot")


async def stores_by_tls(address: str, key: str, ca: Identity, shown: Identity | None = None) -> StatusCode:
    """How a call by TLS ends, of a client that trusts `ca` and shows a certificate, if one is given."""
    own_key, own_certificate = shown.pair() if shown else (None, None)
    credentials = grpc.ssl_channel_credentials(ca.certificate.read_bytes(), own_key, own_certificate)
    async with aio.secure_channel(address, credentials) as channel:
        return await StoresStub(channel).ListStores(ListStoresRequest(), metadata=bearer(key)).code()


async def test_by_tls_the_server_is_who_it_says(
    mall: Mall, bea: str, ours: Identity, robots_own: Identity
) -> None:
    files = {"grpc_tls_certificate": ours.certificate, "grpc_tls_key": ours.key}
    async with serving(mall, **files) as (address, _):
        assert await stores_by_tls(address, bea, ca=ours) is StatusCode.OK
        assert await stores_by_tls(address, bea, ca=robots_own) is StatusCode.UNAVAILABLE
        async with aio.insecure_channel(address) as channel:
            plain = StoresStub(channel).ListStores(ListStoresRequest(), metadata=bearer(bea))
            assert await plain.code() is StatusCode.UNAVAILABLE


async def test_by_mutual_tls_clients_are_who_they_say_too(
    mall: Mall, bea: str, ours: Identity, robots_own: Identity
) -> None:
    files = {
        "grpc_tls_certificate": ours.certificate,
        "grpc_tls_key": ours.key,
        "grpc_tls_client_ca": robots_own.certificate,
    }
    async with serving(mall, **files) as (address, _):
        assert await stores_by_tls(address, bea, ca=ours, shown=robots_own) is StatusCode.OK
        assert await stores_by_tls(address, bea, ca=ours) is StatusCode.UNAVAILABLE
        assert await stores_by_tls(address, bea, ca=ours, shown=ours) is StatusCode.UNAVAILABLE


async def test_a_renewed_certificate_is_shown_without_a_restart(
    mall: Mall, bea: str, ours: Identity, robots_own: Identity, tmp_path: Path
) -> None:
    certificate, key = tmp_path / "shown.pem", tmp_path / "shown.key"
    certificate.write_bytes(ours.certificate.read_bytes())
    key.write_bytes(ours.key.read_bytes())
    async with serving(mall, grpc_tls_certificate=certificate, grpc_tls_key=key) as (address, _):
        assert await stores_by_tls(address, bea, ca=ours) is StatusCode.OK
        certificate.write_bytes(robots_own.certificate.read_bytes())
        # Its key is not there yet: what was good is shown until it is.
        assert await stores_by_tls(address, bea, ca=ours) is StatusCode.OK
        key.write_bytes(robots_own.key.read_bytes())
        assert await stores_by_tls(address, bea, ca=robots_own) is StatusCode.OK
        assert await stores_by_tls(address, bea, ca=ours) is StatusCode.UNAVAILABLE


@pytest.mark.parametrize("given", ["grpc_tls_certificate", "grpc_tls_key", "grpc_tls_client_ca"])
async def test_half_of_tls_is_none(mall: Mall, ours: Identity, given: str) -> None:
    with pytest.raises(Misconfigured, match=f"MALLBOTS_{given.upper()} needs MALLBOTS_GRPC_TLS_"):
        async with serving(mall, **{given: ours.certificate}):
            pass


async def test_files_of_tls_that_are_none_are_told(mall: Mall, ours: Identity, tmp_path: Path) -> None:
    for bad, why in ((tmp_path / "missing.pem", "can not be read"), (Path(__file__), "holds no PEM")):
        with pytest.raises(Misconfigured, match=why):
            async with serving(mall, grpc_tls_certificate=bad, grpc_tls_key=ours.key):
                pass

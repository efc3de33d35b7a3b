"""The gRPC gateways in one server: the domains' for services, the robots' own, health and reflection."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

import grpc
from grpc import aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from api.generated.mallbots.automation.v1 import automation_pb2
from api.generated.mallbots.automation.v1.automation_pb2_grpc import add_AutomationServicer_to_server
from api.generated.mallbots.depot.v1 import depot_pb2
from api.generated.mallbots.depot.v1.depot_pb2_grpc import add_DepotServicer_to_server
from api.generated.mallbots.orders.v1 import orders_pb2
from api.generated.mallbots.orders.v1.orders_pb2_grpc import add_OrdersServicer_to_server
from api.generated.mallbots.payments.v1 import payments_pb2
from api.generated.mallbots.payments.v1.payments_pb2_grpc import add_PaymentsServicer_to_server
from api.generated.mallbots.stores.v1 import stores_pb2
from api.generated.mallbots.stores.v1.stores_pb2_grpc import add_StoresServicer_to_server
from api.grpc.access import KEPT_SECONDS, AccessInterceptor, Keyring
from api.grpc.depot import DepotService
from api.grpc.errors import ErrorInterceptor
from api.grpc.orders import OrdersService
from api.grpc.payments import PaymentsService
from api.grpc.services import GrpcServices
from api.grpc.stores import StoresService
from api.grpc.tracing import TraceInterceptor
from kernel.errors import Misconfigured
from mallbots.settings import Settings
from mallbots.tls import Renewing

GRACE: Final = 3.0
"""Seconds that calls may still take when the server stops."""

FOR_SERVICES: Final = tuple(
    module.DESCRIPTOR.services_by_name[name].full_name
    for module, name in (
        (orders_pb2, "Orders"),
        (stores_pb2, "Stores"),
        (payments_pb2, "Payments"),
        (depot_pb2, "Depot"),
    )
)
FOR_ROBOTS: Final = automation_pb2.DESCRIPTOR.services_by_name["Automation"].full_name
OPEN_TO_ALL: Final = (health.SERVICE_NAME, reflection.SERVICE_NAME)

_LARGEST_REQUEST: Final = 256 * 1024
_OPTIONS: Final = (
    # Two servers on one port would each get some of the calls, and nobody would notice.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", _LARGEST_REQUEST),
    # The router that a robot is behind forgets silent connections within a minute or so, and what has vanished
    # behind it is noticed by nothing else. Robots may ask more often.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
)

_log = logging.getLogger(__name__)


class GrpcServer:
    """The gateways on one port. `kept_seconds`: how long a revoked key may still work."""

    def __init__(self, settings: Settings, services: GrpcServices, *, kept_seconds: float = KEPT_SECONDS) -> None:
        self._settings = settings
        self._robots = services.robots
        self._services = Keyring(services.service_keys, kept_seconds)
        self._tokens = Keyring(services.robot_tokens, kept_seconds)
        self._health = health.aio.HealthServicer()
        keyrings = {**dict.fromkeys(FOR_SERVICES, self._services), FOR_ROBOTS: self._tokens}
        access = AccessInterceptor(keyrings, OPEN_TO_ALL, services.acts)
        self._server = aio.server(
            interceptors=[TraceInterceptor(), ErrorInterceptor(), access],
            options=_OPTIONS,
        )
        orders = OrdersService(services.orders, services.sagas, answer_timeout=services.answer_timeout)
        add_OrdersServicer_to_server(orders, self._server)
        add_StoresServicer_to_server(StoresService(services.stores), self._server)
        add_PaymentsServicer_to_server(PaymentsService(services.payment), self._server)
        add_DepotServicer_to_server(DepotService(services.depot, services.robot_tokens), self._server)
        add_AutomationServicer_to_server(services.robots, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((*FOR_SERVICES, FOR_ROBOTS, *OPEN_TO_ALL), self._server)

    async def run(self, ready: Callable[[], None]) -> None:
        """Serve until cancelled, then send everybody away within seconds. `ready` is called when it begins.

        Raises `Misconfigured` if the port is not free or a file of TLS is no good.
        """
        self._listen()
        await self._server.start()
        for service in (*FOR_SERVICES, FOR_ROBOTS):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        working = [asyncio.create_task(one.run()) for one in (self._services, self._tokens, self._robots)]
        try:
            ready()
            done, _ = await asyncio.wait(working, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            await self._drain()
            for task in working:
                task.cancel()
            await asyncio.gather(*working, return_exceptions=True)

    async def _drain(self) -> None:
        await self._health.enter_graceful_shutdown()
        # Side by side: whoever does not hang up, as those who watch our health, is cut off when the time is over.
        await asyncio.gather(self._robots.drain(), self._server.stop(GRACE))

    def _listen(self) -> None:
        host, port = self._settings.grpc_host, self._settings.grpc_port
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        credentials = _credentials(self._settings)
        try:
            if credentials is None:
                self._server.add_insecure_port(address)
            else:
                self._server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise Misconfigured(
                f"gRPC can not listen on {address}: the port of MALLBOTS_GRPC_PORT is not free"
                + (", or the certificate, its key or the clients' CA is no good" if credentials else "")
            ) from error


def _credentials(settings: Settings) -> grpc.ServerCredentials | None:
    certificate, key, client_ca = settings.grpc_tls_certificate, settings.grpc_tls_key, settings.grpc_tls_client_ca
    if certificate is None and key is None and client_ca is None:
        return None

    def make() -> grpc.ServerCertificateConfiguration:
        pair = settings.pem_pair("grpc_tls_certificate", "grpc_tls_key")
        if pair is None:
            raise Misconfigured(
                "MALLBOTS_GRPC_TLS_CLIENT_CA needs MALLBOTS_GRPC_TLS_CERTIFICATE, which is not set"
            )
        return grpc.ssl_server_certificate_configuration([pair[::-1]], settings.pem("grpc_tls_client_ca"))

    renewing = Renewing(make, certificate, key, client_ca)

    def renewed() -> grpc.ServerCertificateConfiguration:
        renewing.renew()
        return renewing.made

    return grpc.dynamic_ssl_server_credentials(
        # Asked at every connection.
        renewing.made,
        renewed,
        require_client_authentication=client_ca is not None,
    )

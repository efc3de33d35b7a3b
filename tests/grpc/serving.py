"""A gRPC server of a test's own, on a real database, with robots and sagas that do what the test says."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar, cast
from uuid import UUID

from google.protobuf.message import Message
from google.rpc.status_pb2 import Status
from grpc import aio

from api.generated.mallbots.automation.v1.automation_pb2 import FromRobot, Goodbye, ToRobot, Welcome
from api.generated.mallbots.automation.v1.automation_pb2_grpc import AutomationServicer
from api.grpc.access import caller
from api.grpc.errors import DETAILS
from api.grpc.handlers import Context
from api.grpc.server import GrpcServer
from api.grpc.services import GrpcServices
from api.keys import ApiKeys
from api.robots.gateway import RobotGateway
from api.staff.acts import Acts
from domains.depot.service import Depot
from domains.orders.messages import RefundOrder
from domains.orders.service import Orders
from domains.payments.messages import PaymentView, Receipt
from domains.stores.service import Stores
from kernel.database import Database
from kernel.messages import Cancellation
from mallbots.settings import Settings
from workflows.client import OrderSagas
from workflows.messages import HandOver, RefundOutcome, SagaAccount

KEPT_SECONDS = 0.05

Answer = TypeVar("Answer")
Detail = TypeVar("Detail", bound=Message)


@dataclass
class FakeSagas:
    """Sagas that answer what the test says, and know what they were asked."""

    error: Exception | None = None
    ended: bool = True
    receipt: Receipt | None = None
    refunded: RefundOutcome | None = None
    told: SagaAccount | None = None
    asked: list[tuple[Any, ...]] = field(default_factory=list)

    async def account(self, order_id: UUID) -> SagaAccount:
        account = SagaAccount(order_id=order_id, status="pending", steps=[])
        return self._answer(self.told or account, order_id)

    async def hand_over(
        self, order_id: UUID, request: HandOver, *, attempt: str, timeout: timedelta
    ) -> Receipt | None:
        return self._answer(self.receipt, order_id, request, attempt)

    async def cancel(self, order_id: UUID, cancellation: Cancellation, *, timeout: timedelta) -> bool:
        return self._answer(self.ended, order_id, cancellation)

    async def refund(self, request: RefundOrder, *, timeout: timedelta) -> RefundOutcome | None:
        return self._answer(self.refunded, request)

    def _answer(self, answer: Answer, *asked: Any) -> Answer:
        self.asked.append(asked)
        if self.error is not None:
            raise self.error
        return answer


class FakeRobots(AutomationServicer):
    """Robots that are welcome, and stay until they are sent away; `gone` is who was and is not here any more."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.gone: list[str] = []
        self._leaving = asyncio.Event()

    async def Work(  # noqa: N802
        self, request_iterator: AsyncIterator[FromRobot], context: Context
    ) -> AsyncIterator[ToRobot]:
        robot = caller()
        try:
            yield ToRobot(welcome=Welcome(robot=robot))
            if self.error is not None:
                raise self.error
            await self._leaving.wait()
            yield ToRobot(goodbye=Goodbye(reason="the gateway stops"))
        finally:
            self.gone.append(robot)

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def drain(self) -> None:
        self._leaving.set()


class Mall:
    """What a test has of a mall: its services, and what it says that sagas, robots and payments do."""

    def __init__(self, database: Database) -> None:
        self.sagas = FakeSagas()
        self.robots = FakeRobots()
        self.payments: dict[UUID, PaymentView] = {}
        self.service_keys = ApiKeys(database, "staff")
        self.acts = Acts(database)
        self.robot_tokens = ApiKeys(database, "robots")
        self.stores = Stores(database)
        self.orders = Orders(database)
        self.depot = Depot(database)

    @property
    def services(self) -> GrpcServices:
        return GrpcServices(
            orders=self.orders,
            stores=self.stores,
            depot=self.depot,
            payment=self._payment,
            sagas=self._sagas,
            robots=cast(RobotGateway, self.robots),
            service_keys=self.service_keys,
            robot_tokens=self.robot_tokens,
            acts=self.acts,
            answer_timeout=timedelta(seconds=1),
        )

    async def _payment(self, order_id: UUID) -> PaymentView | None:
        return self.payments.get(order_id)

    async def _sagas(self) -> OrderSagas:
        return cast(OrderSagas, self.sagas)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def serving(mall: Mall, **settings: Any) -> AsyncIterator[tuple[str, "asyncio.Task[None]"]]:
    """The server's address, and the task that it runs in."""
    chosen = Settings.model_validate({"grpc_port": free_port(), **settings})
    begun = asyncio.Event()
    server = GrpcServer(chosen, mall.services, kept_seconds=KEPT_SECONDS)
    running = asyncio.create_task(server.run(begun.set))
    beginning = asyncio.create_task(begun.wait())
    await asyncio.wait({running, beginning}, return_when=asyncio.FIRST_COMPLETED)
    beginning.cancel()
    try:
        if running.done():
            running.result()
        yield f"127.0.0.1:{chosen.grpc_port}", running
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def bearer(key: str) -> tuple[tuple[str, str]]:
    """The metadata of a call with a key."""
    return (("authorization", f"Bearer {key}"),)


def detail(error: aio.AioRpcError, kind: type[Detail]) -> Detail:
    """The detail of this kind that came with an error."""
    trailer = dict(error.trailing_metadata())[DETAILS]
    found = kind()
    assert any(packed.Unpack(found) for packed in Status.FromString(trailer).details), kind
    return found

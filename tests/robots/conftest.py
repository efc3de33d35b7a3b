"""Gateways for robots on loopback, with a database of their own and sagas that only note what they are told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from types import TracebackType
from typing import Any, Self
from uuid import UUID

import pytest
from google.protobuf.message import Message
from grpc import aio

from api.generated.mallbots.automation.v1 import automation_pb2 as pb
from api.generated.mallbots.automation.v1.automation_pb2_grpc import (
    AutomationStub,
    add_AutomationServicer_to_server,
)
from api.grpc.errors import ErrorInterceptor
from api.robots.gateway import RobotGateway
from domains.depot.messages import Assignment, ShoppingResult
from domains.depot.service import Depot
from kernel.database import Database
from kernel.errors import Unavailable
from tests.conftest import create_database
from tests.robots.lists import empty
from workflows.shopping import ShoppingSteps


class NotedSteps(ShoppingSteps):
    """The sagas' steps, which only note what they are told. While `away`, they cannot be."""

    def __init__(self) -> None:
        self.away = False
        self.tries = 0
        self.assigned_to: list[tuple[UUID, int, str]] = []
        self.results: list[tuple[UUID, int, ShoppingResult]] = []
        self.heard: list[tuple[UUID, int, str, int, int]] = []

    async def find(self) -> ShoppingSteps:
        self.tries += 1
        if self.away:
            raise Unavailable("Temporal does not answer")
        return self

    async def assigned(self, order_id: UUID, round: int, assignment: Assignment) -> None:
        self.assigned_to.append((order_id, round, assignment.robot))

    async def shopped(self, order_id: UUID, round: int, result: ShoppingResult) -> None:
        self.results.append((order_id, round, result))

    async def heard_of(self, order_id: UUID, round: int, *, robot: str, picked: int, total: int) -> None:
        self.heard.append((order_id, round, robot, picked, total))


class Robot:
    """A robot's stream."""

    def __init__(self, channel: aio.Channel, name: str) -> None:
        self.name = name
        self.call = AutomationStub(channel).Work(metadata=(("authorization", f"Bearer {name}"),))

    async def __aenter__(self) -> Self:
        await self.say(hello=pb.Hello())
        await self.hear("welcome")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.call.cancel()

    async def say(self, **message: Message) -> None:
        sent = pb.FromRobot()
        for kind, part in message.items():
            getattr(sent, kind.rstrip("_")).CopyFrom(part)
            getattr(sent, kind.rstrip("_")).SetInParent()
        await self.call.write(sent)

    async def hear(self, *kinds: str) -> Any:
        """The next message, which has to be of this kind; of several, the next ones: the last of them."""
        told = None
        for kind in kinds:
            async with asyncio.timeout(10):
                message = await self.call.read()
            assert isinstance(message, pb.ToRobot), f"the stream ended, {kind} was expected: {self.call}"
            assert message.WhichOneof("message") == kind, message
            told = getattr(message, kind)
        return told

    async def ready(self) -> None:
        await self.say(ready=pb.Ready())
        await self.hear("accepted")

    async def report(self, order_id: str, stop: int, sku: str, picked: int, missing: int = 0) -> None:
        item = pb.ItemReport(order_id=order_id, stop=stop, sku=sku, picked=picked, missing=missing)
        await self.say(item=item)

    async def shop(self, shopping: pb.ShoppingList) -> None:
        """Pick everything and bring it."""
        for stop in shopping.stops:
            for item in stop.items:
                if not item.reported:
                    await self.report(shopping.order_id, stop.number, item.sku, item.quantity)
                    await self.hear("item_accepted")
        await self.hear("deliver")
        await self.say(finished=pb.Finished(order_id=shopping.order_id))
        await self.hear("accepted")

    async def end(self) -> str:
        """The goodbye, with which the stream ends."""
        reason: str = (await self.hear("goodbye")).reason
        assert await self.call.read() is aio.EOF
        return reason


class Gateways:
    """Gateways of one depot; `mall` gives those that it hands out lists with."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.steps = NotedSteps()
        self.depot = Depot(database)

    @asynccontextmanager
    async def up(self, silent_after: float = 30.0) -> AsyncIterator[tuple[RobotGateway, aio.Channel]]:
        """One more gateway, and a channel to it."""
        depot = Depot(self.database, silent_after=silent_after)
        gateway = RobotGateway(depot, self.database, self.steps.find, _name)
        server = aio.server(interceptors=[ErrorInterceptor()])
        add_AutomationServicer_to_server(gateway, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        running = asyncio.create_task(gateway.run())
        try:
            async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                yield gateway, channel
        finally:
            await gateway.drain()
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
            await server.stop(0)

    async def several(self, stack: AsyncExitStack, number: int) -> list[aio.Channel]:
        """So many gateways, each with a channel to it."""
        return [(await stack.enter_async_context(self.up()))[1] for _ in range(number)]


def _name(context: aio.ServicerContext[Any, Any]) -> str:
    metadata = dict(context.invocation_metadata() or ())
    return str(metadata["authorization"]).removeprefix("Bearer ")


@pytest.fixture(scope="module")
async def own_database(postgres: str, template: str) -> AsyncIterator[Database]:
    opened = Database("robots", await create_database(postgres, template), pool_size=20)
    yield opened
    await opened.close()


@pytest.fixture
async def gateways(own_database: Database) -> Gateways:
    """A depot without any list or robot."""
    await empty(own_database)
    return Gateways(own_database)


@pytest.fixture
async def channel(gateways: Gateways) -> AsyncIterator[aio.Channel]:
    """The way to a gateway."""
    async with gateways.up() as (_, channel):
        yield channel

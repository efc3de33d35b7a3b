"""A gateway for robots that says what a test tells it to say, or works honestly on lists that a test gives it."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from grpc import aio

from api.generated.mallbots.automation.v1.automation_pb2 import (
    Accepted,
    Deliver,
    Finished,
    FromRobot,
    Goodbye,
    Item,
    ItemAccepted,
    ItemReport,
    Ready,
    Recall,
    Refused,
    Returned,
    ShoppingList,
    Stop,
    ToRobot,
    Wait,
    Welcome,
)
from api.generated.mallbots.automation.v1.automation_pb2_grpc import (
    AutomationServicer,
    add_AutomationServicer_to_server,
)
from clients.robots.line import Gateway

_PATIENCE = 10.0

Reply = Welcome | ShoppingList | ItemAccepted | Deliver | Wait | Recall | Accepted | Refused | Goodbye
_FIELDS = {
    Welcome: "welcome",
    ShoppingList: "list",
    ItemAccepted: "item_accepted",
    Deliver: "deliver",
    Wait: "wait",
    Recall: "recall",
    Accepted: "accepted",
    Refused: "refused",
    Goodbye: "goodbye",
}


def a_list(order_id: str, *stops: dict[str, int]) -> ShoppingList:
    """A list with these stops, numbered from 1, each with quantities by product."""
    return ShoppingList(
        order_id=order_id,
        stops=[
            Stop(
                number=number,
                store=f"store-{number}",
                items=[Item(sku=sku, name=sku.title(), quantity=quantity) for sku, quantity in items.items()],
            )
            for number, items in enumerate(stops, 1)
        ],
    )


def accepted(item: ItemReport) -> ItemAccepted:
    """The acknowledgement of a report."""
    return ItemAccepted(order_id=item.order_id, stop=item.stop, sku=item.sku)


class Visit:
    """One stream of a robot, from the gateway's side."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.heartbeats = 0
        self._heard: asyncio.Queue[FromRobot | None] = asyncio.Queue()
        self._to_say: asyncio.Queue[ToRobot | None] = asyncio.Queue()

    async def hear(self) -> FromRobot | None:
        """What the robot says next, heartbeats aside; None if it said its last. Fails after a long silence."""
        return await asyncio.wait_for(self._heard.get(), _PATIENCE)

    async def hears(self, kind: str) -> FromRobot:
        """The robot's next message, which has to be of this kind."""
        heard = await self.hear()
        assert heard is not None, f"the robot left instead of saying {kind}"
        assert heard.WhichOneof("message") == kind, f"not {kind}: {heard}"
        return heard

    async def hears_item(self) -> ItemReport:
        """The robot's next message, which has to be an item's report."""
        return (await self.hears("item")).item

    async def is_left(self) -> None:
        """Wait until the robot has ended the stream, whatever it says before."""
        while await self.hear() is not None:
            pass

    def say(self, reply: Reply) -> None:
        """Say this to the robot."""
        message = ToRobot()
        getattr(message, _FIELDS[type(reply)]).CopyFrom(reply)
        getattr(message, _FIELDS[type(reply)]).SetInParent()
        self._to_say.put_nowait(message)

    def end(self) -> None:
        """End the stream."""
        self._to_say.put_nowait(None)

    async def welcome(self, heartbeat: float = 5, silent_after: float = 30) -> None:
        """Hear the Hello, and say welcome."""
        await self.hears("hello")
        self.say(Welcome(robot=self.token, heartbeat_seconds=heartbeat, silent_after_seconds=silent_after))

    async def give(self, shopping: ShoppingList) -> None:
        """Hear the Ready, and give a list."""
        await self.hears("ready")
        self.say(Accepted(ready=Ready()))
        self.say(shopping)

    async def take_items(self, count: int) -> list[ItemReport]:
        """Hear so many reports of items, and acknowledge each."""
        items = []
        for _ in range(count):
            items.append(await self.hears_item())
            self.say(accepted(items[-1]))
        return items

    async def take_delivery(self) -> str:
        """Hear that everything is at the desk, and acknowledge it; the order's id."""
        order_id = (await self.hears("finished")).finished.order_id
        self.say(Accepted(finished=Finished(order_id=order_id)))
        return order_id

    async def read(self, robot: AsyncIterator[FromRobot]) -> None:
        """Keep what the robot says, and let it have its breaks, until it says no more; then end the stream."""
        try:
            async for message in robot:
                if message.HasField("heartbeat"):
                    self.heartbeats += 1
                else:
                    self._heard.put_nowait(message)
                if message.HasField("break"):
                    acknowledgement = Accepted()
                    getattr(acknowledgement, "break").SetInParent()
                    self.say(acknowledgement)
        finally:
            self._heard.put_nowait(None)
            self.end()

    async def replies(self) -> AsyncIterator[ToRobot]:
        """What is to be said, until the stream is ended."""
        while (message := await self._to_say.get()) is not None:
            yield message


class FakeMall(AutomationServicer):
    """The gateway: every stream is a visit, to be taken in the order in which they came."""

    def __init__(self) -> None:
        self.visits: asyncio.Queue[Visit] = asyncio.Queue()
        self.gateway = Gateway("")

    async def Work(  # noqa: N802 - gRPC calls it so
        self,
        request_iterator: AsyncIterator[FromRobot],
        context: aio.ServicerContext[AsyncIterator[FromRobot], AsyncIterator[ToRobot]],
    ) -> AsyncIterator[ToRobot]:
        metadata = dict(context.invocation_metadata() or ())
        visit = Visit(str(metadata["authorization"]).removeprefix("Bearer "))
        self.visits.put_nowait(visit)
        reading = asyncio.create_task(visit.read(request_iterator))
        try:
            async for message in visit.replies():
                yield message
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def visit(self) -> Visit:
        """The next stream of a robot."""
        return await asyncio.wait_for(self.visits.get(), _PATIENCE)

    async def welcomes(self) -> Visit:
        """The next stream of a robot, which has said Hello and is welcome."""
        visit = await self.visit()
        await visit.welcome()
        return visit

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Serve for as long as the block lasts; then every stream is broken. Again on the same port."""
        server = aio.server()
        add_AutomationServicer_to_server(self, server)
        port = server.add_insecure_port(self.gateway.address or "127.0.0.1:0")
        self.gateway = Gateway(f"127.0.0.1:{port}")
        await server.start()
        try:
            yield
        finally:
            await server.stop(None)


class HonestWork:
    """Hands out lists, oldest first, each to one robot, and keeps what is reported, as the mall would."""

    def __init__(self, lists: Iterable[ShoppingList]) -> None:
        self.waiting = list(lists)
        self.count = len(self.waiting)
        self.held: dict[str, ShoppingList] = {}
        self.delivered: dict[str, str] = {}
        """The robot by order."""
        self.counted: dict[tuple[str, int, str], int] = {}
        """Pieces by order, stop and product; a report that comes again is compared."""
        self.visits = 0

    @property
    def is_done(self) -> bool:
        """Whether every list was delivered."""
        return len(self.delivered) == self.count

    async def serve(self, mall: FakeMall) -> None:
        """Work with every robot that comes."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                visit = await mall.visits.get()
                self.visits += 1
                tasks.create_task(self._attend(visit))

    async def _attend(self, visit: Visit) -> None:
        robot = visit.token
        while (heard := await visit._heard.get()) is not None:
            match heard.WhichOneof("message"):
                case "hello":
                    visit.say(Welcome(robot=robot, heartbeat_seconds=5, silent_after_seconds=30))
                    if robot in self.held:
                        visit.say(self.held[robot])
                case "ready":
                    visit.say(Accepted(ready=Ready()))
                    if robot not in self.held and self.waiting:
                        self.held[robot] = self.waiting.pop(0)
                    if robot in self.held:
                        visit.say(self.held[robot])
                case "item":
                    self._count(robot, heard.item)
                    visit.say(accepted(heard.item))
                case "finished":
                    self.delivered[heard.finished.order_id] = robot
                    self.held.pop(robot, None)
                    visit.say(Accepted(finished=heard.finished))

    def _count(self, robot: str, report: ItemReport) -> None:
        key = (report.order_id, report.stop, report.sku)
        assert self.counted.setdefault(key, report.picked) == report.picked
        for stop in self.held[robot].stops:
            for item in stop.items:
                if (stop.number, item.sku) == (report.stop, report.sku):
                    item.reported, item.picked, item.missing = True, report.picked, report.missing


def returned(order_id: str) -> Accepted:
    """The acknowledgement that everything is back on the shelves."""
    return Accepted(returned=Returned(order_id=order_id))

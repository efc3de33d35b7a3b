"""One stream of one robot: what it says, and what it is told."""

import asyncio
import logging
from contextlib import AbstractContextManager
from time import time_ns
from typing import Final
from uuid import UUID

from api.generated.mallbots.automation.v1 import automation_pb2 as pb
from api.robots import tracing, wire
from api.robots.teller import Teller
from domains.depot.messages import Duty, Glance, ListStatus, Recalled
from domains.depot.service import Depot
from kernel.errors import InvalidInput, ListLost, MallError, Unavailable
from kernel.ids import new_id

HEARTBEATS_BEFORE_SILENCE: Final = 3
_MOST_UNSENT: Final = 1_000

_log = logging.getLogger(__name__)

_Known = tuple[UUID, ListStatus, int]


class Session:
    """A stream, from its beginning. Not `welcomed` until the robot said hello.

    `heard_at` is when it was heard of last, by the loop's clock; `ready_since` is when it asked for the list that
    it waits for, in vain while it `rests`; `order_id` is that of the list that it was told to do something about.
    """

    def __init__(self, robot: str, depot: Depot, teller: Teller) -> None:
        self.robot = robot
        self.id = new_id()
        self.outbox: asyncio.Queue[pb.ToRobot | None] = asyncio.Queue()
        """What is to be sent; None is the end."""
        self.error: MallError | None = None
        """What the stream ends with, if not well."""
        self.lock = asyncio.Lock()
        """Held while something is said or answered, so that the robot's messages and the mall's take turns."""
        self.welcomed = False
        self.heard_at = self._now()
        self.ready_since: float | None = None
        self.rests = False
        self._known: _Known | None = None
        self._trace: tracing.TraceContext = None
        self._closed = False
        self._depot = depot
        self._teller = teller

    @property
    def order_id(self) -> UUID | None:
        return self._known[0] if self._known else None

    async def hello(self) -> None:
        """The robot's first message. Raises what `Depot.online` does, and nothing has happened then."""
        duty = await self._depot.online(self.robot, self.id)
        self.welcomed = True
        silent_after = self._depot.silent_after
        self._send(
            pb.ToRobot(
                welcome=pb.Welcome(
                    robot=self.robot,
                    heartbeat_seconds=silent_after / HEARTBEATS_BEFORE_SILENCE,
                    silent_after_seconds=silent_after,
                )
            )
        )
        if duty is not None:
            self._give(duty)

    async def hear(self, message: pb.FromRobot) -> None:
        """Any other message. Whatever is wrong with it, the robot is told."""
        kind = message.WhichOneof("message")
        about = message.item.order_id or message.finished.order_id or message.returned.order_id
        try:
            match kind:
                case "heartbeat":
                    pass
                case "hello":
                    await self.hello()
                case "ready":
                    await self._ready()
                case "item":
                    with self._heard("item", about):
                        await self._item(message.item)
                case "finished":
                    with self._heard("finished", about):
                        await self._finished(message.finished)
                case "returned":
                    with self._heard("returned", about):
                        await self._returned(message.returned)
                case "break":
                    await self._break()
                case _:
                    raise InvalidInput("this gateway does not know such a message")
        except MallError as error:
            self._send(wire.refused(error, about))
            if isinstance(error, ListLost):
                await self._recall_quietly(about)
        except Exception:
            _log.exception("a message of robot %s could not be handled", self.robot)
            self._send(wire.refused(MallError("this is our fault, and in our log"), about))

    async def take(self) -> None:
        """Ask for a list, if the robot waits for one. Raises what `Depot.take_list` does."""
        if self.ready_since is not None and not self._closed:
            began = time_ns()
            duty = await self._depot.take_list(self.robot)
            if duty is not None:
                self._give(duty, began=began)

    def has_news(self, glance: Glance) -> bool:
        """Whether the robot does not know yet how it stands."""
        return self._known != _known(glance.order_id, glance.list_status, glance.amended)

    async def catch_up(self) -> None:
        """Tell the robot what it does not know yet."""
        if self._closed:
            return
        duty = await self._depot.duty(self.robot)
        order_id = duty.held.order_id if duty else None
        if self.order_id is not None and self.order_id != order_id:
            await self._recall(self.order_id)
        if duty is not None and self._known != _known_of(duty):
            self._give(duty, is_new=self.order_id != order_id)

    async def come_back(self) -> None:
        """Count as there again: only the gateway was silent, not the robot."""
        if not self._closed:
            await self._depot.online(self.robot, self.id)

    def end(self, reason: str) -> None:
        """Say goodbye."""
        self._send(wire.goodbye(reason))
        self.close()

    def fail(self, error: MallError) -> None:
        """End with an error."""
        self.error = self.error or error
        self.close()

    def refuse(self, error: MallError) -> None:
        """Say that a message was not taken."""
        self._send(wire.refused(error))

    def close(self) -> None:
        """Send what there is to send, then end."""
        if not self._closed:
            self._closed = True
            self.ready_since = None
            self.outbox.put_nowait(None)

    @property
    def is_closed(self) -> bool:
        return self._closed

    async def _ready(self) -> None:
        await self._depot.ready(self.robot)
        self.ready_since = self._now()
        self._send(pb.ToRobot(accepted=pb.Accepted(ready=pb.Ready())))
        try:
            await self.take()
        except Unavailable:
            """It is ready, and asked for again."""

    async def _item(self, item: pb.ItemReport) -> None:
        order_id = wire.read_order_id(item.order_id)
        duty = await self._depot.report_item(
            self.robot, order_id, item.stop, item.sku, picked=item.picked, missing=item.missing
        )
        accepted = pb.ItemAccepted(order_id=item.order_id, stop=item.stop, sku=item.sku)
        self._send(pb.ToRobot(item_accepted=accepted))
        is_new = self._known is None or (self._known[0], self._known[2]) != (order_id, duty.amended)
        if duty.next is not None:
            self._give(duty, is_new=is_new, is_told=not is_new)

    async def _finished(self, finished: pb.Finished) -> None:
        duty = await self._depot.finish(self.robot, wire.read_order_id(finished.order_id))
        self._send(pb.ToRobot(accepted=pb.Accepted(finished=finished)))
        self._forget(duty.held.order_id)
        self._tell(duty)

    async def _returned(self, returned: pb.Returned) -> None:
        order_id = wire.read_order_id(returned.order_id)
        await self._depot.returned(self.robot, order_id)
        self._send(pb.ToRobot(accepted=pb.Accepted(returned=returned)))
        self._forget(order_id)

    async def _break(self) -> None:
        await self._depot.on_break(self.robot)
        self.ready_since = None
        accepted = pb.Accepted()
        # A keyword of Python's.
        getattr(accepted, "break").SetInParent()
        self._send(pb.ToRobot(accepted=accepted))

    def _heard(self, what: str, order_id: str) -> AbstractContextManager[None]:
        """Around what the robot says of an order, in whose trace it is if it is that of its list."""
        about = wire.read_order_id(order_id)
        return tracing.heard(self.robot, what, about, self._trace if about == self.order_id else None)

    def _give(self, duty: Duty, *, is_new: bool = True, is_told: bool = False, began: int | None = None) -> None:
        """Tell the robot what to do; `is_new` if it does not have the list, `is_told` if it has all of it. It
        `began` at that time, in nanoseconds, or now."""
        self._known = _known_of(duty)
        self._trace = duty.trace_context
        self.ready_since = None
        if is_told and duty.next == "pick":
            self._tell(duty)
            return
        with tracing.told(self.robot, duty.next or "", duty.held.order_id, self._trace, began) as traceparent:
            self._give_within(duty, traceparent, is_new=is_new)

    def _give_within(self, duty: Duty, traceparent: str, *, is_new: bool) -> None:
        order_id = duty.held.order_id
        if duty.next == "give_back":
            self._send(wire.recall(Recalled(order_id=order_id, reason=duty.reason or "", carried=duty.carried)))
            return
        if is_new or duty.next == "pick":
            self._send(wire.shopping_list(duty.held, traceparent))
        if duty.next == "wait":
            self._send(wire.wait(order_id))
        if duty.next == "deliver":
            self._send(wire.deliver(order_id))
        if is_new and duty.assign_round is not None:
            self._teller.assigned(order_id, duty.assign_round, self.robot)
        self._tell(duty)

    def _tell(self, duty: Duty) -> None:
        if duty.result is not None and duty.shop_round is not None:
            self._teller.shopped(duty.held.order_id, duty.shop_round, duty.result)

    async def _recall(self, order_id: UUID) -> None:
        recalled = await self._depot.recalled(self.robot, order_id)
        self._send(wire.recall(recalled))
        if (lost := recalled.lost) and lost.shop_round is not None:
            self._teller.shopped(order_id, lost.shop_round, lost.result)
        self._known = (order_id, "cancelled", 0) if recalled.carried else None

    async def _recall_quietly(self, order_id: str) -> None:
        try:
            await self._recall(wire.read_order_id(order_id))
        except MallError:
            """The robot was refused, and will be again."""

    def _forget(self, order_id: UUID) -> None:
        if self.order_id == order_id:
            self._known = None

    def _send(self, message: pb.ToRobot) -> None:
        if self._closed:
            return
        self.outbox.put_nowait(message)
        if self.outbox.qsize() > _MOST_UNSENT:
            self.fail(Unavailable("the robot does not read what it is sent"))

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def _known(order_id: UUID | None, status: ListStatus | None, amended: int | None) -> _Known | None:
    if order_id is None or status is None or amended is None:
        return None
    return order_id, status, 0 if status == "cancelled" else amended


def _known_of(duty: Duty) -> _Known | None:
    return _known(duty.held.order_id, duty.held.status, duty.amended)

"""The gRPC service `Automation`: hundreds of robots on one process.

A robot that waits for a list costs nothing. One LISTEN tells that something happened in Depot; then one query says
which robots have to be told something, another how many lists wait, and so many robots ask for one.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, Final

from grpc import aio
from opentelemetry import metrics

from api.generated.mallbots.automation.v1 import automation_pb2 as pb
from api.generated.mallbots.automation.v1.automation_pb2_grpc import AutomationServicer
from api.grpc.access import caller
from api.robots import wire
from api.robots.session import Session
from api.robots.teller import Steps, Teller
from domains.depot.messages import Glance
from domains.depot.service import Depot
from events.store import channel
from kernel.database import Database
from kernel.errors import InvalidInput, MallError, Unavailable

_POLL: Final = 3.0
_TOGETHER: Final = 0.1
_BEAT: Final = 2.0
_TELL: Final = 10.0
_PAUSE: Final = 1.0
_AT_ONCE: Final = 6
_PATIENCE: Final = 3.0
_STOPS: Final = "the gateway stops"

_log = logging.getLogger(__name__)
_meter = metrics.get_meter("mallbots.robots")
_connected = _meter.create_gauge("mallbots.robots.connected", "{robot}", "Robots on a stream of this gateway")

Context = aio.ServicerContext[Any, Any]


def _caller(_: Context) -> str:
    return caller()


class RobotGateway(AutomationServicer):
    """The robots' streams of one process. `robot_of` names the robot that a stream is of."""

    def __init__(
        self,
        depot: Depot,
        database: Database,
        steps: Steps,
        robot_of: Callable[[Context], str] = _caller,
    ) -> None:
        self._depot = depot
        self._database = database
        self._teller = Teller(steps)
        self._robot_of = robot_of
        self._streams: set[Session] = set()
        self._sessions: dict[str, Session] = {}
        self._news = asyncio.Event()
        self._at_once = asyncio.Semaphore(_AT_ONCE)
        self._draining = False
        self._gone = asyncio.Event()
        self._beat = min(_BEAT, depot.silent_after / 10)
        self._looked_at_all_at = self._noted_at = self._well_since = 0.0

    async def Work(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.FromRobot], context: Context
    ) -> AsyncIterator[pb.ToRobot]:
        """One stream of a robot. Raises `InvalidInput` if it does not begin with hello, `Forbidden` if the robot
        is retired."""
        if self._draining:
            yield wire.goodbye(_STOPS)
            return
        session = Session(self._robot_of(context), self._depot, self._teller)
        self._streams.add(session)
        reader = asyncio.create_task(self._read(session, request_iterator))
        try:
            while (message := await session.outbox.get()) is not None:
                yield message
            if session.error is not None:
                raise session.error
        finally:
            session.close()
            self._streams.discard(session)
            if self._sessions.get(session.robot) is session:
                del self._sessions[session.robot]
            if not self._streams:
                self._gone.set()
            try:
                # What is being written down is not broken off.
                async with session.lock:
                    pass
            finally:
                reader.cancel()

    async def run(self) -> None:
        """Hand out lists, recall robots, and notice silence, until cancelled; through every outage."""
        self._well_since = self._now()
        async with asyncio.TaskGroup() as group:
            for work in (self._listen, self._watch, self._notice, self._tell):
                group.create_task(self._forever(work))

    async def drain(self) -> None:
        """Say goodbye to every robot, and to every one that comes from now on; return when they are gone, or after
        a few seconds."""
        self._draining = True
        self._gone.clear()
        for session in list(self._streams):
            session.end(_STOPS)
        if self._streams:
            try:
                await asyncio.wait_for(self._gone.wait(), _PATIENCE)
            except TimeoutError:
                _log.warning("%d robots did not hang up", len(self._streams))
        await self._teller.close(_PATIENCE)

    # What one robot says

    async def _read(self, session: Session, messages: AsyncIterator[pb.FromRobot]) -> None:
        try:
            async for message in messages:
                session.heard_at = self._now()
                async with session.lock:
                    if session.is_closed:
                        return
                    if session.welcomed:
                        await session.hear(message)
                    else:
                        await self._begin(session, message)
            # The robot hung up, as one does that is done for the day; a broken line ends otherwise.
            if session.welcomed and not session.is_closed:
                await self._depot.offline(session.robot, session.id)
        except MallError:
            """Its silence will tell."""
        except Exception as error:
            _log.exception("the stream of robot %s can not be read", session.robot)
            session.fail(Unavailable(f"the stream can not be read: {type(error).__name__}"))
        finally:
            session.close()

    async def _begin(self, session: Session, message: pb.FromRobot) -> None:
        if message.WhichOneof("message") != "hello":
            session.fail(InvalidInput("a robot's first message has to be hello", "message"))
            return
        try:
            await session.hello()
        except Unavailable as error:
            session.refuse(error)
            return
        except MallError as error:
            session.fail(error)
            return
        if older := self._sessions.get(session.robot):
            older.end("the robot has another stream")
        self._sessions[session.robot] = session

    # What goes on behind the streams

    async def _forever(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do one of these again and again, whatever becomes of it."""
        trouble = ""
        while True:
            try:
                await work()
                trouble = ""
                continue
            except MallError as error:
                if error.message != trouble:
                    trouble = error.message
                    _log.warning("robots: %s; it is tried again", trouble)
            except Exception:
                _log.exception("robots: something went wrong; it is tried again")
            await asyncio.sleep(_PAUSE)

    async def _listen(self) -> None:
        async with self._database.session() as session:
            ended = asyncio.Event()
            session.add_termination_listener(lambda *_: ended.set())
            await session.add_listener(channel("depot"), lambda *_: self._news.set())
            self._news.set()
            await ended.wait()
            raise Unavailable("the session that listens to Depot is gone")

    async def _watch(self) -> None:
        """Look what is new, at news and every few seconds."""
        try:
            # Not `asyncio.wait_for`: in Python 3.11 it loses a cancellation that comes together with news.
            async with asyncio.timeout(_POLL):
                await self._news.wait()
            # What comes meanwhile goes together.
            await asyncio.sleep(_TOGETHER)
        except TimeoutError:
            pass
        self._news.clear()
        at_all = (time := self._now()) >= self._looked_at_all_at + _POLL
        await self._tell_news([one for one in self._sessions.values() if at_all or one.order_id])
        await self._hand_out()
        if at_all:
            self._looked_at_all_at = time

    async def _tell_news(self, sessions: list[Session]) -> None:
        if sessions:
            glances = {one.robot: one for one in await self._depot.glances(one.robot for one in sessions)}
            for session in sessions:
                # One that staff let rest would ask in vain, in place of another.
                session.rests = (seen := glances.get(session.robot)) is not None and seen.status == "on_break"
            await self._with_each(
                [
                    (session, glance)
                    for session in sessions
                    if (glance := glances.get(session.robot)) and _wants_attention(session, glance)
                ],
                self._attend_to,
            )

    async def _attend_to(self, session: Session, glance: Glance) -> None:
        if glance.session != session.id:
            session.end("the robot has another stream")
        elif glance.status == "retired":
            session.end("the robot is retired")
        else:
            if glance.status == "offline":
                await session.come_back()
            await session.catch_up()

    async def _hand_out(self) -> None:
        """Let as many robots ask for a list as there are, whoever has waited longest first."""
        ready = [
            (one.ready_since, one)
            for one in self._sessions.values()
            if one.ready_since is not None and not one.rests
        ]
        if ready:
            ready.sort(key=lambda pair: pair[0])
            waiting = await self._depot.waiting(len(ready))
            await self._with_each([(one, one) for _, one in ready[:waiting]], lambda session, _: session.take())

    async def _notice(self) -> None:
        """Write down who was heard of, and let the silent go."""
        await asyncio.sleep(self._beat)
        time = self._now()
        _connected.set(len(self._sessions), {"gateway": "robots"})
        for session in list(self._streams):
            if time - session.heard_at > self._depot.silent_after:
                session.end("nothing was heard of the robot")
        heard = {one.robot: one for one in self._sessions.values() if one.heard_at > self._noted_at}
        try:
            await self._depot.heard_of({name: self._now() - one.heard_at for name, one in heard.items()})
        except Unavailable:
            self._well_since = self._now()
            raise
        self._noted_at = time
        # Who was away itself does not know who is silent.
        if self._now() - self._well_since > self._depot.silent_after:
            for lost in await self._depot.sweep():
                if lost.shop_round is not None:
                    self._teller.shopped(lost.order_id, lost.shop_round, lost.result)

    async def _tell(self) -> None:
        """Let the sagas know of the robots that were heard of."""
        await asyncio.sleep(min(_TELL, self._depot.silent_after / 3))
        since = self._now() - self._depot.silent_after / 2
        heard = [one.robot for one in self._sessions.values() if one.order_id and one.heard_at > since]
        if heard:
            await self._teller.heard_of(await self._depot.progress(heard))

    async def _with_each(
        self, pairs: Iterable[tuple[Session, Any]], do: Callable[[Session, Any], Awaitable[None]]
    ) -> None:
        """Do this with each session, some at a time and no two with the same; those that could not be done are
        looked at again soon."""

        async def one(session: Session, value: Any) -> None:
            try:
                async with self._at_once, session.lock:
                    await do(session, value)
            except Unavailable:
                asyncio.get_running_loop().call_later(_PAUSE, self._news.set)
            except MallError as error:
                _log.warning("robot %s: %s", session.robot, error.message)

        await asyncio.gather(*(one(session, value) for session, value in pairs))

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def _wants_attention(session: Session, glance: Glance) -> bool:
    return glance.session != session.id or glance.status in ("retired", "offline") or session.has_news(glance)

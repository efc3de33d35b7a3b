"""A robot's line to the mall: one stream on a connection of its own, from Hello to whatever ends it."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

import grpc
from grpc import aio

from api.generated.mallbots.automation.v1.automation_pb2 import (
    FromRobot,
    Heartbeat,
    Hello,
    Refused,
    ToRobot,
    Welcome,
)
from api.generated.mallbots.automation.v1.automation_pb2_grpc import AutomationStub

_ANSWER_WITHIN: Final = 10.0  # seconds; this and the next until the gateway has said otherwise
_HEARTBEAT_EVERY: Final = 5.0
_HANG_UP_WITHIN: Final = 1.0
_OPTIONS: Final = (
    # Each robot has its own connection, as if on a machine of its own.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
)

Stream = aio.StreamStreamCall[FromRobot, ToRobot]
_Key = tuple[str, str, int, str]


class LineLost(Exception):
    """The stream has ended, or is of no use any more; the message says why."""


@dataclass(frozen=True)
class Gateway:
    """Where the gateway is (`host:port`), and who signs its certificate (PEM); without that it speaks plainly.
    `tls_certificate` and `tls_key` (PEM) are what a client shows, if the gateway asks for it."""

    address: str
    tls_ca: bytes | None = None
    tls_certificate: bytes | None = None
    tls_key: bytes | None = None

    def channel(self) -> aio.Channel:
        """A channel to it; close it."""
        if self.tls_ca is None:
            return aio.insecure_channel(self.address, options=_OPTIONS)
        credentials = grpc.ssl_channel_credentials(self.tls_ca, self.tls_key, self.tls_certificate)
        return aio.secure_channel(self.address, credentials, options=_OPTIONS)


@asynccontextmanager
async def connected(gateway: Gateway, token: str) -> AsyncIterator["Line"]:
    """A line on which the robot is welcome; it is closed behind the block. Raises `LineLost`."""
    channel = gateway.channel()
    try:
        line = Line(AutomationStub(channel).Work(metadata=(("authorization", f"Bearer {token}"),)))
        try:
            await line.enter()
            yield line
        finally:
            await line.cut()
    finally:
        await channel.close()


class Line:
    """What is said and heard, and what is not answered yet. Times are those of `time.monotonic`."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._reading: asyncio.Task[object] | None = None
        self._unanswered: list[FromRobot] = []
        self.welcome = Welcome()
        self.spoke_at = time.monotonic()
        self.quiet_since = self.spoke_at
        """When the gateway was last heard of, or was last told what it answers."""

    @property
    def heartbeat_every(self) -> float:
        """After how many seconds of silence the robot says that it is there."""
        return self.welcome.heartbeat_seconds or _HEARTBEAT_EVERY

    @property
    def patience(self) -> float:
        """How many seconds an answer may take."""
        return max(self.welcome.silent_after_seconds, _ANSWER_WITHIN)

    async def enter(self) -> None:
        """Say Hello and wait to be welcome."""
        await self._say(FromRobot(hello=Hello()))
        while True:
            heard = await self.listen(self.quiet_since + self.patience)
            if heard is None:
                raise LineLost("the gateway does not answer")
            match heard.WhichOneof("message"):
                case "welcome":
                    self.welcome = heard.welcome
                    return
                case "refused":
                    raise LineLost(f"not welcome: {heard.refused.message}")
                case "goodbye":
                    raise LineLost(f"sent away: {heard.goodbye.reason}")

    async def report(self, message: FromRobot) -> None:
        """Say something that is answered."""
        self._unanswered.append(message)
        self.quiet_since = time.monotonic()
        await self._say(message)

    async def heartbeat(self) -> None:
        """Say that the robot is still there."""
        await self._say(FromRobot(heartbeat=Heartbeat()))

    async def listen(self, until: float) -> ToRobot | None:
        """What the gateway says next; None if it says nothing before `until`."""
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._stream.read())
        await asyncio.wait({self._reading}, timeout=max(0.0, until - time.monotonic()))
        if not self._reading.done():
            return None
        reading, self._reading = self._reading, None
        try:
            heard = reading.result()
        except aio.AioRpcError as error:
            raise LineLost(_reason(error.code(), error.details())) from error
        if not isinstance(heard, ToRobot):
            raise LineLost("the gateway ended the stream")
        self.quiet_since = time.monotonic()
        return heard

    def answered(self, heard: ToRobot) -> FromRobot | None:
        """The report that this acknowledges; None if it is no acknowledgement, or one too many."""
        key = _acknowledged(heard)
        return self._take([said for said in self._unanswered if _key(said) == key])

    def refused(self, refused: Refused) -> FromRobot | None:
        """The report that was refused: the oldest about that order, or else the oldest about none."""
        of_order = [said for said in self._unanswered if _key(said)[1] == refused.order_id]
        return self._take(of_order or [said for said in self._unanswered if not _key(said)[1]])

    async def hang_up(self) -> None:
        """Say that nothing more will be said, and give the gateway a moment to end the stream."""
        with suppress(aio.AioRpcError, asyncio.InvalidStateError, LineLost):
            await self._stream.done_writing()
            until = time.monotonic() + _HANG_UP_WITHIN
            while await self.listen(until) is not None:
                pass

    async def cut(self) -> None:
        """End the stream, whatever was going on."""
        self._stream.cancel()
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    async def _say(self, message: FromRobot) -> None:
        self.spoke_at = time.monotonic()
        try:
            async with asyncio.timeout(self.patience):
                await self._stream.write(message)
        except aio.AioRpcError as error:
            raise LineLost(_reason(error.code(), error.details())) from error
        except asyncio.InvalidStateError as error:
            raise LineLost(_reason(await self._stream.code(), await self._stream.details())) from error
        except TimeoutError as error:
            raise LineLost("the gateway does not take what is said") from error

    def _take(self, found: list[FromRobot]) -> FromRobot | None:
        if not found:
            return None
        self._unanswered = [said for said in self._unanswered if said is not found[0]]
        return found[0]


def _reason(code: grpc.StatusCode, details: str | None) -> str:
    return f"{code.name.lower()}: {details}"


def _key(said: FromRobot) -> _Key:
    match kind := said.WhichOneof("message"):
        case "item":
            return kind, said.item.order_id, said.item.stop, said.item.sku
        case "finished":
            return kind, said.finished.order_id, 0, ""
        case "returned":
            return kind, said.returned.order_id, 0, ""
    return kind or "", "", 0, ""


def _acknowledged(heard: ToRobot) -> _Key | None:
    if heard.HasField("item_accepted"):
        item = heard.item_accepted
        return "item", item.order_id, item.stop, item.sku
    if not heard.HasField("accepted"):
        return None
    match kind := heard.accepted.WhichOneof("what"):
        case "finished":
            return kind, heard.accepted.finished.order_id, 0, ""
        case "returned":
            return kind, heard.accepted.returned.order_id, 0, ""
    return kind or "", "", 0, ""

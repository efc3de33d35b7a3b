"""What happens in the mall, told to staff as it happens: a WebSocket with the events of all domains."""

import asyncio
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Final, TypeVar

from fastapi import APIRouter, WebSocket
from pydantic import BaseModel
from starlette.datastructures import QueryParams
from starlette.websockets import WebSocketDisconnect

from api.closing import close_for
from api.endpoints import ServicesDependency
from api.live.hub import TooSlow
from api.live.messages import Hello, PositionMessage
from api.metrics import following
from api.services import Services
from api.staff.access import whoever_asks
from events.consumer import DOMAINS
from kernel.errors import Forbidden, InvalidInput, Unavailable
from kernel.messages import DomainName

HEARTBEAT: Final = 15.0
LOOKED_AT_EVERY: Final = 3.0
"""Seconds after which it is looked at again whether a client may still follow."""

_SEND_TIMEOUT: Final = 5.0
_MOST_AT_ONCE: Final = 50
_LONGEST_NAME_TOLD: Final = 20
_PARAMETERS: Final = ("topics", "after")

Item = TypeVar("Item")

router = APIRouter(prefix="/v1/staff", redirect_slashes=False)


@router.websocket("/events")
async def follow_events(websocket: WebSocket, mall: ServicesDependency) -> None:
    """Every event of the mall, in one order, as it happens: `WS /v1/staff/events?topics=orders,depot&after=1234`.

    The key of a service comes as `Authorization: Bearer KEY`; browsers send the cookie of who signed in, and from
    which site's page they ask, which must be ours. `topics` are the domains whose events are
    wanted, separated by commas (without it: all). `after` is a position: what follows it is delivered first.
    Without it the delivery begins with the next event.

    Each message is a JSON object with a `type` (api/live/messages.py has their fields):

    - `hello` comes first on each connection: the `position` that the delivery begins behind, and the `topics`.
    - `event` is an event. They come in the order of their `position`, each once, and none is left out.
    - `position` comes after each 15 seconds of silence: nothing of the topics happened up to there. A client that
      hears nothing for 30 seconds should connect again.

    Take a snapshot by REST behind the `hello` and then apply the events: an event may be in the snapshot already,
    which the `version` of its stream tells. After a disconnect, connect with the `position` of the last message of
    any type as `after`, and no event is missed or repeated, unless the stream was lost and made anew in between.
    Clients need not send anything; what they send is ignored.

    The socket is accepted before it is refused, so that browsers learn the reason. It is closed with a code of
    `api.closing.CloseCode`:

    - 4401: there is no key or session, or it is not valid any more, which is looked at every few seconds.
    - 4403: its roles do not allow it (any more), or the page that asks is of another site.
    - 4400: a parameter breaks a rule: an unknown topic, or `after` is no position or one that no event has yet.
    - 4410: what follows `after` is not kept any more, or this server saw that the stream was lost and made anew
      while the client was connected. Take a fresh snapshot and connect without `after`. (Who connects with an
      `after` of the lost stream is not told so: it is taken for a position of the new one, and breaks a rule
      (4400) if that has not got so far yet.)
    - 4408: the client does not read fast enough. The reason says where to resume; what was sent before the close
      came whole. A client that does not read this either is cut off some seconds later without it (1006).
    - 1013: NATS or PostgreSQL is away. Resume after a while.
    - 1012: this server stops. Resume.
    - 1011: our fault, or the client did not answer a ping within 20 seconds. Resume.
    """
    await websocket.accept()
    delivering = asyncio.create_task(_deliver(websocket, mall))
    watching = asyncio.create_task(_while_allowed(websocket, mall))
    listening = asyncio.create_task(_until_gone(websocket))
    tasks = (delivering, watching, listening)
    try:
        with following("websocket"):
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        errors = [task.exception() for task in (delivering, watching) if task.done()]
        error = next((error for error in errors if error and not isinstance(error, WebSocketDisconnect)), None)
        if error is not None:
            assert isinstance(error, Exception)
            delivering.cancel()
            await asyncio.wait({delivering})
            await close_for(websocket, error)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _deliver(websocket: WebSocket, mall: Services) -> None:
    """Send what the client asks for until it is gone, or something is wrong: then raises what that is."""
    await _authenticate(websocket, mall)
    topics, after = _asked_for(websocket.query_params)
    reader = await mall.hub.reader(topics, after)
    sent = reader.position
    try:
        await _send(websocket, Hello(position=sent, topics=list(topics)))
        while True:
            entries = await reader.next(HEARTBEAT)
            for some in _in_parts(entries, _MOST_AT_ONCE):
                async with asyncio.timeout(_SEND_TIMEOUT):
                    for entry in some:
                        await websocket.send_text(entry.message)
                        sent = entry.position
            if not entries:
                await _send(websocket, PositionMessage(position=reader.position))
            sent = reader.position
    except TimeoutError:
        raise TooSlow(sent) from None


async def _send(websocket: WebSocket, message: BaseModel) -> None:
    async with asyncio.timeout(_SEND_TIMEOUT):
        await websocket.send_text(message.model_dump_json())


async def _until_gone(websocket: WebSocket) -> None:
    while (await websocket.receive())["type"] != "websocket.disconnect":
        """Nothing that clients send means anything."""


async def _authenticate(websocket: WebSocket, mall: Services) -> None:
    """Raises `Unauthenticated` or `Forbidden`, which is noted."""
    who = await whoever_asks(websocket, mall, to_follow=True)
    try:
        who.check("events.follow")
    except Forbidden as refusal:
        await mall.acts.note(who.name, "events.follow", None, refusal.message, "refused")
        raise


async def _while_allowed(websocket: WebSocket, mall: Services) -> None:
    """Raises what `_authenticate` does as soon as the client may not follow any more. While that can not be known,
    it may."""
    while True:
        await asyncio.sleep(LOOKED_AT_EVERY)
        with suppress(Unavailable):
            await _authenticate(websocket, mall)


def _asked_for(parameters: QueryParams) -> tuple[tuple[DomainName, ...], int | None]:
    """The topics, and behind which position. Raises `InvalidInput`."""
    for name in parameters:
        if name not in _PARAMETERS:
            raise InvalidInput(f"there is no parameter {_told(name)}, only {' and '.join(_PARAMETERS)}", name)
    wanted = parameters["topics"].split(",") if "topics" in parameters else DOMAINS
    for topic in wanted:
        if topic not in DOMAINS:
            raise InvalidInput(f"there is no topic {_told(topic)}, only {', '.join(DOMAINS)}", "topics")
    after = parameters.get("after")
    if after is not None and not re.fullmatch("[0-9]{1,18}", after):
        raise InvalidInput(f"after is a position, a whole number from 0, and not {_told(after)}", "after")
    return tuple(domain for domain in DOMAINS if domain in wanted), None if after is None else int(after)


def _told(name: str) -> str:
    return repr(name[:_LONGEST_NAME_TOLD])


def _in_parts(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    for begin in range(0, len(items), size):
        yield items[begin : begin + size]

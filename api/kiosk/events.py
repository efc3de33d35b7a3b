"""What happens to an order, told as it happens: the stream of Server-Sent Events that a kiosk follows."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Sequence
from typing import Final
from uuid import UUID

from fastapi.sse import format_sse_event

from api.kiosk.schemas import OrderEvent
from api.metrics import following
from api.services import Services
from domains.orders.messages import LAST
from domains.orders.service import stream_of
from events.recorded import RecordedEvent
from kernel.errors import InvalidInput, Unavailable

HEARTBEAT: Final = 15.0
RECONNECT_AFTER_MS: Final = 1000

_POLL: Final = 10.0
_POLL_WHILE_NATS_IS_AWAY: Final = 2.0
_LAST: Final = {event.__name__ for event in LAST}

_log = logging.getLogger(__name__)


class OrderEvents:
    """The events of orders, from Orders' own store; the hub only says when to look there, and while it can not,
    looking again and again must do."""

    def __init__(self, services: Services) -> None:
        self._orders = services.orders
        self._hub = services.hub

    async def follow(self, order_id: UUID, last_event_id: str | None) -> AsyncIterator[bytes] | None:
        """An order's events behind the one with this id, each as soon as it happened, up to its last; None if that
        was the last. Raises `InvalidInput` if this is no id, or one that no event of the order has yet."""
        history = await self._orders.events_after(order_id, 0)
        version = _version(last_event_id, history)
        if any(event.type in _LAST and event.version <= version for event in history):
            return None
        return self._told(order_id, version)

    async def _told(self, order_id: UUID, version: int) -> AsyncIterator[bytes]:
        time = asyncio.get_running_loop().time
        yield format_sse_event(retry=RECONNECT_AFTER_MS)
        told_at = time()
        with following("order"), self._hub.watching(stream_of(order_id)) as news:
            while not self._hub.stopping:
                news.clear()
                for event in await self._behind(order_id, version):
                    yield _written(event)
                    version, told_at = event.version, time()
                    if event.type in _LAST:
                        return
                if time() >= told_at + HEARTBEAT:
                    yield format_sse_event(comment="still here")
                    told_at = time()
                look_again = time() + (_POLL if self._hub.live else _POLL_WHILE_NATS_IS_AWAY)
                try:
                    async with asyncio.timeout_at(min(look_again, told_at + HEARTBEAT)):
                        await news.wait()
                except TimeoutError:
                    """Look again."""

    async def _behind(self, order_id: UUID, version: int) -> Sequence[RecordedEvent]:
        try:
            return await self._orders.events_after(order_id, version)
        except Unavailable as error:
            _log.warning("the events of order %s: %s; they are looked for again", order_id, error.message)
            return ()


def _version(last_event_id: str | None, history: Sequence[RecordedEvent]) -> int:
    if last_event_id is None:
        return 0
    field = "Last-Event-ID"
    if not re.fullmatch("[0-9]{1,18}", last_event_id):
        raise InvalidInput(f"{field} is the id of the last event that came, a whole number from 0", field)
    last = history[-1].version if history else 0
    if int(last_event_id) > last:
        raise InvalidInput(f"{field} is in the future: the order's last event has the id {last}", field)
    return int(last_event_id)


def _written(event: RecordedEvent) -> bytes:
    told = OrderEvent(version=event.version, type=event.type, recorded_at=event.recorded_at, data=event.fields())
    return format_sse_event(id=str(event.version), event=event.type, data_str=told.model_dump_json())

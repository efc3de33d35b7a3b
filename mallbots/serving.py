"""The API as a process: uvicorn, made to serve hundreds of live clients and to stop promptly with them."""

import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import uvicorn
from fastapi import FastAPI
from uvicorn.config import STARTUP_FAILURE
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State

from api.app import create_app
from mallbots.heartbeat import heartbeat
from mallbots.logs import configure_logging
from mallbots.settings import Settings
from mallbots.telemetry import configure_metrics
from mallbots.tls import uvicorn_tls
from mallbots.tracing import tracing

if TYPE_CHECKING:
    from uvicorn._types import ASGISendEvent

GRACE: Final = 3
"""Seconds that requests may still take when the server stops."""

_CLOSE_TIMEOUT: Final = 3.0
_LARGEST_MESSAGE: Final = 1024
_PING_EVERY: Final = 20.0
_FRAMES_KEPT: Final = 1024


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's, with two differences. The same text to many clients is made into a frame once. And whoever does
    not read is cut off: uvicorn would wait until it has read what is on its way, which may be for ever."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.close_timeout = _CLOSE_TIMEOUT

    async def send(self, message: "ASGISendEvent") -> None:
        if message["type"] == "websocket.send" and (text := message.get("text")) is not None:
            await self.writable.wait()
            if self.conn.state is State.OPEN and not self.close_sent and not self.conn.extensions:
                self.transport.write(_frame(text))
                return
        if message["type"] == "websocket.close":
            # So few bytes are not worth waiting until the client reads what is before them.
            self.writable.set()
        await super().send(message)
        if self.close_sent:
            self._abort_soon()

    def handle_close(self, event: Frame) -> None:
        super().handle_close(event)
        self._abort_soon()

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self._abort_soon()

    def _abort_soon(self) -> None:
        """What is on its way to the client has this much time; closing alone waits for all of it."""
        self.loop.call_later(_CLOSE_TIMEOUT, self.transport.abort)


@lru_cache(maxsize=_FRAMES_KEPT)
def _frame(text: str) -> bytes:
    return Frame(Opcode.TEXT, text.encode()).serialize(mask=False)


class Server(uvicorn.Server):
    """uvicorn's, that also tells those who follow an order when it stops; it tells WebSockets itself."""

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.api_host,
                port=settings.api_port,
                loop="uvloop",
                http="httptools",
                ws=WebSocketProtocol,
                ws_max_size=_LARGEST_MESSAGE,
                ws_ping_interval=_PING_EVERY,
                ws_ping_timeout=_PING_EVERY,
                # Many small messages that each is made once for all: to compress them for each costs more.
                ws_per_message_deflate=False,
                access_log=False,
                log_config=None,
                log_level=settings.log_level,
                timeout_graceful_shutdown=GRACE,
                **uvicorn_tls(settings),
            )
        )
        self._stopping: Callable[[], None] = app.state.services.hub.stop
        self._ready_file = settings.ready_file

    async def main_loop(self) -> None:
        """Serve until told to stop; the ready file says that it does."""
        async with heartbeat(self._ready_file):
            await super().main_loop()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop, as promptly as clients allow."""
        self._stopping()
        await super().shutdown(sockets)


def serve(settings: Settings) -> None:
    """Serve the API until SIGTERM or Ctrl-C. Raises `Misconfigured`."""
    configure_logging(settings)
    configure_metrics(settings)
    server = Server(create_app(settings), settings)
    with tracing(settings, "api"), suppress(KeyboardInterrupt):
        server.run()
    if not server.started:
        sys.exit(STARTUP_FAILURE)

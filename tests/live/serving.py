"""The API as a real server of a test's own, and its clients."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import httpx
from pydantic import SecretStr
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.frames import Close

from api.access import STAFF_ROLES
from api.app import create_app
from api.keys import ApiKeys
from api.live.hub import RING_SIZE, Hub
from domains.orders.service import Orders
from events.consumer import DOMAINS
from events.relay import Relay
from kernel.database import Database
from mallbots.embedded import free_port
from mallbots.serving import Server
from mallbots.settings import DATABASES, Settings
from tests.events.log import STREAM_CONFIG, running
from tests.samples import place
from tests.waiting import eventually

Messages = list[dict[str, Any]]


@dataclass
class Api:
    """A server that is up, with what it stands on."""

    port: int
    database: Database
    nats_url: str
    hub: Hub
    server: Server
    staff_key: str
    kiosk_key: str

    @property
    def orders(self) -> Orders:
        return Orders(self.database)

    @property
    def connections(self) -> int:
        """How many the server holds."""
        return len(self.server.server_state.connections)

    @property
    def closing(self) -> int:
        """How many of them it has said to that they are closed."""
        return sum(getattr(connection, "close_sent", False) for connection in self.server.server_state.connections)

    async def place(self, number: int = 1) -> None:
        """So many orders, one after the other."""
        for _ in range(number):
            await self.orders.place(place())

    def events_url(self, **query: Any) -> str:
        """Where staff follow events."""
        return f"ws://127.0.0.1:{self.port}/v1/staff/events?{urlencode(query)}"

    def follow(self, *, key: str | None = None, **query: Any) -> connect:
        """A connection of staff, to be opened. It takes in little that is not read."""
        # Beside what the systems of both sides take in, which is megabytes unless told otherwise.
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        sock.connect(("127.0.0.1", self.port))
        headers = {"Authorization": f"Bearer {key or self.staff_key}"}
        url = self.events_url(**query)
        return connect(
            url, sock=sock, additional_headers=headers, compression=None, proxy=None, max_queue=1, max_size=None
        )

    def kiosk(self) -> httpx.AsyncClient:
        """The API as a kiosk speaks to it."""
        headers = {"Authorization": f"Bearer {self.kiosk_key}"}
        url = f"http://127.0.0.1:{self.port}"
        return httpx.AsyncClient(base_url=url, headers=headers, timeout=10, trust_env=False)


@asynccontextmanager
async def an_api(
    database: Database, nats_url: str, *, ring_size: int = RING_SIZE, patience: float = 2.0, relayed: bool = True
) -> AsyncIterator[Api]:
    """A server, with the relays of all domains beside it unless `relayed` is off."""
    async with AsyncExitStack() as stack:
        if relayed:
            relays = (Relay(domain, database, nats_url, STREAM_CONFIG).run() for domain in DOMAINS)
            await stack.enter_async_context(running(*relays))
        url = SecretStr(database.engine.url.render_as_string(hide_password=False))
        settings = Settings.model_validate(
            {f"{name}_database_url": url for name in DATABASES}
            | {"nats_url": SecretStr(nats_url), "api_port": free_port(), "log_level": "warning"}
        )
        app = create_app(settings)
        hub = app.state.services.hub = Hub(nats_url, size=ring_size, patience=patience)
        server = Server(app, settings)
        serving = asyncio.create_task(server.serve())
        try:
            await eventually(lambda: server.started)
            if relayed:
                await eventually(lambda: hub.live)
            staff_key = await ApiKeys(database, "staff").issue("bea", STAFF_ROLES)
            kiosk_key = await ApiKeys(database, "kiosks").issue("kiosk-1")
            yield Api(settings.api_port, database, nats_url, hub, server, staff_key, kiosk_key)
        finally:
            server.should_exit = True
            await serving


async def hello(connection: ClientConnection) -> int:
    """The position that the first message says."""
    message = json.loads(await asyncio.wait_for(connection.recv(), 10))
    assert message["type"] == "hello"
    position: int = message["position"]
    return position


async def take(connection: ClientConnection, number: int) -> Messages:
    """The next so many messages."""
    async with asyncio.timeout(20):
        return [json.loads(await connection.recv()) for _ in range(number)]


async def take_until(connection: ClientConnection, position: int) -> Messages:
    """The messages up to the one with this position."""
    messages: Messages = []
    async with asyncio.timeout(20):
        while not messages or messages[-1]["position"] < position:
            messages.append(json.loads(await connection.recv()))
    return messages


async def close_of(connection: ClientConnection) -> tuple[Messages, Close]:
    """What still came, and how the server closed the connection."""
    messages: Messages = []
    try:
        async with asyncio.timeout(20):
            while True:
                messages.append(json.loads(await connection.recv()))
    except ConnectionClosed as closed:
        if closed.rcvd is None:
            raise
        return messages, closed.rcvd


def positions(messages: Messages) -> list[int]:
    """Those of the messages, in the order that they came in."""
    return [message["position"] for message in messages]

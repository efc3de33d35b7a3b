"""Who may come in, by a key in the metadata `authorization: Bearer KEY`: staff, and robots by tokens of theirs."""

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, Final

import grpc
from google.protobuf.message import Message
from grpc import aio

from api.grpc.handlers import Context, Continuation, Handler, Method, around, is_stream
from api.grpc.requests import check_text
from api.keys import ApiKeys
from kernel.errors import Forbidden, Unauthenticated, Unavailable

KEPT_SECONDS: Final = 5.0
"""How long a key that was looked up is believed: a revoked one works for so long at most."""

_MOST_KEPT: Final = 10_000
_SCHEME: Final = "bearer"

_caller: ContextVar[str] = ContextVar("caller")


def caller() -> str:
    """The holder of the key that the method being run was called with: the member of staff, or the robot."""
    return _caller.get()


class Keyring:
    """The keys of one gateway, remembered for a while: hundreds of robots that come back at once, and hundreds of
    streams, ask the database little."""

    def __init__(self, keys: ApiKeys, kept_seconds: float = KEPT_SECONDS) -> None:
        self._keys = keys
        self._kept_seconds = kept_seconds
        self._known: dict[str, tuple[float, str]] = {}
        self._streams: dict[asyncio.Timeout, str] = {}

    async def holder_of(self, key: str) -> str:
        """Whom a key was given to. Raises `Unauthenticated`, and `Unavailable` if that can not be known."""
        until, holder = self._known.get(key, (0.0, ""))
        if time.monotonic() >= until:
            self._known.pop(key, None)
            holder = await self._keys.holder_of(key)
            if len(self._known) >= _MOST_KEPT:
                self._known.clear()
            self._known[key] = time.monotonic() + self._kept_seconds, holder
        return holder

    @asynccontextmanager
    async def stream(self, key: str) -> AsyncIterator[None]:
        """What is done within lasts as long as the key lets somebody in, which `run` looks at: it is cancelled
        when that ends. Raises `Unauthenticated` then."""
        try:
            async with asyncio.timeout(None) as limit:
                self._streams[limit] = key
                try:
                    yield
                finally:
                    del self._streams[limit]
        except TimeoutError:
            if limit.expired():
                raise Unauthenticated("this key was revoked") from None
            raise

    async def run(self) -> None:
        """End the streams of revoked keys, for ever. While the database is away they go on."""
        while True:
            await asyncio.sleep(self._kept_seconds)
            keys = set(self._streams.values())
            try:
                valid = await self._keys.valid_among(keys) if keys else set()
            except Unavailable:
                continue
            for key in keys - valid:
                self._known.pop(key, None)
            for limit, key in list(self._streams.items()):
                if key in keys and key not in valid and not limit.expired():
                    limit.reschedule(asyncio.get_running_loop().time())


class AccessInterceptor(aio.ServerInterceptor):
    """Lets in who has a key of the service's keyring, and lets everybody in to the `open_to_all` services."""

    def __init__(self, keyrings: Mapping[str, Keyring], open_to_all: Collection[str]) -> None:
        self._keyrings = keyrings
        self._open_to_all = open_to_all

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> "Handler | None":
        handler = await continuation(handler_call_details)
        service = handler_call_details.method.rpartition("/")[0].removeprefix("/")
        if handler is None or service in self._open_to_all:
            return handler
        keyring, lasts = self._keyrings.get(service), is_stream(handler)

        def wrap(method: Method) -> Method:
            async def let_in(request: Any, context: Context) -> Any:
                if keyring is None:
                    raise Forbidden(f"{service} is open to nobody")
                key = _key(context)
                _caller.set(await keyring.holder_of(key))
                if isinstance(request, Message):
                    check_text(request)
                if not lasts:
                    return await method(request, context)
                async with keyring.stream(key):
                    return await method(request, context)

            return let_in

        return around(handler, wrap)


def _key(context: Context) -> str:
    metadata = context.invocation_metadata() or ()
    sent = next((str(value) for name, value in metadata if name == "authorization"), "")
    scheme, _, key = sent.partition(" ")
    if scheme.lower() != _SCHEME or not key.strip():
        raise Unauthenticated("send your key as the metadata `authorization: Bearer KEY`")
    return key.strip()

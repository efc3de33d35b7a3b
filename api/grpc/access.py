"""Who may come in, by a key in the metadata `authorization: Bearer KEY`, and call which methods: services by their
roles, and robots by tokens of theirs."""

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, Final

import grpc
from google.protobuf.message import Message
from grpc import aio

from api.access import Action, Principal
from api.grpc.handlers import Context, Continuation, Handler, Method, around, is_stream
from api.grpc.requests import check_text
from api.keys import ApiKeys
from api.staff.acts import REFUSALS, Acts, subject_of
from kernel.errors import Forbidden, Unauthenticated, Unavailable

KEPT_SECONDS: Final = 5.0
"""How long a key that was looked up is believed: a revoked one works for so long at most."""

ACTIONS: Final[Mapping[str, Action]] = {
    "/mallbots.orders.v1.Orders/GetOrder": "orders.read",
    "/mallbots.orders.v1.Orders/FindOrders": "orders.read",
    "/mallbots.orders.v1.Orders/GetSaga": "orders.read",
    "/mallbots.orders.v1.Orders/HandOver": "orders.hand_over",
    "/mallbots.orders.v1.Orders/CancelOrder": "orders.cancel",
    "/mallbots.orders.v1.Orders/RefundOrder": "orders.refund",
    "/mallbots.stores.v1.Stores/ListStores": "stores.read",
    "/mallbots.stores.v1.Stores/UpdateStore": "stores.change",
    "/mallbots.stores.v1.Stores/GetProduct": "stores.read",
    "/mallbots.stores.v1.Stores/ListProducts": "stores.read",
    "/mallbots.stores.v1.Stores/UpdateProduct": "stores.change",
    "/mallbots.stores.v1.Stores/RemoveProduct": "stores.change",
    "/mallbots.stores.v1.Stores/ReceiveStock": "stock.change",
    "/mallbots.stores.v1.Stores/CorrectStock": "stock.change",
    "/mallbots.payments.v1.Payments/GetPayment": "orders.read",
    "/mallbots.depot.v1.Depot/GetList": "robots.read",
    "/mallbots.depot.v1.Depot/ListLists": "robots.read",
    "/mallbots.depot.v1.Depot/ListRobots": "robots.read",
    "/mallbots.depot.v1.Depot/RetireRobot": "robots.command",
    "/mallbots.depot.v1.Depot/ConfirmReturn": "stock.change",
    "/mallbots.automation.v1.Automation/Work": "lists.carry",
}
"""What it takes to call each method; one that is not here nobody may call."""

_MOST_KEPT: Final = 10_000
_SCHEME: Final = "bearer"

_caller: ContextVar[str] = ContextVar("caller")


def caller() -> str:
    """The holder of the key that the method being run was called with: the service, or the robot."""
    return _caller.get()


class Keyring:
    """The keys of one gateway, remembered for a while: hundreds of robots that come back at once, and hundreds of
    streams, ask the database little."""

    def __init__(self, keys: ApiKeys, kept_seconds: float = KEPT_SECONDS) -> None:
        self._keys = keys
        self._kept_seconds = kept_seconds
        self._known: dict[str, tuple[float, Principal]] = {}
        self._streams: dict[asyncio.Timeout, str] = {}

    async def principal_of(self, key: str) -> Principal:
        """Whom a key was given to, and what they may do. Raises `Unauthenticated`, and `Unavailable` if that can
        not be known."""
        until, known = self._known.get(key, (0.0, None))
        if known is not None and time.monotonic() < until:
            return known
        self._known.pop(key, None)
        found = await self._keys.principal_of(key)
        if len(self._known) >= _MOST_KEPT:
            self._known.clear()
        self._known[key] = time.monotonic() + self._kept_seconds, found
        return found

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
    """Lets in who has a key of the service's keyring and a role that may do what the method does, and everybody to
    the `open_to_all` services. What is refused to somebody is noted in the log of acts."""

    def __init__(self, keyrings: Mapping[str, Keyring], open_to_all: Collection[str], acts: Acts) -> None:
        self._keyrings = keyrings
        self._open_to_all = open_to_all
        self._acts = acts

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> "Handler | None":
        handler = await continuation(handler_call_details)
        name = handler_call_details.method
        service = name.rpartition("/")[0].removeprefix("/")
        if handler is None or service in self._open_to_all:
            return handler
        keyring, action, lasts = self._keyrings.get(service), ACTIONS.get(name), is_stream(handler)

        def wrap(method: Method) -> Method:
            async def let_in(request: Any, context: Context) -> Any:
                if keyring is None or action is None:
                    raise Forbidden(f"{name} is open to nobody")
                key = _key(context)
                try:
                    who = await keyring.principal_of(key)
                except Unauthenticated:
                    await self._acts.note_stranger(service, context.peer())
                    raise
                _caller.set(who.name)
                try:
                    who.check(action)
                    if isinstance(request, Message):
                        check_text(request)
                    if not lasts:
                        return await method(request, context)
                    async with keyring.stream(key):
                        return await method(request, context)
                except REFUSALS as refusal:
                    await self._acts.note(who.name, action, _subject(request), refusal.message, "refused")
                    raise

            return let_in

        return around(handler, wrap)


def _subject(request: Any) -> str | None:
    if not isinstance(request, Message):
        return None
    return subject_of({field.name: value for field, value in request.ListFields()})


def _key(context: Context) -> str:
    metadata = context.invocation_metadata() or ()
    sent = next((str(value) for name, value in metadata if name == "authorization"), "")
    scheme, _, key = sent.partition(" ")
    if scheme.lower() != _SCHEME or not key.strip():
        raise Unauthenticated("send your key as the metadata `authorization: Bearer KEY`")
    return key.strip()

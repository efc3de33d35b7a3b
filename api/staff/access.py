"""Who may come in to the staff gateway, and what for."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any, Protocol
from urllib.parse import quote

from fastapi import Depends, HTTPException, Request
from fastapi.security import APIKeyCookie, HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import HTTPConnection

from api.access import Action, Principal
from api.credentials import SESSION, bearer_key, check_origin, read_cookie
from api.endpoints import ServicesDependency
from api.keys import ApiKeys
from api.staff.accounts import Accounts
from api.staff.acts import REFUSALS, Acts, subject_of
from api.staff.remembered import Remembered
from kernel.errors import Forbidden, Unauthenticated
from mallbots.settings import Settings

_bearer = HTTPBearer(
    auto_error=False,
    scheme_name="ServiceKey",
    description="The key of a service; `mallbots keys create NAME --service` makes one.",
)
_cookie = APIKeyCookie(
    name=SESSION,
    auto_error=False,
    scheme_name="StaffSession",
    description="A member of staff who has signed in at `/sign-in`; behind TLS its name has `__Host-` before it. "
    "What changes something needs `Origin` (or `Sec-Fetch-Site`), as browsers send it.",
)


class Doorkeeper(Protocol):
    """What it takes to know who comes in."""

    settings: Settings
    service_keys: ApiKeys
    known_services: Remembered
    accounts: Accounts
    acts: Acts


async def whoever_asks(
    connection: HTTPConnection, found: Doorkeeper, *, to_follow: bool = False, trusted: str | None = None
) -> Principal:
    """The service whose key came, else whoever signed in. Raises `Unauthenticated`, and `Forbidden` for what comes
    with a session but from another site, which is noted. Hundreds may come at once `to_follow` events: of them, a
    key that was looked up a moment ago is believed. A session may come from pages of the origin `trusted`, too."""
    key = bearer_key(connection)
    if key is not None:
        keys = found.known_services if to_follow else found.service_keys
        return await whose(key, keys.principal_of, "the gateway of staff", connection, found)
    session = read_cookie(connection, found.settings, SESSION)
    if session is None:
        raise Unauthenticated("sign in at /sign-in, or send a service's key as `Authorization: Bearer KEY`")
    who = await found.accounts.sessions.principal(session, again=to_follow)
    try:
        check_origin(connection, found.settings, trusted=trusted)
    except Forbidden as refusal:
        await found.acts.note(who.name, "come from another site", None, refusal.message, "refused")
        raise
    return who


async def whose(
    key: str,
    principal_of: Callable[[str], Awaitable[Principal]],
    gateway: str,
    connection: HTTPConnection,
    found: Doorkeeper,
) -> Principal:
    """Whom a key is of that came to this gateway. Raises `Unauthenticated`, which is noted."""
    try:
        return await principal_of(key)
    except Unauthenticated:
        await found.acts.note_stranger(gateway, connection.client.host if connection.client else None)
        raise


async def principal(
    request: Request,
    found: ServicesDependency,
    _key: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    _session: Annotated[str | None, Depends(_cookie)],
) -> Principal:
    """Who asks. Raises `Unauthenticated`, `Forbidden`."""
    return await whoever_asks(request, found)


async def visitor(request: Request, found: ServicesDependency) -> Principal:
    """Who opens a page; a stranger is led to the sign-in page, and from there back."""
    try:
        return await whoever_asks(request, found)
    except Unauthenticated:
        raise sign_in_first(request) from None


def sign_in_first(request: Request) -> HTTPException:
    """Leads to the sign-in page, which leads back."""
    there = f"{request.url.path}?{request.url.query}" if request.url.query else request.url.path
    return HTTPException(303, "sign in", {"Location": f"/sign-in?next={quote(there)}"})


Visitor = Annotated[Principal, Depends(visitor)]


class Guard:
    """Lets in who may do `action`; gives their name. What is refused then is noted in the log of acts, by
    whichever rule: a role that may not, or an order that is not ready."""

    def __init__(self, action: Action) -> None:
        self.action = action

    async def __call__(
        self, request: Request, found: ServicesDependency, who: Annotated[Principal, Depends(principal)]
    ) -> AsyncIterator[str]:
        """The name of who asks. Raises `Unauthenticated`, `Forbidden`."""
        try:
            who.check(self.action)
            yield who.name
        except REFUSALS as refusal:
            subject = subject_of(request.path_params)
            await found.acts.note(who.name, self.action, subject, refusal.message, "refused")
            raise


def may(action: Action) -> Any:
    """The dependency of an endpoint that does `action`: `staff: Annotated[str, may("orders.read")]` is the name of
    whoever asks, once it is certain that they may."""
    return Depends(Guard(action))

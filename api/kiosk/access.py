"""Who may come in to the kiosk gateway: a kiosk by its key, or a browser that was made a kiosk."""

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import APIKeyCookie, HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import HTTPConnection

from api.access import Action, Principal
from api.credentials import KIOSK, bearer_key, check_origin, read_cookie
from api.endpoints import ServicesDependency
from api.services import Services
from api.staff.access import whose
from kernel.errors import Forbidden, Unauthenticated

_bearer = HTTPBearer(
    auto_error=False,
    scheme_name="KioskKey",
    description="The kiosk's API key; `mallbots keys create KIOSK` makes one.",
)
_cookie = APIKeyCookie(
    name=KIOSK,
    auto_error=False,
    scheme_name="KioskPage",
    description="A browser that was made a kiosk at `/sign-in`; behind TLS its name has `__Host-` before it. "
    "What changes something needs `Origin` (or `Sec-Fetch-Site`), as browsers send it.",
)


async def kiosk_that_asks(connection: HTTPConnection, found: Services) -> Principal:
    """The kiosk whose key came, else the one that the browser is. Raises `Unauthenticated`, and `Forbidden` for
    what comes from another site's page, which is noted."""
    key = bearer_key(connection)
    if key is not None:
        return await whose(key, found.kiosk_keys.principal_of, "the gateway of kiosks", connection, found)
    key = read_cookie(connection, found.settings, KIOSK)
    if key is None:
        raise Unauthenticated("send your kiosk's key as `Authorization: Bearer KEY`, or make this browser a kiosk")
    who = await whose(key, found.kiosk_keys.principal_of, "the gateway of kiosks", connection, found)
    try:
        check_origin(connection, found.settings)
    except Forbidden as refusal:
        await found.acts.note(who.name, "come from another site", None, refusal.message, "refused")
        raise
    return who


class KioskGuard:
    """Lets in the kiosks, as far as they may do `action`; gives their name."""

    def __init__(self, action: Action) -> None:
        self.action = action

    async def __call__(
        self,
        request: Request,
        found: ServicesDependency,
        _key: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
        _page: Annotated[str | None, Depends(_cookie)],
    ) -> str:
        """The name of the kiosk that asks. Raises `Unauthenticated`, `Forbidden`."""
        who = await kiosk_that_asks(request, found)
        who.check(self.action)
        return who.name


KioskThatReads = Annotated[str, Depends(KioskGuard("catalog.read"))]
KioskThatOrders = Annotated[str, Depends(KioskGuard("orders.place"))]

"""The addresses of pages and of what they need."""

from typing import Annotated, Final

from fastapi import APIRouter, Depends, HTTPException, Request, Response

from api.access import Principal
from api.endpoints import ServicesDependency
from api.kiosk.access import kiosk_that_asks
from api.services import Services
from api.staff.access import Visitor, sign_in_first, whoever_asks
from api.web.pages import STAFF_PAGES, Page, asset, render
from kernel.errors import Unauthenticated

_FOR_ALL: Final = (".css", ".svg")
_KIOSK_PAGE: Final = Page("/kiosk", "kiosk", "Kiosk", "orders.place")

router = APIRouter(include_in_schema=False, redirect_slashes=False)


@router.get("/assets/{version}/{name}")
async def get_asset(mall: ServicesDependency, request: Request, version: str, name: str) -> Response:
    """A style sheet or picture, for everybody: the sign-in page needs some. A module, for who is known."""
    for_all = name.endswith(_FOR_ALL)
    if not for_all:
        await _somebody(request, mall)
    found = asset(name)
    if found is None:
        raise HTTPException(404, "there is no such file")
    if not for_all:
        found.headers["Cache-Control"] = found.headers["Cache-Control"].replace("public", "private")
    return found


async def _somebody(request: Request, mall: Services) -> None:
    """Raises `Unauthenticated` for who is neither staff, nor a service, nor a kiosk."""
    try:
        await whoever_asks(request, mall)
    except Unauthenticated:
        await kiosk_that_asks(request, mall)


async def _visiting_kiosk(request: Request, mall: ServicesDependency) -> str:
    try:
        return (await kiosk_that_asks(request, mall)).name
    except Unauthenticated:
        raise sign_in_first(request) from None


@router.get("/kiosk")
async def get_kiosk(mall: ServicesDependency, kiosk: Annotated[str, Depends(_visiting_kiosk)]) -> Response:
    """What customers see at a kiosk."""
    return render(
        "kiosk.html",
        mall,
        Principal(kiosk, "kiosk", frozenset({"kiosk"})),
        page=_KIOSK_PAGE,
        idle_seconds=mall.settings.kiosk_idle_seconds,
        sandbox=mall.settings.payment_provider == "sandbox",
    )


def _add(page: Page) -> None:
    async def show(mall: ServicesDependency, who: Visitor) -> Response:
        if not who.may(page.action):
            await mall.acts.note(who.name, page.action, None, f"the page {page.title}", "refused")
            return render("forbidden.html", mall, who, 403, page=page)
        return render(f"staff/{page.name}.html", mall, who, page=page)

    router.get(page.path, name=page.name)(show)


for _page in STAFF_PAGES:
    _add(_page)

"""The page of one's own account."""

from http import HTTPStatus
from typing import Annotated, Final

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse

from api.access import STAFF_ROLES, Principal
from api.endpoints import ServicesDependency
from api.services import Services
from api.staff.access import Visitor
from api.staff.accounts import SHORTEST_PASSWORD
from api.staff.accounts_routes import Owner, change_own_password, sign_out_everywhere
from api.web.forms import page_with_form
from api.web.pages import Page
from kernel.errors import Conflict, InvalidInput, MallError, TooManyAttempts

_PAGE: Final = Page("/staff/me", "me", "My account", "orders.read", in_navigation=False)

router = APIRouter(prefix="/staff/me", include_in_schema=False, redirect_slashes=False)


@router.get("")
async def get_me(mall: ServicesDependency, who: Visitor, changed: bool = False) -> Response:
    """Who somebody is, and what they can do about it."""
    return await _page(mall, who, done="Your password is changed." if changed else "")


@router.post("/password")
async def change_password(
    mall: ServicesDependency,
    request: Request,
    who: Owner,
    old: Annotated[str, Form()] = "",
    new: Annotated[str, Form()] = "",
) -> Response:
    """Changes the password, or shows the page again with what is wrong."""
    try:
        await change_own_password(mall, request, who, old, new)
    except (Conflict, InvalidInput, TooManyAttempts) as error:
        return await _page(mall, who, error)
    return RedirectResponse("/staff/me?changed=true", HTTPStatus.SEE_OTHER)


@router.post("/sign-out-everywhere")
async def leave_everywhere(mall: ServicesDependency, who: Owner) -> Response:
    """Ends every session of the account, this one too."""
    response = RedirectResponse("/sign-in", HTTPStatus.SEE_OTHER)
    await sign_out_everywhere(mall, who, response)
    return response


async def _page(mall: Services, who: Principal, error: MallError | None = None, *, done: str = "") -> Response:
    return page_with_form(
        "staff/me.html",
        mall,
        who,
        error,
        page=_PAGE,
        account=await mall.accounts.account(who.name) if who.kind == "account" else None,
        roles=[role for role in STAFF_ROLES if role in who.roles],
        shortest=SHORTEST_PASSWORD,
        done=done,
    )

"""Coming in and going out: the pages by which people sign in and out, and by which a browser becomes a kiosk."""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from http import HTTPStatus
from typing import Annotated, Final

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse

from api.credentials import ATTEMPT, KIOSK, SESSION, check_origin, drop_cookie, read_cookie, set_cookie
from api.endpoints import ServicesDependency
from api.keys import NAME
from api.services import Services
from api.staff.provider import RETURN_PATH, Attempt, Provider
from api.web.forms import page_with_form
from kernel.errors import (
    Forbidden,
    InvalidInput,
    MallError,
    NotFound,
    TooManyAttempts,
    Unauthenticated,
    Unavailable,
)

HOME: Final = "/staff"
KIOSK_HOME: Final = "/kiosk"

_KIOSK_DAYS: Final = 400
_ATTEMPT_SECONDS: Final = 600
_SEE_OTHER: Final = HTTPStatus.SEE_OTHER

router = APIRouter(include_in_schema=False, redirect_slashes=False)


@router.get("/sign-in")
async def get_sign_in(mall: ServicesDependency, request: Request, next: str = HOME) -> Response:
    """The sign-in page; `next` is where it leads to."""
    # Whoever is led here by the kiosk page needs a kiosk's key, and no session.
    if not _is_for_kiosk(next) and await _has_session(request, mall):
        return RedirectResponse(local_path(next), _SEE_OTHER)
    return _page(mall, next)


@router.post("/sign-in")
async def sign_in(
    mall: ServicesDependency,
    request: Request,
    name: Annotated[str, Form()] = "",
    password: Annotated[str, Form()] = "",
    next: Annotated[str, Form()] = HOME,
) -> Response:
    """Begins a session, or shows the form again with what is wrong."""
    await _check_origin(request, mall)
    name = name.strip()
    address = request.client.host if request.client else None
    said = name if re.fullmatch(NAME, name) else "stranger"
    try:
        token = await mall.accounts.sign_in(name, password, address)
    except TooManyAttempts as error:
        await mall.acts.note_stranger("the sign-in page", address, "passwords while it was shut")
        return _page(mall, next, error, name=name)
    except Unauthenticated as error:
        await mall.acts.note(said, "sign in", f"account-{said}", f"{error.message} ({address})", "refused")
        return _page(mall, next, error, name=name)
    who = await mall.accounts.sessions.principal(token)
    await mall.acts.note(who.name, "sign in", f"account-{who.name}", f"from {address}")
    await _end(request, mall)
    response = RedirectResponse(HOME if _is_for_kiosk(next) else local_path(next), _SEE_OTHER)
    set_cookie(response, mall.settings, SESSION, token)
    return response


@router.post("/sign-out")
async def sign_out(mall: ServicesDependency, request: Request) -> Response:
    """Ends the session, if there is one."""
    await _check_origin(request, mall)
    account = await _end(request, mall)
    if account is not None:
        await mall.acts.note(account, "sign out", f"account-{account}")
    response = RedirectResponse("/sign-in", _SEE_OTHER)
    drop_cookie(response, mall.settings, SESSION)
    return response


@router.get("/sign-in/provider")
async def ask_provider(mall: ServicesDependency, next: str = HOME) -> Response:
    """Sends the browser to the OpenID Connect provider."""
    try:
        url, attempt = await _provider(mall).begin(local_path(next))
    except Unavailable as error:
        return _page(mall, next, error)
    response = RedirectResponse(url, _SEE_OTHER)
    kept = urlsafe_b64encode(attempt.model_dump_json().encode()).decode()
    set_cookie(response, mall.settings, ATTEMPT, kept, max_age=_ATTEMPT_SECONDS)
    return response


@router.get(RETURN_PATH)
async def sign_in_by_provider(
    mall: ServicesDependency, request: Request, state: str = "", code: str = "", error: str = ""
) -> Response:
    """Begins a session for whom the provider vouches for, or shows the sign-in page with what is wrong."""
    provider, attempt = _provider(mall), _attempt(request, mall)
    said = "stranger"
    try:
        if attempt is None:
            raise Unauthenticated("the sign-in took too long, or began in another browser: try again")
        person = await provider.finish(attempt, state, code, error)
        said = person.name
        token = await mall.accounts.sign_in_by_provider(person.issuer, person.subject, person.name, person.roles)
    except (Unauthenticated, Forbidden, InvalidInput, Unavailable) as refusal:
        if attempt is None:
            await mall.acts.note_stranger("the return from the provider", None, "answers that nobody waits for")
        else:
            await mall.acts.note(
                said, "sign in", f"account-{said}", f"by a provider: {refusal.message}", "refused"
            )
        response = _page(mall, attempt.next if attempt else HOME, refusal)
    else:
        who = await mall.accounts.sessions.principal(token)
        roles = ", ".join(sorted(who.roles))
        await mall.acts.note(who.name, "sign in", f"account-{who.name}", f"by {person.issuer}, as {roles}")
        await _end(request, mall)
        response = RedirectResponse(HOME if _is_for_kiosk(attempt.next) else local_path(attempt.next), _SEE_OTHER)
        set_cookie(response, mall.settings, SESSION, token)
    drop_cookie(response, mall.settings, ATTEMPT)
    return response


@router.post("/sign-in/kiosk")
async def become_kiosk(mall: ServicesDependency, request: Request, key: Annotated[str, Form()] = "") -> Response:
    """Makes this browser a kiosk, by the key of one."""
    await _check_origin(request, mall)
    try:
        kiosk = await mall.kiosk_keys.holder_of(key.strip())
    except Unauthenticated as error:
        await mall.acts.note_stranger("the sign-in of kiosks", request.client.host if request.client else None)
        return _page(mall, KIOSK_HOME, error, at="kiosk")
    # From now on customers use this browser.
    account = await _end(request, mall)
    await mall.acts.note(kiosk, "become kiosk", f"kiosk-{kiosk}", f"{account} was signed out" if account else "")
    response = RedirectResponse(KIOSK_HOME, _SEE_OTHER)
    set_cookie(response, mall.settings, KIOSK, key.strip(), same_site="strict", max_age=_KIOSK_DAYS * 24 * 60 * 60)
    return response


async def _check_origin(request: Request, mall: Services) -> None:
    """Raises `Forbidden` for a form of another site's page, and notes it."""
    try:
        check_origin(request, mall.settings)
    except Forbidden:
        address = request.client.host if request.client else None
        await mall.acts.note_stranger("the forms of the sign-in page", address, "requests of other sites' pages")
        raise


def local_path(next_path: str) -> str:
    """Where to go after signing in: `next_path` if it is a path of ours, else the board."""
    is_ours = re.fullmatch(r"/(?![/\\])[\x21-\x5b\x5d-\x7e]*", next_path)
    return next_path if is_ours else HOME


def _provider(mall: Services) -> Provider:
    if mall.provider is None:
        raise NotFound("nobody signs in by a provider here")
    return mall.provider


def _attempt(request: Request, mall: Services) -> Attempt | None:
    """The sign-in that this browser began at the provider."""
    kept = read_cookie(request, mall.settings, ATTEMPT)
    try:
        return Attempt.model_validate_json(urlsafe_b64decode(kept.encode())) if kept else None
    except ValueError:
        return None


def _page(
    mall: Services, next_path: str, error: MallError | None = None, *, name: str = "", at: str = "account"
) -> Response:
    there = local_path(next_path)
    return page_with_form(
        "sign-in.html",
        mall,
        None,
        error,
        name=name,
        next=there,
        at=at,
        for_kiosk=_is_for_kiosk(there),
        provider=mall.settings.oidc_label if mall.provider else "",
    )


def _is_for_kiosk(path: str) -> bool:
    return path.split("?", maxsplit=1)[0] == KIOSK_HOME


async def _has_session(request: Request, mall: Services) -> bool:
    token = read_cookie(request, mall.settings, SESSION)
    try:
        return token is not None and bool(await mall.accounts.sessions.principal(token))
    except Unauthenticated:
        return False


async def _end(request: Request, mall: Services) -> str | None:
    """End the session that a request came with; whose it was."""
    token = read_cookie(request, mall.settings, SESSION)
    return await mall.accounts.sign_out(token) if token is not None else None

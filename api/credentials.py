"""What a caller shows: a key, or the cookie of a person or of a kiosk page, sent by one of our own pages."""

from typing import Final, Literal
from urllib.parse import urlsplit

from fastapi import Response
from fastapi.security.utils import get_authorization_scheme_param
from starlette.requests import HTTPConnection

from kernel.errors import Forbidden
from mallbots.settings import Settings

SESSION: Final = "mallbots_session"
"""The cookie of a signed-in member of staff; behind TLS its name has `__Host-` before it, as that of a kiosk."""
KIOSK: Final = "mallbots_kiosk"
"""The cookie of a browser that is a kiosk: the kiosk's key."""
ATTEMPT: Final = "mallbots_sign_in"
"""The cookie of a browser that is on its way to the OpenID Connect provider and back."""

_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


def bearer_key(connection: HTTPConnection) -> str | None:
    """The key of `Authorization: Bearer KEY`, if one came."""
    scheme, key = get_authorization_scheme_param(connection.headers.get("Authorization"))
    return key if scheme.lower() == "bearer" and key else None


def cookie_name(settings: Settings, name: str) -> str:
    """What a cookie is called here. Whether the API is reached by TLS is a setting: headers can be forged."""
    return f"__Host-{name}" if _is_tls(settings) else name


def read_cookie(connection: HTTPConnection, settings: Settings, name: str) -> str | None:
    """The value of one of our cookies, if it came."""
    return connection.cookies.get(cookie_name(settings, name))


def set_cookie(
    response: Response,
    settings: Settings,
    name: str,
    value: str,
    *,
    same_site: Literal["lax", "strict"] = "lax",
    max_age: int | None = None,
) -> None:
    """Give the browser a cookie that no script reads, for `max_age` seconds or until it is closed."""
    response.set_cookie(
        cookie_name(settings, name),
        value,
        max_age=max_age,
        path="/",
        secure=_is_tls(settings),
        httponly=True,
        samesite=same_site,
    )


def drop_cookie(response: Response, settings: Settings, name: str) -> None:
    """Take a cookie from the browser."""
    response.delete_cookie(cookie_name(settings, name), path="/", secure=_is_tls(settings), httponly=True)


def check_origin(connection: HTTPConnection, settings: Settings, *, trusted: str | None = None) -> None:
    """Raise `Forbidden` for what may come from another site's page: whatever changes something, and a WebSocket.
    Pages of the origin that is `trusted`, if one is, count as ours.

    To be asked for each request that only a cookie authorizes: browsers send that with the requests of others,
    too, but say whose they are.
    """
    if connection.scope["type"] == "http" and connection.scope["method"] in _READS:
        return
    origin = connection.headers.get("Origin")
    if origin is None:
        is_ours = connection.headers.get("Sec-Fetch-Site") == "same-origin"
    else:
        try:
            said = urlsplit(origin)
        except ValueError:
            raise Forbidden("this request does not come from a page of this mall") from None
        hosts = {urlsplit(settings.api_url).netloc, connection.headers.get("Host")}
        schemes = ("https",) if _is_tls(settings) else ("http", "https")
        is_ours = origin == trusted or (said.netloc in hosts and said.scheme in schemes)
    if not is_ours:
        raise Forbidden("this request does not come from a page of this mall")


def _is_tls(settings: Settings) -> bool:
    return settings.api_url.startswith("https://")

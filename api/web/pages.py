"""How a page is made: a template around what an ES module shows, with headers that let nothing else run.

A page has no data of its own. Its module asks the REST API for it, as any other client does."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fastapi import Response
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from api.access import ACTIONS, Action, Principal
from api.services import Services

HERE: Final = Path(__file__).parent
ASSETS: Final = HERE / "assets"
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "font-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS: Final = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}

_VERSION: Final = hashlib.sha256(
    b"".join(file.read_bytes() for file in sorted(ASSETS.iterdir()) if file.is_file())
).hexdigest()[:12]
_LONGEST_NAME: Final = 100
_TYPES: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_templates = Environment(
    loader=FileSystemLoader(HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True)
class Page:
    """A page of the staff app: `name` is its template's and its module's; one without a `title` in the navigation
    is reached by links of others."""

    path: str
    name: str
    title: str
    action: Action
    in_navigation: bool = True


STAFF_PAGES: Final = (
    Page("/staff", "board", "Board", "orders.read"),
    Page("/staff/desk", "desk", "Desk", "orders.hand_over"),
    Page("/staff/orders", "orders", "Orders", "orders.read"),
    Page("/staff/orders/{order_id}", "order", "Order", "orders.read", in_navigation=False),
    Page("/staff/stores", "stores", "Stores", "stores.read"),
    Page("/staff/products", "products", "Products", "stores.read"),
    Page("/staff/manage/{resource}", "manage", "Manage", "stores.read", in_navigation=False),
    Page("/staff/import", "import", "Import", "catalog.import"),
    Page("/staff/robots", "robots", "Robots", "robots.read"),
    Page("/staff/today", "today", "Today", "analytics.read"),
    Page("/staff/stuck", "stuck", "Stuck", "stuck.read"),
    Page("/staff/access", "access", "Access", "access.manage"),
    Page("/staff/acts", "acts", "Acts", "acts.read"),
)


def render(template: str, mall: Services, who: Principal | None, status: int = 200, **values: Any) -> HTMLResponse:
    """A page from a template, for `who` or for a stranger. `values` are the template's own."""
    is_staff = who is not None and who.kind in ("account", "service")
    context = {
        "who": who,
        "actions": [action for action in ACTIONS if who and who.may(action)],
        "navigation": [page for page in STAFF_PAGES if page.in_navigation and who and who.may(page.action)],
        "version": _VERSION,
        "currency": mall.currency,
        "temporal_ui": mall.settings.temporal_ui_url if is_staff else "",
        "temporal_namespace": mall.settings.temporal_namespace if is_staff else "",
        "sandbox": mall.settings.payment_provider == "sandbox",
        **values,
    }
    return HTMLResponse(_templates.get_template(template).render(context), status, HEADERS)


def asset(name: str) -> Response | None:
    """A file that pages need, or None if there is none of this name. Its address changes with every version."""
    file = ASSETS / name
    if len(name) > _LONGEST_NAME or file.parent != ASSETS or not file.is_file():
        return None
    headers = {"Cache-Control": "public, max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"}
    return Response(file.read_bytes(), 200, headers, _TYPES[file.suffix])

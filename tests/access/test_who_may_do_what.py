"""Who may do what, as a table, and that every way in holds to it: REST, pages, WebSockets. gRPC is looked at in
tests/grpc/test_access.py."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, APIWebSocketRoute, iter_route_contexts

from api.access import ACTIONS, ALLOWED, Action, Principal, Role
from api.app import create_app
from api.closing import CloseCode
from api.kiosk.access import KioskGuard
from api.staff.access import Guard
from api.web.pages import STAFF_PAGES
from mallbots.settings import Settings
from tests.test_kiosk_api_rules import NOWHERE, FakeActs

# Whoever changes api/access.py says so here.
TABLE = """
                     kiosk   robot   desk    store   manager operator
catalog.read         may     -       -       -       -       -
orders.place         may     -       -       -       -       -
lists.carry          -       may     -       -       -       -
orders.read          -       -       may     may     may     may
orders.hand_over     -       -       may     -       may     -
orders.cancel        -       -       may     -       may     may
orders.refund        -       -       -       -       may     -
orders.notify        -       -       may     -       may     -
trail.read           -       -       may     may     may     may
events.follow        -       -       may     may     may     may
stores.read          -       -       may     may     may     may
stores.change        -       -       -       may     may     -
stock.change         -       -       -       may     may     -
catalog.import       -       -       -       -       may     -
robots.read          -       -       may     may     may     may
robots.command       -       -       -       -       may     may
analytics.read       -       -       -       -       may     may
stuck.read           -       -       -       -       may     may
stuck.mend           -       -       -       -       -       may
access.manage        -       -       -       -       may     -
acts.read            -       -       -       -       may     may
payloads.read        -       -       -       -       -       may
"""
ROLES, *LINES = (line.split() for line in TABLE.strip().splitlines())
EXPECTED = {
    (role, action): says == "may" for action, *cells in LINES for role, says in zip(ROLES, cells, strict=True)
}

OPEN_TO_STRANGERS = {
    "/healthz",
    "/healthz/ready",
    "/openapi.json",
    "/docs",
    "/sign-in",
    "/sign-in/kiosk",
    "/sign-in/provider",
    "/sign-in/provider/return",
    "/sign-out",
    "/v1/webhooks/stripe",
    # The style sheet and the modules of the pages that strangers see; others are for who may come in.
    "/assets/{version}/{name}",
}
ABOUT_ONESELF = ("/v1/staff/me", "/staff/me")


class KeysByRole:
    """The key `key-of-<role>` lets in somebody with that role alone."""

    async def principal_of(self, key: str) -> Principal:
        role: Any = key.removeprefix("key-of-")
        return Principal(f"the {role}", "service", frozenset({role}))


@dataclass(frozen=True)
class Door:
    """A request that a route answers, and what it takes."""

    method: str
    path: str
    action: Action | None


def guards(dependant: Dependant) -> Iterator[Guard | KioskGuard]:
    if isinstance(dependant.call, Guard | KioskGuard):
        yield dependant.call
    for needed in dependant.dependencies:
        yield from guards(needed)


def doors(app: FastAPI) -> list[Door]:
    """Every request of the application, with the action of its guard."""
    found = []
    for route in iter_route_contexts(app.routes):
        if isinstance(route.original_route, APIRoute):
            actions = {guard.action for guard in guards(route.dependant)}
            assert len(actions) <= 1, f"{route.path_format} has several guards"
            found += [
                Door(method, str(route.path_format), next(iter(actions), None)) for method in route.methods or ()
            ]
    return found


async def close_code(app: FastAPI, path: str, key: str) -> int:
    """How a WebSocket is closed that somebody opens with this key."""
    coming = asyncio.Queue[dict[str, Any]]()
    coming.put_nowait({"type": "websocket.connect"})
    sent = []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    headers = [(b"host", b"mall"), (b"authorization", f"Bearer {key}".encode())]
    scope = {"type": "websocket", "path": path, "raw_path": path.encode(), "query_string": b"", "headers": headers}
    await app(scope, coming.get, send)
    code: int = sent[-1]["code"]
    return code


def filled(path: str) -> str:
    """An address of this form."""
    path = re.sub(r"\{(order|store|notification)_id\}", "01a1f2c4-5b7e-7d30-9a41-6c2f80e1b355", path)
    return re.sub(r"\{\w+\}", "service", path)


@pytest.fixture(scope="module")
async def app() -> AsyncIterator[FastAPI]:
    """The whole API, whose databases are away: what somebody may do ends there, what they may not before."""
    app = create_app(Settings.model_validate(NOWHERE | {"temporal_address": "127.0.0.1:1"}))
    mall = app.state.services
    mall.service_keys = mall.known_services = mall.kiosk_keys = KeysByRole()
    mall.acts = FakeActs()
    yield app
    await mall.close()


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://mall") as client:
        yield client


def test_the_table_is_what_people_agreed_on() -> None:
    assert {(role, action): action in ALLOWED[role] for role in ALLOWED for action in ACTIONS} == EXPECTED


def test_whoever_has_several_roles_may_do_what_any_of_them_may() -> None:
    both = Principal("bea", "account", frozenset({"desk", "store"}))
    assert both.may("orders.hand_over")
    assert both.may("stock.change")
    assert not both.may("orders.refund")
    assert not Principal("nobody", "account", frozenset()).may("orders.read")


@pytest.mark.parametrize("role", ROLES)
async def test_each_role_is_refused_exactly_what_the_table_says(
    app: FastAPI, client: httpx.AsyncClient, role: Role
) -> None:
    client.headers["Authorization"] = f"Bearer key-of-{role}"
    wrong = []
    for door in doors(app):
        if door.action is None:
            continue
        app.state.services.acts.noted.clear()
        response = await client.request(door.method, filled(door.path), json={})
        may = EXPECTED[role, door.action]
        refused = response.status_code == 403
        if response.status_code == 401 or refused == may:
            wrong.append((door, response.status_code))
        if not may and door.path.startswith("/v1/staff"):
            noted = [(act["by"], act["act"], act["outcome"]) for act in app.state.services.acts.noted]
            assert noted == [(f"the {role}", door.action, "refused")]
    assert wrong == []


@pytest.mark.parametrize("role", ["desk", "store", "manager", "operator"])
async def test_each_role_sees_the_pages_that_the_table_says(client: httpx.AsyncClient, role: Role) -> None:
    client.headers["Authorization"] = f"Bearer key-of-{role}"
    seen = {page.path: (await client.get(filled(page.path))).status_code for page in STAFF_PAGES}
    assert seen == {page.path: 200 if EXPECTED[role, page.action] else 403 for page in STAFF_PAGES}


@pytest.mark.parametrize("role", ["kiosk", "desk", "store", "manager", "operator"])
async def test_each_role_follows_the_events_that_the_table_says(app: FastAPI, role: Role) -> None:
    paths = [
        route.path_format
        for route in iter_route_contexts(app.routes)
        if isinstance(route.original_route, APIWebSocketRoute)
    ]
    assert paths == ["/v1/staff/events"]
    # NATS is away here.
    expected = CloseCode.TRY_AGAIN_LATER if EXPECTED[role, "events.follow"] else CloseCode.FORBIDDEN
    assert await close_code(app, "/v1/staff/events", f"key-of-{role}") == expected


def test_every_way_in_has_a_guard(app: FastAPI) -> None:
    pages = {page.path for page in STAFF_PAGES} | {"/kiosk"}
    without = {door.path for door in doors(app) if door.action is None}
    assert {path for path in without if not path.startswith(ABOUT_ONESELF)} <= pages | OPEN_TO_STRANGERS


async def test_a_stranger_is_told_nothing(app: FastAPI, client: httpx.AsyncClient) -> None:
    for door in doors(app):
        if door.path not in OPEN_TO_STRANGERS:
            response = await client.request(door.method, filled(door.path), json={})
            led_to_sign_in = response.headers.get("Location", "").startswith("/sign-in?")
            assert response.status_code == 401 or led_to_sign_in, (door, response.status_code)

"""The kiosk API by itself: what it lets in, how it answers, and which problem each error becomes."""

import json
import logging
import re
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any, Literal
from uuid import UUID

import httpx
import pytest
import segno
from fastapi import FastAPI
from pydantic import BaseModel, SecretStr

from api.access import STAFF_ROLES, Principal, Role
from api.app import create_app
from api.kiosk.idempotency import Claim
from api.problems import CODES, LARGEST_BODY
from domains.orders.messages import NamedLine, OrderAnswer, OrderStatus, OrderView
from domains.stores.messages import ProductView, StoreView
from kernel.errors import (
    IdempotencyKeyReused,
    Misconfigured,
    NotFound,
    Refusal,
    RefusedLine,
    ShoppingBegan,
    Unauthenticated,
    Unavailable,
)
from kernel.ids import new_id
from kernel.messages import Cancellation
from mallbots.settings import DATABASES, Settings
from tests.samples import priced
from workflows.messages import OrderRequest, PickupRules, SagaAccount

TEA: dict[str, Any] = {"sku": "tea", "quantity": 2}
ORDER: dict[str, Any] = {"items": [TEA], "payment": {"method": "card", "token": "tok_approved"}}


@dataclass(frozen=True)
class FakeKeys:
    """Lets in `key-of-<name>`, with these roles."""

    kind: Literal["kiosk", "service"] = "kiosk"
    roles: frozenset[Role] = frozenset({"kiosk"})

    async def principal_of(self, key: str) -> Principal:
        if not key.startswith("key-of-"):
            raise Unauthenticated("this key is not known")
        return Principal(key.removeprefix("key-of-"), self.kind, self.roles)


class FakeActs:
    """Notes acts in a list."""

    def __init__(self) -> None:
        self.noted: list[dict[str, str | None]] = []

    async def note(
        self, by: str, act: str, subject: str | None = None, detail: str = "", outcome: str = "done"
    ) -> None:
        noted = {"by": by, "act": act, "subject": subject, "detail": detail, "outcome": outcome}
        self.noted.append(noted)

    async def note_stranger(self, where: str, address: str | None) -> None:
        await self.note("stranger", "come in", None, where, "refused")


SERVICE_KEYS = FakeKeys("service", frozenset(STAFF_ROLES))


@dataclass
class FakeIdempotencyKeys:
    claims: dict[tuple[str, str], tuple[UUID, BaseModel]] = field(default_factory=dict)

    async def claim(self, kiosk: str, key: str, request: BaseModel) -> Claim:
        is_new = (kiosk, key) not in self.claims
        order_id, first = self.claims.setdefault((kiosk, key), (new_id(), request))
        if first != request:
            raise IdempotencyKeyReused("another order")
        return Claim(order_id, is_new)

    async def ordered_at(self, kiosk: str, order_id: UUID) -> datetime:
        if (kiosk, order_id) not in {(owner, claimed) for (owner, _), (claimed, _) in self.claims.items()}:
            raise NotFound("no such order")
        return datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class FakeOrders:
    answers: dict[UUID, OrderAnswer] = field(default_factory=dict)
    views: dict[UUID, OrderView] = field(default_factory=dict)

    async def answer(self, order_id: UUID) -> OrderAnswer | None:
        return self.answers.get(order_id)

    async def view(self, order_id: UUID) -> OrderView | None:
        return self.views.get(order_id)


@dataclass
class FakeStores:
    skus: list[str] = field(default_factory=lambda: ["tea"])
    error: Exception | None = None

    async def stores(self) -> list[StoreView]:
        if self.error:
            raise self.error
        return [StoreView(id=new_id(), name="Grocery", open=True)]

    async def products(self, *, store: str | None, words: str, after: str, limit: int) -> list[ProductView]:
        return await self.products_by_sku([sku for sku in self.skus if sku > after][:limit])

    async def products_by_sku(self, skus: Iterable[str]) -> list[ProductView]:
        if self.error:
            raise self.error
        return [
            ProductView(sku=sku, store="Grocery", name=sku, brand="", price_cents=450, currency="USD", available=9)
            for sku in skus
            if sku in self.skus
        ]

    async def product(self, sku: str) -> ProductView:
        raise NotFound(f"the mall does not sell {sku}")


@dataclass
class FakeSagas:
    """Answers every order with `refusal`, or approves it, or does what else it is told to."""

    refusal: Refusal | None = None
    pending: bool = False
    error: Exception | None = None
    ended: bool = False
    requests: list[OrderRequest] = field(default_factory=list)
    summaries: list[str] = field(default_factory=list)

    async def answer(self, request: OrderRequest, *, summary: str, timeout: timedelta) -> OrderAnswer | None:
        if self.error:
            raise self.error
        self.requests.append(request)
        self.summaries.append(summary)
        if self.pending:
            return None
        if self.refusal:
            return OrderAnswer(order_id=request.order_id, currency="USD", refusal=self.refusal)
        return approval(request.order_id)

    async def cancel(self, order_id: UUID, cancellation: Cancellation, *, timeout: timedelta) -> bool:
        if self.error:
            raise self.error
        return self.ended

    async def account(self, order_id: UUID) -> SagaAccount:
        if self.error:
            raise self.error
        return SagaAccount(order_id=order_id, status="pending", steps=[])


NOWHERE = {
    "nats_url": SecretStr("nats://127.0.0.1:1"),
    **{f"{name}_database_url": SecretStr("postgresql+asyncpg://nobody@127.0.0.1:1/none") for name in DATABASES},
}


@dataclass
class FakeServices:
    acts: FakeActs = field(default_factory=FakeActs)
    settings: Settings = field(default_factory=lambda: Settings.model_validate(NOWHERE))
    kiosk_keys: FakeKeys = field(default_factory=FakeKeys)
    service_keys: FakeKeys = field(default_factory=lambda: SERVICE_KEYS)
    idempotency_keys: FakeIdempotencyKeys = field(default_factory=FakeIdempotencyKeys)
    orders: FakeOrders = field(default_factory=FakeOrders)
    stores: FakeStores = field(default_factory=FakeStores)
    saga: FakeSagas = field(default_factory=FakeSagas)
    checks: dict[str, str] = field(default_factory=lambda: {"orders": "ok", "temporal": "ok"})
    currency: str = "USD"
    answer_timeout: timedelta = timedelta(seconds=1)
    pickup_rules: PickupRules = field(default_factory=PickupRules)
    robot_silence: timedelta = timedelta(seconds=30)

    async def sagas(self) -> FakeSagas:
        return self.saga

    async def check(self) -> dict[str, str]:
        return self.checks


@pytest.fixture
def mall() -> FakeServices:
    return FakeServices()


@pytest.fixture
def app(mall: FakeServices) -> FastAPI:
    app = create_app(Settings.model_validate(NOWHERE))
    app.state.services = mall
    return app


@pytest.fixture
async def kiosk(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    headers = {"Authorization": "Bearer key-of-kiosk-1"}
    async with httpx.AsyncClient(transport=transport, base_url="http://mall", headers=headers) as client:
        yield client


async def place(kiosk: httpx.AsyncClient, key: str = "k", **changes: Any) -> httpx.Response:
    return await kiosk.post("/v1/orders", json=ORDER | changes, headers={"Idempotency-Key": key})


def approval(order_id: UUID) -> OrderAnswer:
    return OrderAnswer(order_id=order_id, currency="USD", pickup_code="K7F2QX", total_cents=900, items=[priced()])


def view_of(order_id: UUID, status: OrderStatus = "approved") -> OrderView:
    return OrderView(
        order_id=order_id,
        kiosk="kiosk-1",
        customer=None,
        status=status,
        placed_at=datetime(2026, 1, 2, tzinfo=UTC),
        lines=[NamedLine(sku="tea", quantity=2)],
        payment_method="card",
        currency="USD",
    )


def problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert (response.status_code, body["status"], body["code"]) == (status, status, code)
    assert {"type", "title", "detail"} <= body.keys()
    return body


async def test_an_approved_order_is_told_with_its_pickup_code_and_where_to_find_it(
    kiosk: httpx.AsyncClient, mall: FakeServices
) -> None:
    response = await place(kiosk)
    order_id = mall.saga.requests[0].order_id
    assert response.status_code == 201
    assert response.headers["Location"] == f"/v1/orders/{order_id}"
    assert "Idempotent-Replayed" not in response.headers
    assert response.json() == {
        "id": str(order_id),
        "status": "approved",
        "pickup_code": "K7F2QX",
        "total_cents": 900,
        "currency": "USD",
        "items": [{"sku": "tea", "name": "tea", "store": "Grocery", "quantity": 2, "unit_price_cents": 450}],
        "links": {
            "self": f"/v1/orders/{order_id}",
            "events": f"/v1/orders/{order_id}/events",
            "saga": f"/v1/orders/{order_id}/saga",
            "cancel": f"/v1/orders/{order_id}/cancel",
            "pickup_code": f"/v1/orders/{order_id}/pickup-code.svg",
        },
    }


async def test_the_same_order_sent_twice_is_one_order_with_one_answer(
    kiosk: httpx.AsyncClient, mall: FakeServices
) -> None:
    first = await place(kiosk)
    again = await place(kiosk, items=[TEA | {"if_missing": "skip"}])
    assert again.status_code == 201
    assert again.json() == first.json()
    assert again.headers["Idempotent-Replayed"] == "true"
    assert len({request.order_id for request in mall.saga.requests}) == 1


async def test_an_old_order_is_answered_from_the_record_without_its_saga(
    kiosk: httpx.AsyncClient, mall: FakeServices
) -> None:
    first = await place(kiosk)
    order_id = mall.saga.requests[0].order_id
    mall.orders.answers[order_id] = approval(order_id)
    mall.saga.error = Unavailable("Temporal is away")
    again = await place(kiosk)
    assert (again.status_code, again.json()) == (201, first.json())


async def test_the_same_key_with_another_order_is_a_conflict(kiosk: httpx.AsyncClient) -> None:
    await place(kiosk)
    problem(await place(kiosk, customer="ada"), 409, "idempotency_key_reused")


async def test_two_kiosks_may_use_the_same_key(kiosk: httpx.AsyncClient, mall: FakeServices) -> None:
    await place(kiosk)
    kiosk.headers["Authorization"] = "Bearer key-of-kiosk-2"
    assert (await place(kiosk)).status_code == 201
    assert len({request.order_id for request in mall.saga.requests}) == 2


async def test_a_refusal_names_its_reason_the_order_and_the_lines(
    kiosk: httpx.AsyncClient, mall: FakeServices
) -> None:
    short = RefusedLine(sku="tea", quantity=2, available=1)
    mall.saga.refusal = Refusal(code="insufficient_stock", detail="not enough tea", lines=[short])
    body = problem(await place(kiosk), 422, "insufficient_stock")
    assert body["order_id"] == str(mall.saga.requests[0].order_id)
    assert body["lines"] == [{"sku": "tea", "quantity": 2, "available": 1}]
    again = await place(kiosk)
    assert again.json() == body
    assert again.headers["Idempotent-Replayed"] == "true"


async def test_an_order_without_an_answer_is_accepted_and_can_be_asked_for(
    kiosk: httpx.AsyncClient, mall: FakeServices
) -> None:
    mall.saga.pending = True
    response = await place(kiosk)
    assert response.status_code == 202
    assert response.json()["status"] == "pending"
    assert int(response.headers["Retry-After"]) > 0
    # Orders has not recorded it yet, and still it is no unknown order.
    order = await kiosk.get(response.headers["Location"])
    assert (order.status_code, order.json()["status"]) == (200, "pending")


async def test_an_order_that_could_not_be_handed_on_goes_on_as_the_same_order(
    kiosk: httpx.AsyncClient, mall: FakeServices
) -> None:
    mall.saga.error = Unavailable("Temporal is away")
    response = await place(kiosk)
    problem(response, 503, "unavailable")
    assert int(response.headers["Retry-After"]) > 0
    mall.saga.error = None
    assert (await place(kiosk)).status_code == 201
    assert [claim[0] for claim in mall.idempotency_keys.claims.values()] == [
        request.order_id for request in mall.saga.requests
    ]


async def test_an_order_that_operators_ended_is_told_so(kiosk: httpx.AsyncClient, mall: FakeServices) -> None:
    mall.saga.error = NotFound("it ended without an answer")
    problem(await place(kiosk), 409, "order_closed")


async def test_operators_read_an_order_in_one_line(kiosk: httpx.AsyncClient, mall: FakeServices) -> None:
    await place(kiosk, "a", items=[TEA, {"sku": "unknown", "quantity": 6}])
    await place(kiosk, "b", items=[{"sku": "tea", "quantity": 1}])
    assert mall.saga.summaries == [
        "8 items of 1 store, 9.00 USD, kiosk-1",
        "1 item of 1 store, 4.50 USD, kiosk-1",
    ]


async def test_orders_are_accepted_while_the_catalogue_is_away(
    kiosk: httpx.AsyncClient, mall: FakeServices
) -> None:
    mall.stores.error = Unavailable("the stores database does not answer")
    assert (await place(kiosk)).status_code == 201
    assert mall.saga.summaries == ["2 items, kiosk-1"]
    problem(await kiosk.get("/v1/products"), 503, "unavailable")


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ({"items": []}, "items"),
        ({"items": [TEA] * 101}, "items"),
        ({"items": [TEA, TEA | {"quantity": 0}]}, "items[1].quantity"),
        ({"items": [TEA | {"quantity": 100}]}, "items[0].quantity"),
        ({"items": [TEA | {"quantity": "2"}]}, "items[0].quantity"),
        ({"items": [TEA | {"quantity": 10**30}]}, "items[0].quantity"),
        ({"items": [TEA | {"quantity": True}]}, "items[0].quantity"),
        ({"items": [TEA | {"sku": "a b"}]}, "items[0].sku"),
        ({"items": [TEA | {"sku": "\0"}]}, "items[0].sku"),
        ({"items": [TEA | {"if_missing": "shrug"}]}, "items[0].if_missing"),
        ({"items": [TEA | {"quantiy": 1}]}, "items[0].quantiy"),
        ({"customer": "a\0b"}, "customer"),
        ({"customer": ""}, "customer"),
        ({"customer": "x" * 101}, "customer"),
        ({"discount": 1}, "discount"),
        ({"payment": {"method": "cash"}}, "payment"),
        ({"payment": {"method": "card"}}, "payment.token"),
        ({"payment": {"method": "card", "token": "tok\n"}}, "payment.token"),
        ({"payment": {"method": "at_pickup", "token": "tok"}}, "payment.token"),
        ({"payment": None}, "payment"),
    ],
)
async def test_a_field_that_breaks_a_rule_is_named_and_nothing_is_ordered(
    kiosk: httpx.AsyncClient, mall: FakeServices, change: dict[str, Any], broken: str
) -> None:
    body = problem(await place(kiosk, **change), 422, "invalid_input")
    assert [error["field"] for error in body["errors"]] == [broken]
    assert all(error["rule"] for error in body["errors"])
    assert not mall.idempotency_keys.claims


@pytest.mark.parametrize("key", ["", "a b", "ä", "x" * 201, "\t"])
async def test_an_idempotency_key_is_visible_ascii(kiosk: httpx.AsyncClient, key: str) -> None:
    headers = {b"Idempotency-Key": key.encode("latin-1")}
    body = problem(await kiosk.post("/v1/orders", json=ORDER, headers=headers), 422, "invalid_input")
    assert [error["field"] for error in body["errors"]] == ["Idempotency-Key"]


async def test_an_order_without_an_idempotency_key_is_not_taken(kiosk: httpx.AsyncClient) -> None:
    body = problem(await kiosk.post("/v1/orders", json=ORDER), 422, "invalid_input")
    assert body["errors"] == [{"field": "Idempotency-Key", "rule": "This field is required"}]


@pytest.mark.parametrize(
    "path",
    [
        "/v1/products?q=%00",
        "/v1/products?store=a%0Ab",
        "/v1/products?after=%F0%9F%98%80",
        "/v1/products?limit=0",
        "/v1/products?limit=201",
        "/v1/products?limit=99999999999999999999999999",
        "/v1/products?sku=tea",
        "/v1/products/a%00b",
        f"/v1/products/{'a' * 41}",
        "/v1/orders/not-an-id",
    ],
)
async def test_odd_input_is_refused_before_it_reaches_a_database(kiosk: httpx.AsyncClient, path: str) -> None:
    problem(await kiosk.get(path), 422, "invalid_input")


@pytest.mark.parametrize("body", [b"{", b"\xff\xfe", b"[" * 100_000, b'{"items": [{"quantity": ' + b"9" * 5000])
async def test_a_body_that_is_no_json_is_malformed(kiosk: httpx.AsyncClient, body: bytes) -> None:
    headers = {"Idempotency-Key": "k", "Content-Type": "application/json"}
    problem(await kiosk.post("/v1/orders", content=body, headers=headers), 400, "malformed_json")


@pytest.mark.parametrize("body", [b"null", b"[]", b"NaN", b'"x"', rb'{"\ud800": 1}', b""])
async def test_a_body_that_is_no_order_is_refused(kiosk: httpx.AsyncClient, body: bytes) -> None:
    headers = {"Idempotency-Key": "k", "Content-Type": "application/json"}
    problem(await kiosk.post("/v1/orders", content=body, headers=headers), 422, "invalid_input")


async def test_a_form_is_not_taken_for_json(kiosk: httpx.AsyncClient) -> None:
    response = await kiosk.post("/v1/orders", data={"items": "1"}, headers={"Idempotency-Key": "k"})
    problem(response, 415, "unsupported_media_type")


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_without_end_is_cut_off(kiosk: httpx.AsyncClient, declared: bool) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(LARGEST_BODY // 1024 + 1):
            yield b" " * 1024

    content = b" " * (LARGEST_BODY + 1) if declared else chunks()
    response = await kiosk.post("/v1/orders", content=content, headers={"Idempotency-Key": "k"})
    problem(response, 413, "content_too_large")


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic key-of-x"}])
@pytest.mark.parametrize("path", ["/v1/stores", "/v1/products", f"/v1/orders/{UUID(int=7)}/saga"])
async def test_without_a_key_nothing_is_told(
    kiosk: httpx.AsyncClient, mall: FakeServices, headers: dict[str, str], path: str
) -> None:
    del kiosk.headers["Authorization"]
    response = await kiosk.get(path, headers=headers)
    problem(response, 401, "unauthenticated")
    assert response.headers["WWW-Authenticate"] == "Bearer"
    came = headers.get("Authorization") == "Bearer wrong"
    assert [act["by"] for act in mall.acts.noted] == (["stranger"] if came else [])


async def test_a_kiosk_sees_its_own_orders_only(kiosk: httpx.AsyncClient) -> None:
    order = (await place(kiosk)).headers["Location"]
    assert (await kiosk.get(order)).status_code == 200
    kiosk.headers["Authorization"] = "Bearer key-of-kiosk-2"
    problem(await kiosk.get(order), 404, "not_found")
    problem(await kiosk.get(f"{order}/saga"), 404, "not_found")
    problem(await kiosk.post(f"{order}/cancel"), 404, "not_found")


async def test_a_saga_that_nobody_can_tell_is_no_missing_saga(
    kiosk: httpx.AsyncClient, mall: FakeServices
) -> None:
    order = (await place(kiosk)).headers["Location"]
    mall.saga.error = Unavailable("no worker answers")
    assert problem(await kiosk.get(f"{order}/saga"), 503, "unavailable")["detail"] == "no worker answers"
    mall.saga.error = NotFound("there is no such saga")
    problem(await kiosk.get(f"{order}/saga"), 404, "not_found")


async def test_a_cancelled_order_is_told_as_often_as_it_is_cancelled(
    kiosk: httpx.AsyncClient, mall: FakeServices
) -> None:
    order = (await place(kiosk)).headers["Location"]
    order_id = mall.saga.requests[0].order_id
    mall.saga.ended = True
    mall.orders.views[order_id] = view_of(order_id, "cancelled")
    first = await kiosk.post(f"{order}/cancel", json={"reason": "too slow"})
    assert (first.status_code, first.json()["status"]) == (200, "cancelled")
    again = await kiosk.post(f"{order}/cancel")
    assert (again.status_code, again.json()) == (200, first.json())


async def test_a_cancellation_that_takes_long_is_accepted(kiosk: httpx.AsyncClient, mall: FakeServices) -> None:
    order = (await place(kiosk)).headers["Location"]
    response = await kiosk.post(f"{order}/cancel")
    assert (response.status_code, response.json()["status"]) == (202, "cancelling")
    assert response.headers["Location"] == order


async def test_an_order_that_ended_otherwise_can_not_be_cancelled(
    kiosk: httpx.AsyncClient, mall: FakeServices
) -> None:
    order = (await place(kiosk)).headers["Location"]
    order_id = mall.saga.requests[0].order_id
    mall.orders.views[order_id] = view_of(order_id, "rejected")
    mall.saga.ended = True
    problem(await kiosk.post(f"{order}/cancel"), 409, "order_closed")


async def test_an_order_that_a_robot_shops_for_can_not_be_cancelled_at_the_kiosk(
    kiosk: httpx.AsyncClient, mall: FakeServices
) -> None:
    order = (await place(kiosk)).headers["Location"]
    mall.saga.error = ShoppingBegan("a robot shops for the order")
    problem(await kiosk.post(f"{order}/cancel"), 409, "shopping_began")


async def test_the_pickup_code_is_a_picture_for_a_scanner(kiosk: httpx.AsyncClient, mall: FakeServices) -> None:
    placed = await place(kiosk)
    order_id = mall.saga.requests[0].order_id
    where = placed.json()["links"]["pickup_code"]
    problem(await kiosk.get(where), 404, "not_found")
    mall.orders.views[order_id] = view_of(order_id).model_copy(update={"pickup_code": "K7F2QX"})
    picture = await kiosk.get(where)
    assert (picture.status_code, picture.headers["content-type"]) == (200, "image/svg+xml")
    expected = BytesIO()
    segno.make("K7F2QX", error="q", micro=False).save(expected, kind="svg", scale=8)
    assert picture.content == expected.getvalue()


async def test_the_catalogue_is_read_page_by_page(kiosk: httpx.AsyncClient, mall: FakeServices) -> None:
    mall.stores.skus = [f"tea-{number}" for number in range(7)]
    path: str | None = "/v1/products?limit=3&store=A%26B&q=tea"
    pages = []
    while path:
        page = (await kiosk.get(path)).json()
        pages.append([item["sku"] for item in page["items"]])
        path = page["next"]
    assert pages == [["tea-0", "tea-1", "tea-2"], ["tea-3", "tea-4", "tea-5"], ["tea-6"]]


async def test_unknown_paths_and_methods_are_problems_too(kiosk: httpx.AsyncClient) -> None:
    problem(await kiosk.get("/v1/nothing"), 404, "not_found")
    problem(await kiosk.get("/v1/products/tea"), 404, "not_found")
    problem(await kiosk.get("/v1/stores/"), 404, "not_found")
    wrong = await kiosk.delete("/v1/orders")
    problem(wrong, 405, "method_not_allowed")
    assert wrong.headers["Allow"] == "POST"


@pytest.mark.parametrize("error", [RuntimeError("secret"), Misconfigured("secret")])
async def test_what_nobody_foresaw_is_an_incident_in_the_log_and_tells_nothing(
    kiosk: httpx.AsyncClient, mall: FakeServices, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    mall.stores.error = error
    with caplog.at_level(logging.ERROR, logger="api"):
        response = await kiosk.get("/v1/stores")
    body = problem(response, 500, "internal")
    incident = body["instance"].removeprefix("urn:uuid:")
    assert incident in caplog.text
    assert "Traceback" in caplog.text
    assert "secret" not in response.text


async def test_readiness_names_what_is_away_to_who_may_see_what_is_stuck(
    kiosk: httpx.AsyncClient, mall: FakeServices
) -> None:
    assert (await kiosk.get("/healthz/ready")).json() == {
        "status": "ready",
        "dependencies": {"orders": "ok", "temporal": "ok"},
    }
    mall.checks["temporal"] = "Temporal does not answer"
    response = await kiosk.get("/healthz/ready")
    assert response.status_code == 503
    assert response.json()["dependencies"]["temporal"] == "Temporal does not answer"
    mall.service_keys = FakeKeys("service", frozenset({"desk"}))
    assert (await kiosk.get("/healthz/ready")).json() == {"status": "not ready"}
    del kiosk.headers["Authorization"]
    response = await kiosk.get("/healthz/ready")
    assert (response.status_code, response.json()) == (503, {"status": "not ready"})
    assert (await kiosk.get("/healthz")).json() == {"status": "ok"}


async def test_the_api_starts_and_says_what_is_away_while_everything_is_away() -> None:
    app = create_app(Settings.model_validate({**NOWHERE, "temporal_address": "127.0.0.1:1"}))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://mall") as client,
    ):
        app.state.services.service_keys = SERVICE_KEYS
        response = await client.get("/healthz/ready", headers={"Authorization": "Bearer key-of-ops"})
        assert response.status_code == 503
        assert response.json()["dependencies"] == {
            "orders": "the orders database does not answer",
            "stores": "the stores database does not answer",
            "kiosks": "the kiosks database does not answer",
            "temporal": "Temporal does not answer at 127.0.0.1:1",
        }
        headers = {"Authorization": "Bearer key"}
        problem(await client.get("/v1/stores", headers=headers), 503, "unavailable")


async def test_the_openapi_document_is_whole(kiosk: httpx.AsyncClient) -> None:
    document = (await kiosk.get("/openapi.json")).json()
    references = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)))
    assert references <= document["components"]["schemas"].keys()
    assert "HTTPValidationError" not in references
    operations = {
        (method, path): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    ids = [operation["operationId"] for operation in operations.values()]
    assert len(ids) == len(set(ids))
    for (_, path), operation in operations.items():
        assert operation["summary"]
        assert operation["description"]
        assert operation["tags"]
        if path.startswith("/v1"):
            staff, kiosks = ("ServiceKey", "StaffSession"), ("KioskKey", "KioskPage")
            of = {"staff": staff, "webhooks": ()}.get(path.split("/")[2], kiosks)
            assert operation.get("security", []) == [{scheme: []} for scheme in of]
            assert {"401", "403", "503"} <= operation["responses"].keys()
            kinds = {"events": "text/event-stream", "pickup-code.svg": "image/svg+xml"}
            told = kinds.get(path.rpartition("/")[2], "application/json")
            for status, response in operation["responses"].items():
                expected = told if status < "400" else "application/problem+json"
                assert list(response.get("content", {})) == ([] if status == "204" else [expected])


async def test_the_docs_page_needs_nothing_from_elsewhere(kiosk: httpx.AsyncClient) -> None:
    response = await kiosk.get("/docs")
    assert response.status_code == 200
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert not re.search(r'(src|href)="(https?:)?//', response.text)
    for code in CODES:
        assert f'id="{code}"' in response.text

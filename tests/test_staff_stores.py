"""The stores' daily work over REST, on real PostgreSQL: who may, what is refused, and how it is told."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import text

from api.access import STAFF_ROLES
from api.app import create_app
from api.keys import ApiKeys
from domains.stores.messages import ReserveStock
from domains.stores.service import Stores
from kernel.database import Database
from kernel.ids import new_id
from mallbots.settings import DATABASES, Settings
from tests.samples import line, stocked


@pytest.fixture(scope="module")
async def staff(database: Database) -> AsyncIterator[httpx.AsyncClient]:
    """The API as a member of staff speaks to it."""
    url = SecretStr(database.engine.url.render_as_string(hide_password=False))
    nowhere = {"nats_url": SecretStr("nats://127.0.0.1:1")}
    app = create_app(Settings.model_validate(nowhere | {f"{name}_database_url": url for name in DATABASES}))
    headers = {"Authorization": f"Bearer {await ApiKeys(database, 'staff').issue('bea', STAFF_ROLES)}"}
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://mall", headers=headers) as client:
        yield client
    await app.state.services.close()


def problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    body: dict[str, Any] = response.json()
    assert (response.status_code, body["code"]) == (status, code), body
    return body


def ok(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


async def tell_who(database: Database, sku: str) -> list[tuple[str, str]]:
    async with database.transaction() as connection:
        rows = await connection.execute(
            text(
                "SELECT type, data ->> 'by' AS who FROM stores.events WHERE stream = :stream"
                " AND data ->> 'by' IS NOT NULL ORDER BY version"
            ),
            {"stream": f"product-{sku}"},
        )
        return [(row.type, row.who) for row in rows]


async def test_a_product_is_changed_by_whoever_holds_the_key(staff: httpx.AsyncClient, database: Database) -> None:
    skus = await stocked(database, tea=10, mint=3)
    tea = f"/v1/staff/products/{skus['tea']}"
    before = ok(await staff.get(tea))
    change = {"price_cents": 300, "brand": " Theirs", "alternatives": [skus["mint"]], "low_at": 10}
    after = ok(await staff.patch(tea, json=change))
    assert after == before | change | {"low": True}
    assert ok(await staff.patch(tea, json=change)) == ok(await staff.patch(tea, json={})) == after
    assert ok(await staff.patch(tea, json={"name": "  Green  "}))["name"] == "Green"
    assert await tell_who(database, skus["tea"]) == [
        ("ProductPriceChanged", "bea"),
        ("ProductRenamed", "bea"),
        ("AlternativesChanged", "bea"),
        ("LowStockChanged", "bea"),
        ("ProductRenamed", "bea"),
    ]


async def test_a_change_that_breaks_a_rule_changes_nothing(staff: httpx.AsyncClient, database: Database) -> None:
    sku = (await stocked(database, tea=10))["tea"]
    tea = f"/v1/staff/products/{sku}"
    body = problem(
        await staff.patch(tea, json={"price_cents": 1, "alternatives": ["moon-dust"]}), 422, "invalid_input"
    )
    assert body["errors"] == [{"field": "alternatives[0]", "rule": "the mall does not sell moon-dust"}]
    assert ok(await staff.get(tea))["price_cents"] == 250


async def test_a_delivery_and_a_count_are_told_back_as_stock(staff: httpx.AsyncClient, database: Database) -> None:
    sku = (await stocked(database, tea=10))["tea"]
    tea = f"/v1/staff/products/{sku}"
    await Stores(database).reserve(ReserveStock(order_id=new_id(), lines=[line(sku, 4)], currency="USD"))
    delivery = {"receipt": "D-2026-1", "quantity": 5}
    answers = await asyncio.gather(*(staff.post(f"{tea}/receipts", json=delivery) for _ in range(3)))
    assert {ok(answer)["on_hand"] for answer in answers} == {15}
    problem(await staff.post(f"{tea}/receipts", json=delivery | {"quantity": 6}), 409, "conflict")
    counted = ok(await staff.post(f"{tea}/counts", json={"on_hand": 7, "reason": "mice"}))
    assert (counted["on_hand"], counted["reserved"], counted["available"]) == (7, 4, 3)
    told = problem(await staff.post(f"{tea}/counts", json={"on_hand": 3}), 409, "conflict")
    assert told["detail"] == f"4 pieces of {sku} are held for orders: there can not be 3 on hand"


async def test_a_product_that_is_removed_is_gone_however_often(
    staff: httpx.AsyncClient, database: Database
) -> None:
    tea = f"/v1/staff/products/{(await stocked(database, tea=10))['tea']}"
    for _ in range(2):
        gone = await staff.delete(tea)
        assert (gone.status_code, gone.content) == (204, b"")
    problem(await staff.get(tea), 404, "not_found")
    problem(await staff.patch(tea, json={"price_cents": 1}), 404, "not_found")
    problem(await staff.patch(tea, json={}), 404, "not_found")
    problem(await staff.post(f"{tea}/receipts", json={"receipt": "D", "quantity": 1}), 404, "not_found")
    problem(await staff.delete("/v1/staff/products/moon-dust"), 404, "not_found")


async def test_a_store_is_renamed_closed_and_opened(staff: httpx.AsyncClient, database: Database) -> None:
    first, second = [(await stocked(database, tea=1))["tea"] for _ in range(2)]
    ids = [ok(await staff.get(f"/v1/staff/products/{sku}"))["store_id"] for sku in (first, second)]
    store = f"/v1/staff/stores/{ids[0]}"
    name = f"Corner {ids[0]}"
    closed = ok(await staff.patch(store, json={"name": name, "open": False}))
    assert closed == {"id": ids[0], "name": name, "open": False}
    assert closed in ok(await staff.get("/v1/staff/stores"))["items"]
    assert ok(await staff.patch(store, json={"open": True})) == closed | {"open": True}
    taken = {"name": name, "open": False}
    problem(await staff.patch(f"/v1/staff/stores/{ids[1]}", json=taken), 409, "conflict")
    assert ok(await staff.patch(f"/v1/staff/stores/{ids[1]}", json={}))["open"] is True
    problem(await staff.patch(f"/v1/staff/stores/{new_id()}", json={"open": True}), 404, "not_found")


async def test_the_stock_is_read_page_by_page(staff: httpx.AsyncClient, database: Database) -> None:
    skus = await stocked(database, **{f"tea {n}": n for n in range(1, 8)}, rum=2)
    shop = ok(await staff.get(f"/v1/staff/products/{skus['rum']}"))["store"]
    path: str | None = str(
        httpx.URL("/v1/staff/products", params={"store": shop, "q": "TEA", "low": "true", "limit": "2"})
    )
    pages = []
    while path:
        page = ok(await staff.get(path))
        assert all(item["low"] for item in page["items"])
        pages.append([item["sku"] for item in page["items"]])
        path = page["next"]
    low = [skus[f"tea {n}"] for n in range(1, 6)]
    assert pages == [low[:2], low[2:4], low[4:]]


@pytest.mark.parametrize(
    ("path", "body", "broken"),
    [
        ("stores/{id}", {"name": ""}, "name"),
        ("stores/{id}", {"name": "  "}, "name"),
        ("stores/{id}", {"name": "a\0b"}, "name"),
        ("stores/{id}", {"open": "yes"}, "open"),
        ("stores/{id}", {"opened": True}, "opened"),
        ("products/tea", {"price_cents": "300"}, "price_cents"),
        ("products/tea", {"price_cents": 1.5}, "price_cents"),
        ("products/tea", {"price_cents": -1}, "price_cents"),
        ("products/tea", {"price_cents": 10**30}, "price_cents"),
        ("products/tea", {"alternatives": ["a b"]}, "alternatives[0]"),
        ("products/tea", {"alternatives": ["a"] * 21}, "alternatives"),
        ("products/tea", {"low_at": True}, "low_at"),
        ("products/tea", {"stock": 1}, "stock"),
        ("products/tea/receipts", {"receipt": "D"}, "quantity"),
        ("products/tea/receipts", {"receipt": "D", "quantity": 0}, "quantity"),
        ("products/tea/receipts", {"receipt": "a b", "quantity": 1}, "receipt"),
        ("products/tea/counts", {"on_hand": -1}, "on_hand"),
        ("products/tea/counts", {"on_hand": 1, "reason": "x" * 501}, "reason"),
    ],
)
async def test_a_field_that_breaks_a_rule_is_named(
    staff: httpx.AsyncClient, path: str, body: dict[str, Any], broken: str
) -> None:
    method = "POST" if path.endswith("s") else "PATCH"
    answer = await staff.request(method, f"/v1/staff/{path.format(id=new_id())}", json=body)
    assert [error["field"] for error in problem(answer, 422, "invalid_input")["errors"]] == [broken]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "stores"),
        ("PATCH", f"stores/{UUID(int=7)}"),
        ("GET", "products"),
        ("GET", "products/tea"),
        ("PATCH", "products/tea"),
        ("DELETE", "products/tea"),
        ("POST", "products/tea/receipts"),
        ("POST", "products/tea/counts"),
    ],
)
async def test_only_staff_may(staff: httpx.AsyncClient, database: Database, method: str, path: str) -> None:
    kiosk = f"Bearer {await ApiKeys(database, 'kiosks').issue('kiosk-1')}"
    bodies: dict[str, Any] = {"receipt": "D", "quantity": 1, "on_hand": 1}
    body = {key: bodies[key] for key in _FIELDS.get(path.rpartition("/")[2], ())} if method != "GET" else None
    for authorization in ("", kiosk):
        answer = await staff.request(
            method, f"/v1/staff/{path}", json=body, headers={"Authorization": authorization}
        )
        problem(answer, 401, "unauthenticated")


_FIELDS = {"receipts": ("receipt", "quantity"), "counts": ("on_hand",)}

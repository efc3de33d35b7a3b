"""A catalogue in bulk over REST, on real PostgreSQL; and what the OpenAPI document tells the management pages."""

import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any, get_args

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import text

from api.access import ACTIONS
from api.app import create_app
from api.keys import ApiKeys
from api.problems import LARGEST_BODY
from api.web.pages import ASSETS
from domains.stores.catalog_file import read_csv_catalog
from domains.stores.messages import CatalogChange, CatalogImport, RemoveProduct
from domains.stores.service import Stores
from kernel.database import Database
from kernel.ids import new_id
from mallbots.settings import DATABASES, Settings
from tests.samples import stocked

JSON_LINES = "application/x-ndjson"
CHECK = "/v1/staff/catalog/check"
IMPORT = "/v1/staff/catalog/import"


@pytest.fixture(scope="module")
async def api(database: Database) -> AsyncIterator[httpx.AsyncClient]:
    url = SecretStr(database.engine.url.render_as_string(hide_password=False))
    nowhere = {"nats_url": SecretStr("nats://127.0.0.1:1")}
    app = create_app(Settings.model_validate(nowhere | {f"{name}_database_url": url for name in DATABASES}))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://mall") as client:
        yield client
    await app.state.services.close()


@pytest.fixture(scope="module")
async def manager(api: httpx.AsyncClient, database: Database) -> httpx.AsyncClient:
    """The API as a manager speaks to it."""
    api.headers["Authorization"] = f"Bearer {await ApiKeys(database, 'staff').issue('mia', ['manager'])}"
    return api


def product(sku: str, **changes: Any) -> dict[str, Any]:
    return {"sku": sku, "store": f"Store {sku[-12:]}", "name": "Tea", "brand": "", "price_cents": 250} | changes


def lines(*products: dict[str, Any] | str) -> bytes:
    return "\n".join(one if isinstance(one, str) else json.dumps(one) for one in products).encode()


async def send(
    client: httpx.AsyncClient, where: str, content: bytes, kind: str = JSON_LINES, **query: int
) -> httpx.Response:
    return await client.post(where, content=content, headers={"Content-Type": kind}, params=query)


async def test_a_check_tells_what_the_import_does_then(
    manager: httpx.AsyncClient, database: Database, stores: Stores
) -> None:
    skus = await stocked(database, tea=10, mint=3, gone=1, same=7)
    store = (await stores.product(skus["tea"])).store
    await stores.manage(RemoveProduct(sku=skus["gone"], by="bea"))
    new = f"new-{new_id().hex[-12:]}"
    told = {"store": store, "brand": "Ours"}
    file = lines(
        product(skus["tea"], **told, name="tea", price_cents=300, alternatives=[skus["mint"]]),
        product(skus["mint"], **told, name="Peppermint"),
        product(skus["gone"], **told),
        product(skus["same"], **told, name="same"),
        product(new),
    )
    checked = (await send(manager, CHECK, file, stock=5)).json()
    assert (checked["lines"], checked["bad_lines"], checked["unchanged"]) == (5, 0, 1)
    assert [(one["line"], one["changes"], one["price_cents_before"]) for one in checked["changed"]] == [
        (1, ["repriced", "alternatives"], 250),
        (2, ["renamed", "stock"], 250),
        (3, ["added", "stock"], None),
        (5, ["added", "stock"], None),
    ]
    assert (await stores.product(skus["tea"])).price_cents == 250
    done = await send(manager, IMPORT, file, stock=5)
    assert (
        done.json()
        == checked["changes"]
        == CatalogImport(
            stores_opened=1,
            products_added=2,
            products_renamed=1,
            prices_changed=1,
            alternatives_changed=1,
            stock_received=2 + 4 + 5,
        ).model_dump()
    )
    assert (await send(manager, IMPORT, file, stock=5)).json() == CatalogImport().model_dump()
    assert (await send(manager, CHECK, file, stock=5)).json()["unchanged"] == 5


async def test_an_import_is_in_the_trail_by_whoever_did_it(manager: httpx.AsyncClient, database: Database) -> None:
    sku = (await stocked(database, tea=10))["tea"]
    store = (await manager.get(f"/v1/staff/products/{sku}")).json()["store"]
    await send(manager, IMPORT, lines(product(sku, store=store, name="tea", brand="Ours", price_cents=1)))
    async with database.transaction() as connection:
        who = await connection.scalar(
            text("SELECT data ->> 'by' FROM stores.events WHERE stream = :stream ORDER BY version DESC LIMIT 1"),
            {"stream": f"product-{sku}"},
        )
        act = (
            await connection.execute(
                text("SELECT by, detail FROM staff.acts WHERE act = 'catalog.import' ORDER BY id DESC LIMIT 1")
            )
        ).one()
    assert who == "mia"
    assert tuple(act) == ("mia", "1 lines: 0 products added, 1 prices changed")


async def test_every_bad_line_is_told_by_its_number_and_nothing_is_imported(
    manager: httpx.AsyncClient, database: Database, stores: Stores
) -> None:
    known, new = (await stocked(database, tea=1))["tea"], f"new-{new_id().hex[-12:]}"
    file = lines(
        product(new),
        "",
        product(known, store="Elsewhere"),
        product("a b", price_cents=-1),
        "no json",
        product(new),
        product(f"{new}-2", alternatives=["moon-dust"]),
        product(f"{new}-3", name="a\0b"),
    )
    checked = (await send(manager, CHECK, file)).json()
    assert [(one["line"], one["field"]) for one in checked["problems"]] == [
        (3, "store"),
        (4, "sku"),
        (4, "price_cents"),
        (5, "line"),
        (6, "sku"),
        (7, "alternatives"),
        (8, "name"),
    ]
    assert checked["problems"][4]["rule"] == f"{new} stands on line 1 already"
    assert (checked["lines"], checked["bad_lines"], checked["changes"]["products_added"]) == (7, 6, 1)
    refused = await send(manager, IMPORT, file)
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_input")
    assert "nothing was imported:\nline 4: sku: " in refused.json()["detail"]
    assert await stores.products_by_sku([new]) == []


async def test_a_catalogue_is_larger_than_other_bodies(manager: httpx.AsyncClient) -> None:
    mark = new_id().hex[-12:]
    file = lines(*(product(f"{number:05}-{mark}", store="Bulk", name="x" * 150) for number in range(1500)))
    assert len(file) > LARGEST_BODY
    assert (await send(manager, CHECK, file)).json()["changes"]["products_added"] == 1500
    too_large = await send(manager, CHECK, b" " * (8 * 1024 * 1024 + 1))
    assert (too_large.status_code, too_large.json()["code"]) == (413, "content_too_large")


async def test_a_table_is_imported_with_its_prices_exact(manager: httpx.AsyncClient, stores: Stores) -> None:
    mark = new_id().hex[-12:]
    table = "\r\n".join(
        (
            "\ufeffSKU;Store;Name;Price;Alternatives",
            f'a-{mark};Shop;"Tea; green";4,5;',
            ";;;;",
            f"b-{mark};Shop;Mint;1099;a-{mark}",
        )
    )
    done = await send(manager, IMPORT, table.encode(), "text/csv; charset=utf-8", stock=2)
    assert done.status_code == 200, done.text
    first, second = await stores.stock_of(f"a-{mark}"), await stores.stock_of(f"b-{mark}")
    assert (first.name, first.price_cents, second.price_cents) == ("Tea; green", 450, 109900)
    assert second.alternatives == [first.sku]


@pytest.mark.parametrize(
    ("table", "line", "rule"),
    [
        ("sku,store,name,price\ntea,S,Tea,1.005", 2, "'1.005' is no price in USD, such as 4.50"),
        ("sku,store,name,price\ntea,S,Tea,", 2, "'' is no price"),
        ('sku,store,name,price\ntea,S,Tea,"1,234"', 2, "'1,234' is no price"),
        ("sku,store,name,price\ntea,S,Tea,1,2", 2, "there are 5 values for 4 columns"),
        ("sku,store,name,price\ntea,S,Tea\n", 2, "Field required"),
        ('sku,store,name,price\ntea,S,"a\nb",1\ntea,S,Tea,1', 2, "String should match pattern"),
        ("sku,store,name\ntea,S,Tea", 1, "either price or price_cents is a column"),
        ("sku,name,price\ntea,Tea,1", 1, "the column store is missing"),
        ("sku,store,name,price,colour\n", 1, "there is no column 'colour'"),
        ("sku,store,name,price,sku\n", 1, "a column is there twice"),
        ('sku,store,name,price\na,S,A,1\ntea,S,"Tea,1\n', 3, "the values can not be told apart"),
        ("sku,store,name,price\n", 1, "there is no product in the file"),
        ("", 1, "the column sku is missing"),
    ],
)
def test_a_table_says_where_it_is_wrong(table: str, line: int, rule: str) -> None:
    file = read_csv_catalog(table.encode(), "USD")
    assert file.problems[0].line == line
    assert rule in file.problems[0].rule


def test_a_table_in_another_encoding_is_refused_by_line() -> None:
    file = read_csv_catalog("sku,store,name,price\ntea,S,Thé,1\n".encode("latin-1"), "USD")
    assert [(one.line, "UTF-8" in one.rule) for one in file.problems] == [(2, True)]


@pytest.mark.parametrize(
    ("currency", "price", "cents"), [("JPY", "450", 450), ("KWD", "4.5", 4500), ("USD", "4", 400)]
)
def test_a_price_has_the_digits_of_its_currency(currency: str, price: str, cents: int) -> None:
    file = read_csv_catalog(f"sku,store,name,price\ntea,S,Tea,{price}\n".encode(), currency)
    assert [line.price_cents for line in file.lines.values()] == [cents]


async def test_only_who_may_import_is_listened_to(api: httpx.AsyncClient, database: Database) -> None:
    clerk = {"Authorization": f"Bearer {await ApiKeys(database, 'staff').issue('carl', ['store'])}"}
    for where in (CHECK, IMPORT):
        response = await api.post(where, content=b"{", headers={"Content-Type": JSON_LINES} | clerk)
        assert (response.status_code, response.json()["code"]) == (403, "forbidden")


async def test_a_catalogue_that_is_declared_as_something_else_is_not_taken(manager: httpx.AsyncClient) -> None:
    for kind in ("application/json", "text/plain", ""):
        assert (await send(manager, CHECK, b"{}", kind)).status_code == 415


# What the management pages are made from


@pytest.fixture(scope="module")
async def document(api: httpx.AsyncClient) -> dict[str, Any]:
    found: dict[str, Any] = (await api.get("/openapi.json")).json()
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for operation in methods.values():
            yield path, operation


def resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    name = schema.get("$ref", "").rpartition("/")[2]
    found: dict[str, Any] = document["components"]["schemas"][name] if name else schema
    return found


def properties_of_items(document: dict[str, Any], operation: dict[str, Any]) -> dict[str, Any]:
    page = resolved(document, operation["responses"]["200"]["content"]["application/json"]["schema"])
    found: dict[str, Any] = resolved(document, page["properties"]["items"]["items"])["properties"]
    return found


def test_each_operation_that_not_everybody_may_do_names_its_action(document: dict[str, Any]) -> None:
    named = {operation["operationId"]: operation.get("x-action") for _, operation in operations(document)}
    assert {action for action in named.values() if action} <= set(ACTIONS)
    for path, operation in operations(document):
        if path.startswith("/v1/staff/") and not path.startswith("/v1/staff/me"):
            assert "x-action" in operation, path
    assert named["removeProduct"] == "stores.change"
    assert named["correctStock"] == "stock.change"
    assert named["importCatalog"] == "catalog.import"


def test_each_resource_names_fields_that_its_things_have(document: dict[str, Any]) -> None:
    resources = {
        operation["x-resource"]["name"]: (operation["x-resource"], properties_of_items(document, operation))
        for _, operation in operations(document)
        if "x-resource" in operation
    }
    assert {"stores", "products"} <= resources.keys()
    for told, fields in resources.values():
        named = {told["key"], told["label"], *told["columns"], *told.get("words", {})}
        named |= set(re.findall(r"{(\w+)}", told.get("trail", "")))
        assert named <= fields.keys()
    for path, operation in operations(document):
        if button := operation.get("x-resource-action"):
            assert button["resource"] in resources
            assert path.count("{") <= 1
    for name, field in re.findall(
        r'"x-reference": {"field": "(\w+)", "resource": "(\w+)"}', json.dumps(document, sort_keys=True)
    ):
        assert name in resources[field][1]


def test_what_a_line_may_change_is_told_in_words_that_the_page_has() -> None:
    page = (ASSETS / "import.js").read_text()
    assert all(re.search(rf"\b{change}: \"", page) for change in get_args(CatalogChange))

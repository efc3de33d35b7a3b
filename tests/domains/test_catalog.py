"""The catalogue: imported whole or not at all, any number of times."""

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import text

from domains.stores.catalog import CHUNK, import_catalog, read_catalog
from domains.stores.messages import CatalogImport, CatalogLine, RemoveProduct, ReserveStock
from domains.stores.service import Stores
from kernel.database import Database
from kernel.errors import InvalidInput, Refused
from kernel.ids import new_id
from kernel.messages import OrderLine


def catalog(size: int, cents: int = 250, mark: str = "") -> list[CatalogLine]:
    mark = mark or new_id().hex[-12:]
    return [
        CatalogLine(sku=f"{mark}-{n:04}", store=f"Store {mark}", name=f"Thing {n}", price_cents=cents)
        for n in range(size)
    ]


async def test_an_import_repeated_changes_nothing(database: Database) -> None:
    lines = catalog(CHUNK + 3)
    first = await import_catalog(database, lines, currency="USD", stock=10)
    assert first == CatalogImport(stores_opened=1, products_added=len(lines), stock_received=10 * len(lines))
    assert await import_catalog(database, lines, currency="USD", stock=10) == CatalogImport()
    assert await import_catalog(database, lines, currency="USD") == CatalogImport()


async def test_imports_at_once_tell_of_each_change_once(database: Database) -> None:
    lines = catalog(3)
    done = await asyncio.gather(*(import_catalog(database, lines, currency="USD", stock=5) for _ in range(4)))
    assert sorted(one.products_added for one in done) == [0, 0, 0, 3]
    assert sum(one.stores_opened for one in done) == 1


async def test_a_catalogue_is_imported_while_its_products_are_ordered(database: Database, stores: Stores) -> None:
    lines = catalog(200)
    await import_catalog(database, lines, currency="USD", stock=100)

    async def order() -> None:
        items = [OrderLine(sku=line.sku, quantity=1) for line in reversed(lines[:100])]
        for _ in range(5):
            await stores.reserve(ReserveStock(order_id=new_id(), lines=items, currency="USD"))

    async def change(cents: int) -> None:
        priced = [line.model_copy(update={"price_cents": cents}) for line in lines]
        await import_catalog(database, priced, currency="USD", stock=100)

    await asyncio.gather(*(order() for _ in range(4)), *(change(cents) for cents in range(1, 7)))


async def test_a_product_keeps_its_currency(database: Database, stores: Stores) -> None:
    (line,) = catalog(1)
    await import_catalog(database, [line], currency="USD", stock=5)
    with pytest.raises(InvalidInput, match="sold in USD, not in EUR"):
        await import_catalog(database, [line], currency="EUR")
    wanted = [OrderLine(sku=line.sku, quantity=1)]
    with pytest.raises(Refused, match="does not sell"):
        await stores.reserve(ReserveStock(order_id=new_id(), lines=wanted, currency="EUR"))


@pytest.mark.parametrize("name", ["Bread 14.5", "Broccoli/Cauliflower", "Jam-Filled (2%)", "Ben&Jerry's", "A_b"])
async def test_a_product_is_found_by_the_words_of_its_name(database: Database, stores: Stores, name: str) -> None:
    line = catalog(1)[0].model_copy(update={"name": name})
    await import_catalog(database, [line], currency="USD")
    for words in (name, *name.replace("/", " ").split()):
        assert [product.sku for product in await stores.products(store=line.store, words=words)] == [line.sku]


async def test_an_import_tells_of_every_change_as_an_event(database: Database, stores: Stores) -> None:
    (line,) = catalog(1)
    await import_catalog(database, [line], currency="USD", stock=5)
    changed = line.model_copy(update={"name": "Better thing", "price_cents": 199})
    assert await import_catalog(database, [changed], currency="USD", stock=8) == CatalogImport(
        products_renamed=1, prices_changed=1, stock_received=3
    )
    async with database.transaction() as connection:
        rows = await connection.execute(
            text("SELECT type, version FROM stores.events WHERE stream = :stream ORDER BY version"),
            {"stream": f"product-{line.sku}"},
        )
        assert [tuple(row) for row in rows] == [
            ("ProductAdded", 1),
            ("StockReceived", 2),
            ("ProductRenamed", 3),
            ("ProductPriceChanged", 4),
            ("StockReceived", 5),
        ]
    product = await stores.product(line.sku)
    assert (product.name, product.price_cents, product.available) == ("Better thing", 199, 8)


async def test_a_catalogue_says_what_may_be_had_instead(database: Database, stores: Stores) -> None:
    first, second, third = catalog(3)
    with_alternatives = first.model_copy(update={"alternatives": [third.sku, second.sku]})
    done = await import_catalog(database, [with_alternatives, second, third], currency="USD")
    assert done.alternatives_changed == 1
    assert (await stores.stock_of(first.sku)).alternatives == [third.sku, second.sku]
    # A file that says nothing of them leaves them, one that says none takes them away.
    assert await import_catalog(database, [first], currency="USD") == CatalogImport()
    none = first.model_copy(update={"alternatives": []})
    assert await import_catalog(database, [none], currency="USD") == CatalogImport(alternatives_changed=1)
    assert (await stores.stock_of(first.sku)).alternatives == []


async def test_an_alternative_that_nobody_sells_keeps_a_catalogue_out(database: Database, stores: Stores) -> None:
    first, second = catalog(2)
    await import_catalog(database, [second], currency="USD")
    known = first.model_copy(update={"alternatives": [second.sku]})
    unknown = first.model_copy(update={"alternatives": [second.sku, "moon-dust"]})
    with pytest.raises(InvalidInput, match=f"sku {first.sku} has the alternative moon-dust, which nobody sells"):
        await import_catalog(database, [unknown], currency="USD")
    assert await stores.products_by_sku([first.sku]) == []
    await stores.manage(RemoveProduct(sku=second.sku, by="bea"))
    with pytest.raises(InvalidInput, match="which nobody sells"):
        await import_catalog(database, [known], currency="USD")
    await import_catalog(database, [known, second], currency="USD")


async def test_stock_is_topped_up_and_never_taken_away(database: Database, stores: Stores) -> None:
    (line,) = catalog(1)
    await import_catalog(database, [line], currency="USD", stock=8)
    await import_catalog(database, [line], currency="USD", stock=3)
    assert (await stores.product(line.sku)).available == 8


async def test_a_product_does_not_move_to_another_store(database: Database, stores: Stores) -> None:
    lines = catalog(2)
    await import_catalog(database, lines[:1], currency="USD")
    moved = lines[0].model_copy(update={"store": f"Other {lines[0].sku}"})
    with pytest.raises(InvalidInput, match="sold by another store"):
        await import_catalog(database, [lines[1], moved], currency="USD")
    assert await stores.products_by_sku([lines[1].sku]) == []


@pytest.mark.parametrize(
    ("bad", "rule"),
    [
        (
            '{"sku":"a b","store":"S","name":"N","brand":"","price_cents":1}',
            "line 2: sku: String should match",
        ),
        (
            '{"sku":"a","store":"S","name":"N","brand":"","price_cents":-1}',
            "line 2: price_cents: Input should",
        ),
        ('{"sku":"a","store":"S","name":"N","brand":"","price_cents":1.5}', "line 2: price_cents"),
        ('{"sku":"a","store":"","name":"N","brand":"","price_cents":1}', "line 2: store: String should have"),
        ('{"sku":"a","store":"S","brand":"","price_cents":1}', "line 2: name: Field required"),
        (
            '{"sku":"a","store":"S","name":"N","price_cents":1,"alternatives":["b","a"]}',
            "line 2: line: Value error, a product is no alternative of itself",
        ),
        (
            '{"sku":"a","store":"S","name":"N","price_cents":1,"alternatives":["b","b"]}',
            "line 2: line: Value error, an alternative is there twice",
        ),
        (
            '{"sku":"a","store":"S","name":"N","price_cents":1,"alternatives":["b c"]}',
            "line 2: alternatives.0: String should match",
        ),
        ("not json", "line 2: line: Invalid JSON"),
        ('{"sku":"ok","store":"S","name":"N","brand":"","price_cents":1}', "line 2: sku: ok stands on line 1"),
    ],
)
def test_a_bad_line_is_named_by_its_number_and_the_rule(tmp_path: Path, bad: str, rule: str) -> None:
    file = tmp_path / "catalog.jsonl"
    file.write_text('{"sku":"ok","store":"S","name":"N","brand":"","price_cents":1}\n' + bad + "\n")
    with pytest.raises(InvalidInput) as error:
        read_catalog(file)
    assert error.value.message.startswith("nothing was imported:")
    assert rule in error.value.message

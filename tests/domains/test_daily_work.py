"""The stores' daily work: staff receive, count, price, rename, open and close; accepted orders never notice."""

import asyncio
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from domains.stores.catalog import import_catalog
from domains.stores.daily_work import MOST_ON_HAND, StaffCommand
from domains.stores.messages import (
    CatalogLine,
    ChangePrice,
    ConsumeStock,
    CorrectStock,
    ReceiveStock,
    ReleaseStock,
    RemoveProduct,
    RenameProduct,
    RenameStore,
    ReserveStock,
    SetAlternatives,
    SetLowStock,
    SetParticipation,
)
from domains.stores.service import Stores
from kernel.database import Database
from kernel.errors import Conflict, InvalidInput, NotFound, Refused
from kernel.ids import new_id
from tests.samples import line, stocked


def reserve(sku: str, quantity: int = 1) -> ReserveStock:
    return ReserveStock(order_id=new_id(), lines=[line(sku, quantity)], currency="USD")


async def some_tea(database: Database, pieces: int = 10) -> str:
    return (await stocked(database, tea=pieces))["tea"]


async def told(database: Database, stream: str) -> list[tuple[str, dict[str, Any]]]:
    """What happened to a product or a store since it is known, but for what its catalogue told."""
    async with database.transaction() as connection:
        rows = await connection.execute(
            text(
                "SELECT type, data FROM stores.events WHERE stream = :stream"
                " AND data ->> 'by' IS NOT NULL ORDER BY version"
            ),
            {"stream": stream},
        )
        return [(row.type, row.data) for row in rows]


async def store_of(stores: Stores, sku: str) -> UUID:
    return (await stores.stock_of(sku)).store_id


async def test_a_delivery_received_twice_is_received_once(stores: Stores, database: Database) -> None:
    tea = await some_tea(database)
    delivery = ReceiveStock(sku=tea, quantity=5, receipt="D1", by="bea")
    await asyncio.gather(*(stores.manage(delivery) for _ in range(4)))
    await stores.manage(delivery.model_copy(update={"by": "cem"}))
    assert (await stores.stock_of(tea)).on_hand == 15
    assert await told(database, f"product-{tea}") == [("StockReceived", delivery.model_dump())]
    with pytest.raises(Conflict, match="receipt D1 was for 5"):
        await stores.manage(delivery.model_copy(update={"quantity": 6}))
    await stores.manage(delivery.model_copy(update={"receipt": "D2"}))
    assert (await stores.stock_of(tea)).on_hand == 20


async def test_a_shelf_has_an_end(stores: Stores, database: Database) -> None:
    tea = await some_tea(database)
    await stores.manage(CorrectStock(sku=tea, on_hand=MOST_ON_HAND, by="bea"))
    with pytest.raises(Conflict, match="at most"):
        await stores.manage(ReceiveStock(sku=tea, quantity=1, receipt="D1", by="bea"))


async def test_a_count_corrects_what_is_on_hand_and_is_told_with_its_reason(
    stores: Stores, database: Database
) -> None:
    tea = await some_tea(database)
    await stores.reserve(reserve(tea, 4))
    count = CorrectStock(sku=tea, on_hand=7, reason="mice", by="bea")
    await asyncio.gather(*(stores.manage(count) for _ in range(3)))
    stock = await stores.stock_of(tea)
    assert (stock.on_hand, stock.reserved, stock.available) == (7, 4, 3)
    corrected = {"sku": tea, "on_hand": 7, "difference": -3, "reason": "mice", "by": "bea"}
    assert await told(database, f"product-{tea}") == [("StockCorrected", corrected)]


async def test_a_count_below_what_is_held_for_orders_is_a_conflict_that_says_so(
    stores: Stores, database: Database
) -> None:
    tea = await some_tea(database)
    await stores.reserve(reserve(tea, 4))
    with pytest.raises(Conflict, match="are held for orders: there can not be 3 on hand"):
        await stores.manage(CorrectStock(sku=tea, on_hand=3, by="bea"))
    await stores.manage(CorrectStock(sku=tea, on_hand=4, by="bea"))
    assert (await stores.stock_of(tea)).available == 0


async def test_counts_and_orders_at_once_never_hold_more_than_there_is(stores: Stores, database: Database) -> None:
    tea = await some_tea(database)
    outcomes = await asyncio.gather(
        *(stores.reserve(reserve(tea)) for _ in range(12)),
        *(stores.manage(CorrectStock(sku=tea, on_hand=left, by="bea")) for left in (8, 5, 2, 9, 3)),
        *(stores.manage(ReceiveStock(sku=tea, quantity=1, receipt=f"D{n}", by="bea")) for n in range(5)),
        return_exceptions=True,
    )
    failed = {type(outcome) for outcome in outcomes if isinstance(outcome, BaseException)}
    assert failed <= {Refused, Conflict}
    stock = await stores.stock_of(tea)
    assert stock.reserved == 12 - sum(isinstance(outcome, Refused) for outcome in outcomes[:12])
    assert 0 <= stock.reserved <= stock.on_hand


async def test_whatever_staff_do_an_accepted_order_keeps_what_it_has(stores: Stores, database: Database) -> None:
    tea = await some_tea(database)
    store_id = await store_of(stores, tea)
    kept, dropped = reserve(tea, 3), reserve(tea, 2)
    first = await stores.reserve(kept)
    await stores.reserve(dropped)
    await stores.manage(
        ChangePrice(sku=tea, price_cents=999, by="bea"),
        RenameProduct(sku=tea, name="Black tea", by="bea"),
        RemoveProduct(sku=tea, by="bea"),
    )
    await stores.manage(
        RenameStore(store_id=store_id, name=f"Shut {store_id}", by="bea"),
        SetParticipation(store_id=store_id, open=False, by="bea"),
    )
    assert await stores.reserve(kept) == first
    await stores.release(ReleaseStock(order_id=dropped.order_id, reason="order_cancelled"))
    await stores.consume(ConsumeStock(order_id=kept.order_id))
    async with database.transaction() as connection:
        rows = await connection.execute(
            text("SELECT on_hand, reserved FROM stores.stock WHERE sku = :sku"), {"sku": tea}
        )
        assert tuple(rows.one()) == (7, 0)


async def test_new_orders_are_made_at_the_new_price_and_name(stores: Stores, database: Database) -> None:
    tea = await some_tea(database)
    before = await stores.product(tea)
    price, name = ChangePrice(sku=tea, price_cents=300, by="bea"), RenameProduct(sku=tea, name="Green", by="bea")
    await stores.manage(price, name)
    (sold,) = (await stores.reserve(reserve(tea))).lines
    assert (sold.name, sold.unit_price_cents) == ("Green", 300)
    await stores.manage(RenameProduct(sku=tea, brand="Theirs", by="cem"))
    assert await told(database, f"product-{tea}") == [
        ("ProductPriceChanged", {"sku": tea, "price_cents": 300, "currency": "USD", "by": "bea"}),
        ("ProductRenamed", {"sku": tea, "name": "Green", "brand": before.brand, "by": "bea"}),
        ("ProductRenamed", {"sku": tea, "name": "Green", "brand": "Theirs", "by": "cem"}),
    ]


async def test_what_is_so_already_is_no_event(stores: Stores, database: Database) -> None:
    skus = await stocked(database, tea=10, mint=10)
    tea, mint = skus["tea"], skus["mint"]
    store_id = await store_of(stores, tea)
    commands: list[StaffCommand] = [
        CorrectStock(sku=tea, on_hand=9, by="bea"),
        ChangePrice(sku=tea, price_cents=300, by="bea"),
        RenameProduct(sku=tea, name="Green", brand="Theirs", by="bea"),
        SetAlternatives(sku=tea, alternatives=[mint], by="bea"),
        SetLowStock(sku=tea, low_at=2, by="bea"),
        RemoveProduct(sku=tea, by="bea"),
    ]
    for command in commands:
        await asyncio.gather(*(stores.manage(command) for _ in range(3)))
    assert [kind for kind, _ in await told(database, f"product-{tea}")] == [
        "StockCorrected",
        "ProductPriceChanged",
        "ProductRenamed",
        "AlternativesChanged",
        "LowStockChanged",
        "ProductRemoved",
    ]
    on_store: list[StaffCommand] = [
        RenameStore(store_id=store_id, name=f"New {store_id}", by="bea"),
        SetParticipation(store_id=store_id, open=False, by="bea"),
        SetParticipation(store_id=store_id, open=True, by="cem"),
    ]
    for command in on_store:
        await asyncio.gather(*(stores.manage(command) for _ in range(3)))
    assert [(kind, data["by"]) for kind, data in await told(database, f"store-{store_id}")] == [
        ("StoreRenamed", "bea"),
        ("StoreParticipationChanged", "bea"),
        ("StoreParticipationChanged", "cem"),
    ]


async def test_of_several_changes_all_are_made_or_none(stores: Stores, database: Database) -> None:
    tea = await some_tea(database)
    before = await stores.stock_of(tea)
    with pytest.raises(InvalidInput):
        await stores.manage(
            ChangePrice(sku=tea, price_cents=1, by="bea"),
            SetAlternatives(sku=tea, alternatives=["moon-dust"], by="bea"),
        )
    assert await stores.stock_of(tea) == before
    assert await told(database, f"product-{tea}") == []


async def test_an_alternative_is_another_product_that_is_sold_and_named_once(
    stores: Stores, database: Database
) -> None:
    skus = await stocked(database, tea=1, mint=1, rose=1)
    tea, mint, rose = skus.values()
    await stores.manage(RemoveProduct(sku=rose, by="bea"))
    for alternatives, field in (
        ([mint, tea], "alternatives[1]"),
        ([mint, mint], "alternatives[1]"),
        ([rose], "alternatives[0]"),
        (["moon-dust"], "alternatives[0]"),
    ):
        with pytest.raises(InvalidInput) as refused:
            await stores.manage(SetAlternatives(sku=tea, alternatives=alternatives, by="bea"))
        assert refused.value.field == field
    await stores.manage(SetAlternatives(sku=tea, alternatives=[mint], by="bea"))
    assert (await stores.stock_of(tea)).alternatives == [mint]
    await stores.manage(SetAlternatives(sku=tea, alternatives=[], by="bea"))
    assert (await stores.stock_of(tea)).alternatives == []


async def test_what_is_not_sold_any_more_is_unknown_until_a_catalogue_brings_it_back(
    stores: Stores, database: Database
) -> None:
    tea = await some_tea(database)
    sold = await stores.product(tea)
    await stores.manage(RemoveProduct(sku=tea, by="bea"))
    with pytest.raises(Refused) as refused:
        await stores.reserve(reserve(tea))
    assert refused.value.refusal.code == "unknown_product"
    assert await stores.products(store=sold.store) == []
    assert await stores.stock(store=sold.store) == []
    for unknown in (
        stores.product(tea),
        stores.stock_of(tea),
        stores.manage(ChangePrice(sku=tea, price_cents=1, by="bea")),
        stores.manage(ReceiveStock(sku=tea, quantity=1, receipt="D1", by="bea")),
        stores.manage(RemoveProduct(sku="moon-dust", by="bea")),
    ):
        with pytest.raises(NotFound):
            await unknown
    again = CatalogLine(sku=tea, store=sold.store, name="tea", brand="Ours", price_cents=260)
    done = await import_catalog(database, [again], currency="USD")
    assert (done.products_added, done.prices_changed) == (1, 0)
    assert await stores.product(tea) == sold.model_copy(update={"price_cents": 260})


async def test_two_stores_never_have_one_name(stores: Stores, database: Database) -> None:
    ids = [await store_of(stores, await some_tea(database)) for _ in range(4)]
    name = f"Grocery {ids[0]}"
    outcomes = await asyncio.gather(
        *(stores.manage(RenameStore(store_id=store_id, name=name, by="bea")) for store_id in ids),
        return_exceptions=True,
    )
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Conflict"] * 3 + ["NoneType"]
    named = [store for store in await stores.stores() if store.name == name]
    assert [await stores.store(store.id) for store in named] == named
    with pytest.raises(NotFound):
        await stores.manage(RenameStore(store_id=new_id(), name="Nowhere", by="bea"))
    with pytest.raises(NotFound):
        await stores.store(new_id())


async def test_a_store_that_opens_again_sells_again(stores: Stores, database: Database) -> None:
    tea = await some_tea(database)
    store_id = await store_of(stores, tea)
    await stores.manage(SetParticipation(store_id=store_id, open=False, by="bea"))
    with pytest.raises(Refused) as refused:
        await stores.reserve(reserve(tea))
    assert refused.value.refusal.code == "store_closed"
    await stores.manage(SetParticipation(store_id=store_id, open=True, by="bea"))
    await stores.reserve(reserve(tea))


async def test_staff_find_what_is_few_page_by_page(stores: Stores, database: Database) -> None:
    skus = await stocked(database, **{f"tea {n}": n for n in range(3, 10)}, rum=1)
    shop = (await stores.product(skus["rum"])).store
    seen: list[str] = []
    while page := await stores.stock(
        store=shop, words="tea", low_only=True, after=seen[-1] if seen else "", limit=2
    ):
        assert all(stock.low for stock in page)
        seen += [stock.sku for stock in page]
    assert seen == sorted(skus[name] for name in ("tea 3", "tea 4", "tea 5"))
    stock = await stores.stock_of(skus["tea 9"])
    assert (stock.on_hand, stock.reserved, stock.available, stock.low_at, stock.low) == (9, 0, 9, 5, False)

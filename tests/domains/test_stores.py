"""Stores: stock is held for an order, all of it or none, and the last piece is sold once."""

import asyncio
import random
from uuid import UUID

import pytest
from sqlalchemy import text

from domains.stores.messages import ReleaseStock, ReserveStock
from domains.stores.service import Stores
from kernel.database import Database
from kernel.errors import NotFound, OrderClosed, Refused
from kernel.ids import new_id
from kernel.messages import OrderLine
from tests.samples import line, stocked


def reserve(*lines: OrderLine, order_id: UUID | None = None) -> ReserveStock:
    return ReserveStock(order_id=order_id or new_id(), lines=list(lines), currency="USD")


def release(order_id: UUID) -> ReleaseStock:
    return ReleaseStock(order_id=order_id, reason="payment_declined")


async def reserved(database: Database, sku: str) -> int:
    async with database.transaction() as connection:
        found = await connection.execute(text("SELECT reserved FROM stores.stock WHERE sku = :sku"), {"sku": sku})
        return int(found.scalar_one())


async def events_of(database: Database, order_id: UUID) -> list[str]:
    async with database.transaction() as connection:
        rows = await connection.execute(
            text("SELECT type FROM stores.events WHERE stream = :stream ORDER BY version"),
            {"stream": f"reservation-{order_id}"},
        )
        return [row.type for row in rows]


async def test_a_reservation_made_twice_holds_the_stock_once_at_the_same_prices(
    stores: Stores, database: Database
) -> None:
    skus = await stocked(database, tea=10)
    command = reserve(line(skus["tea"], 3))
    first = await stores.reserve(command)
    assert await stores.reserve(command) == first
    assert first.total_cents == 750
    assert [(held.name, held.quantity, held.unit_price_cents) for held in first.lines] == [("tea", 3, 250)]
    assert await reserved(database, skus["tea"]) == 3
    assert await events_of(database, command.order_id) == ["StockReserved"]


async def test_two_lines_of_one_product_are_held_together(stores: Stores, database: Database) -> None:
    skus = await stocked(database, tea=5)
    with pytest.raises(Refused) as refused:
        await stores.reserve(reserve(line(skus["tea"], 3), line(skus["tea"], 3)))
    assert [(bad.sku, bad.quantity, bad.available) for bad in refused.value.refusal.lines] == [(skus["tea"], 6, 5)]
    held = await stores.reserve(reserve(line(skus["tea"], 3), line(skus["tea"], 2)))
    assert [bought.quantity for bought in held.lines] == [3, 2]
    assert await reserved(database, skus["tea"]) == 5


async def test_if_one_line_falls_short_nothing_is_held(stores: Stores, database: Database) -> None:
    skus = await stocked(database, tea=10, rum=1)
    command = reserve(line(skus["tea"], 2), line(skus["rum"], 2))
    with pytest.raises(Refused) as refused:
        await stores.reserve(command)
    assert refused.value.refusal.code == "insufficient_stock"
    assert [bad.sku for bad in refused.value.refusal.lines] == [skus["rum"]]
    assert await reserved(database, skus["tea"]) == 0
    assert await events_of(database, command.order_id) == []


async def test_a_product_that_nobody_sells_is_refused_by_name(stores: Stores) -> None:
    with pytest.raises(Refused) as refused:
        await stores.reserve(reserve(line("moon-dust")))
    assert refused.value.refusal.code == "unknown_product"
    assert [bad.sku for bad in refused.value.refusal.lines] == ["moon-dust"]


async def test_a_closed_store_sells_nothing(stores: Stores, database: Database) -> None:
    skus = await stocked(database, tea=10)
    async with database.transaction() as connection:
        await connection.execute(
            text(
                "UPDATE stores.stores SET open = false"
                " WHERE id = (SELECT store_id FROM stores.products WHERE sku = :sku)"
            ),
            {"sku": skus["tea"]},
        )
    with pytest.raises(Refused) as refused:
        await stores.reserve(reserve(line(skus["tea"])))
    assert refused.value.refusal.code == "store_closed"


async def test_a_release_frees_the_stock_once_however_often_it_comes(stores: Stores, database: Database) -> None:
    skus = await stocked(database, tea=10)
    kept, dropped = reserve(line(skus["tea"], 2)), reserve(line(skus["tea"], 3))
    await stores.reserve(kept)
    await stores.reserve(dropped)
    await asyncio.gather(*(stores.release(release(dropped.order_id)) for _ in range(3)))
    assert await reserved(database, skus["tea"]) == 2
    assert await events_of(database, dropped.order_id) == ["StockReserved", "StockReleased"]


async def test_a_reserve_that_comes_after_its_release_is_refused(stores: Stores, database: Database) -> None:
    skus = await stocked(database, tea=10)
    command = reserve(line(skus["tea"]))
    await stores.release(release(command.order_id))
    await stores.release(release(command.order_id))
    with pytest.raises(OrderClosed):
        await stores.reserve(command)
    assert await reserved(database, skus["tea"]) == 0
    assert await events_of(database, command.order_id) == ["StockReleased"]


async def test_the_price_of_an_accepted_order_never_changes(stores: Stores, database: Database) -> None:
    skus = await stocked(database, tea=10)
    command = reserve(line(skus["tea"]))
    first = await stores.reserve(command)
    async with database.transaction() as connection:
        await connection.execute(
            text("UPDATE stores.products SET price_cents = 999, name = 'Tea!' WHERE sku = :sku"),
            {"sku": skus["tea"]},
        )
    assert await stores.reserve(command) == first


async def test_the_last_pieces_are_sold_once_to_whoever_comes_first(stores: Stores, database: Database) -> None:
    skus = await stocked(database, tea=20)
    outcomes = await asyncio.gather(
        *(stores.reserve(reserve(line(skus["tea"]))) for _ in range(50)), return_exceptions=True
    )
    refused = [outcome for outcome in outcomes if isinstance(outcome, Refused)]
    assert len(refused) == 30
    assert {outcome.refusal.code for outcome in refused} == {"insufficient_stock"}
    assert len(outcomes) - len(refused) == 20
    assert await reserved(database, skus["tea"]) == 20


async def test_many_orders_for_the_same_products_in_any_order_never_deadlock(
    stores: Stores, database: Database
) -> None:
    skus = list((await stocked(database, **{f"p{n}": 1000 for n in range(12)})).values())
    chance = random.Random(7)
    commands = [reserve(*(line(sku) for sku in chance.sample(skus, len(skus)))) for _ in range(30)]
    held = await asyncio.gather(*(stores.reserve(command) for command in commands))
    assert len(held) == 30
    await asyncio.gather(*(stores.release(release(command.order_id)) for command in commands[:10]))
    assert {await reserved(database, sku) for sku in skus} == {20}


async def test_products_are_found_by_the_beginnings_of_their_words(stores: Stores, database: Database) -> None:
    skus = await stocked(database, **{"earl grey": 3, "green tea": 4})
    shop = (await stores.product(skus["earl grey"])).store
    assert [p.name for p in await stores.products(store=shop, words="GRE ear")] == ["earl grey"]
    assert [p.name for p in await stores.products(store=shop, words="gre ours")] == ["earl grey", "green tea"]
    assert await stores.products(store=shop, words="coffee") == []
    assert await stores.products(store=shop, words="& | ! ' ( :*") != []


async def test_pages_of_products_follow_each_other_without_gap_or_repeat(
    stores: Stores, database: Database
) -> None:
    skus = await stocked(database, **{f"p{n}": 1 for n in range(7)})
    shop = (await stores.product(skus["p0"])).store
    seen: list[str] = []
    while page := await stores.products(store=shop, after=seen[-1] if seen else "", limit=3):
        seen += [product.sku for product in page]
    assert seen == sorted(skus.values())


async def test_what_is_available_leaves_out_what_is_held(stores: Stores, database: Database) -> None:
    skus = await stocked(database, tea=10)
    await stores.reserve(reserve(line(skus["tea"], 4)))
    assert (await stores.product(skus["tea"])).available == 6
    with pytest.raises(NotFound):
        await stores.product("moon-dust")

"""Stores: stock is held for an order, all of it or none; what is missing is let go or substituted; and the last
piece is sold once."""

import asyncio
import random
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from domains.stores.catalog import import_catalog
from domains.stores.messages import (
    Adjustment,
    AdjustReservation,
    CatalogLine,
    ChangePrice,
    ConsumeStock,
    CorrectStock,
    DropSubstitutes,
    ReceiveStock,
    ReleaseStock,
    RemoveProduct,
    RenameProduct,
    Reservation,
    ReserveStock,
    ReturnStock,
    SetAlternatives,
    SetLowStock,
    SetParticipation,
)
from domains.stores.model import HeldLine, spread_missing
from domains.stores.service import Stores
from kernel.database import Database
from kernel.errors import Conflict, NotFound, OrderClosed, Refused
from kernel.ids import new_id
from kernel.messages import IfMissing, OrderLine, Pieces
from tests.samples import line, priced, stocked


def reserve(*lines: OrderLine, order_id: UUID | None = None) -> ReserveStock:
    return ReserveStock(order_id=order_id or new_id(), lines=list(lines), currency="USD")


def release(order_id: UUID, **carried: int) -> ReleaseStock:
    return ReleaseStock(order_id=order_id, reason="payment_declined", carried=pieces(**carried))


def adjust(command: ReserveStock, round: int = 1, **missing: int) -> AdjustReservation:
    """So many pieces of an order's products are missing, by the beginnings of their skus."""
    return AdjustReservation(
        order_id=command.order_id, round=round, lines=command.lines, missing=pieces(**missing)
    )


def pieces(**by_sku: int) -> list[Pieces]:
    return [Pieces(sku=sku, quantity=quantity) for sku, quantity in by_sku.items()]


def wish(sku: str, quantity: int, if_missing: IfMissing, *, dearer: bool = False) -> OrderLine:
    return OrderLine(sku=sku, quantity=quantity, if_missing=if_missing, dearer_substitute=dearer)


def held(answer: Reservation | Adjustment) -> list[tuple[str, int, int]]:
    """The product's name, pieces and price of each line."""
    assert answer.total_cents == sum(one.quantity * one.unit_price_cents for one in answer.lines)
    return [(one.name, one.quantity, one.unit_price_cents) for one in answer.lines]


async def offer_instead(stores: Stores, sku: str, *alternatives: str) -> None:
    await stores.manage(SetAlternatives(sku=sku, alternatives=list(alternatives), by="bea"))


async def tea_and_its_alternatives(stores: Stores, database: Database, **stock: int) -> dict[str, str]:
    """Ten pieces of tea, and so many of what may be had instead, in this order."""
    skus = await stocked(database, tea=10, **stock)
    await offer_instead(stores, skus["tea"], *(skus[name] for name in stock))
    return skus


async def close_store_of(stores: Stores, sku: str) -> None:
    store_id = (await stores.stock_of(sku)).store_id
    await stores.manage(SetParticipation(store_id=store_id, open=False, by="bea"))


async def on_hand(database: Database, sku: str) -> int:
    async with database.transaction() as connection:
        found = await connection.execute(text("SELECT on_hand FROM stores.stock WHERE sku = :sku"), {"sku": sku})
        return int(found.scalar_one())


async def told(database: Database, stream: str) -> list[tuple[str, dict[str, Any]]]:
    """The events of a stream, with their data."""
    async with database.transaction() as connection:
        rows = await connection.execute(
            text("SELECT type, data FROM stores.events WHERE stream = :stream ORDER BY version"),
            {"stream": stream},
        )
        return [(row.type, row.data) for row in rows]


async def reserved(database: Database, sku: str) -> int:
    async with database.transaction() as connection:
        found = await connection.execute(text("SELECT reserved FROM stores.stock WHERE sku = :sku"), {"sku": sku})
        return int(found.scalar_one())


async def events_of(database: Database, order_id: UUID) -> list[str]:
    return [kind for kind, _ in await told(database, f"reservation-{order_id}")]


async def lows_of(database: Database, sku: str) -> list[int]:
    """What was left each time that the product ran low."""
    return [data["available"] for kind, data in await told(database, f"product-{sku}") if kind == "StockRanLow"]


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
    await close_store_of(stores, skus["tea"])
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
    await stores.manage(
        ChangePrice(sku=skus["tea"], price_cents=999, by="bea"),
        RenameProduct(sku=skus["tea"], name="Tea!", by="bea"),
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


async def test_missing_pieces_are_free_again_and_somebody_is_asked_to_count(
    stores: Stores, database: Database
) -> None:
    skus = await stocked(database, tea=10, rum=10)
    command = reserve(line(skus["tea"], 3), line(skus["rum"], 2))
    await stores.reserve(command)
    adjusted = await stores.adjust(adjust(command, **{skus["tea"]: 2, skus["rum"]: 2}))
    assert held(adjusted) == [("tea", 1, 250)]
    assert adjusted.substitutes == []
    assert [await reserved(database, sku) for sku in skus.values()] == [1, 0]
    assert [await on_hand(database, sku) for sku in skus.values()] == [10, 10]
    assert await events_of(database, command.order_id) == ["StockReserved", "StockAdjusted"]
    _, found_missing = (await told(database, f"product-{skus['tea']}"))[-1]
    assert found_missing == {"sku": skus["tea"], "order_id": str(command.order_id), "quantity": 2}


async def test_an_adjustment_repeated_is_the_same_adjustment(stores: Stores, database: Database) -> None:
    skus = await tea_and_its_alternatives(stores, database, coffee=10)
    command = reserve(wish(skus["tea"], 3, "substitute"))
    await stores.reserve(command)
    answers = await asyncio.gather(*(stores.adjust(adjust(command, **{skus["tea"]: 2})) for _ in range(4)))
    assert all(answer == answers[0] for answer in answers)
    assert held(answers[0]) == [("tea", 1, 250), ("coffee", 2, 250)]
    assert [await reserved(database, skus[name]) for name in ("tea", "coffee")] == [1, 2]
    assert await events_of(database, command.order_id) == ["StockReserved", "StockAdjusted"]


async def test_missing_pieces_are_taken_from_the_line_that_minds_least(stores: Stores, database: Database) -> None:
    skus = await tea_and_its_alternatives(stores, database, coffee=10)
    tea = skus["tea"]
    command = reserve(wish(tea, 1, "cancel"), wish(tea, 2, "substitute"), wish(tea, 3, "skip"))
    before = await stores.reserve(command)
    adjusted = await stores.adjust(adjust(command, 1, **{tea: 4}))
    assert held(adjusted) == [("tea", 1, 250), ("tea", 1, 250), ("coffee", 1, 250)]
    refused = await stores.adjust(adjust(command, 2, **{tea: 2}))
    assert refused.must_cancel == [tea]
    assert held(refused) == held(adjusted) != held(before)
    assert [await reserved(database, skus[name]) for name in ("tea", "coffee")] == [2, 1]
    assert await events_of(database, command.order_id) == ["StockReserved", "StockAdjusted"]


async def test_if_a_line_says_to_cancel_then_nothing_is_changed(stores: Stores, database: Database) -> None:
    skus = await stocked(database, tea=10, rum=10)
    command = reserve(wish(skus["tea"], 2, "skip"), wish(skus["rum"], 2, "cancel"))
    reservation = await stores.reserve(command)
    answer = await stores.adjust(adjust(command, **{skus["tea"]: 2, skus["rum"]: 1}))
    assert answer.must_cancel == [skus["rum"]]
    assert held(answer) == held(reservation)
    assert await events_of(database, command.order_id) == ["StockReserved"]


async def test_what_is_missing_comes_from_one_alternative_if_one_has_enough(
    stores: Stores, database: Database
) -> None:
    skus = await tea_and_its_alternatives(stores, database, mint=2, rose=3, mate=9)
    command = reserve(wish(skus["tea"], 3, "substitute"))
    await stores.reserve(command)
    adjusted = await stores.adjust(adjust(command, **{skus["tea"]: 3}))
    assert held(adjusted) == [("rose", 3, 250)]
    (substitution,) = adjusted.substitutes
    assert (substitution.sku, substitution.line) == (skus["tea"], adjusted.lines[0])


async def test_what_no_alternative_has_enough_of_comes_from_several_and_the_rest_is_skipped(
    stores: Stores, database: Database
) -> None:
    skus = await tea_and_its_alternatives(stores, database, mint=2, none=0, rose=3)
    command = reserve(wish(skus["tea"], 4, "substitute"), wish(skus["tea"], 3, "substitute"))
    await stores.reserve(command)
    adjusted = await stores.adjust(adjust(command, **{skus["tea"]: 7}))
    assert held(adjusted) == [("mint", 2, 250), ("rose", 2, 250), ("rose", 1, 250)]
    assert [await reserved(database, skus[name]) for name in ("tea", "mint", "rose")] == [0, 2, 3]


async def test_a_substitute_is_dearer_only_if_the_customer_allowed_it(stores: Stores, database: Database) -> None:
    skus = await tea_and_its_alternatives(stores, database, gold=9, mint=9)
    await stores.manage(ChangePrice(sku=skus["gold"], price_cents=900, by="bea"))
    frugal, generous = (reserve(wish(skus["tea"], 2, "substitute", dearer=dearer)) for dearer in (False, True))
    await stores.reserve(frugal)
    await stores.reserve(generous)
    # What counts is the line's price, not today's.
    await stores.manage(ChangePrice(sku=skus["tea"], price_cents=1000, by="bea"))
    assert held(await stores.adjust(adjust(frugal, **{skus["tea"]: 2}))) == [("mint", 2, 250)]
    assert held(await stores.adjust(adjust(generous, **{skus["tea"]: 2}))) == [("gold", 2, 900)]


async def test_a_closed_store_a_removed_product_and_another_currency_are_no_alternatives(
    stores: Stores, database: Database
) -> None:
    skus = await stocked(database, tea=10, gone=10)
    elsewhere = await stocked(database, closed=10)
    euros = CatalogLine(sku=f"euro-{skus['tea']}", store=f"Euro {skus['tea']}", name="euro", price_cents=1)
    await import_catalog(database, [euros], currency="EUR", stock=10)
    await offer_instead(stores, skus["tea"], elsewhere["closed"], skus["gone"], euros.sku)
    await close_store_of(stores, elsewhere["closed"])
    await stores.manage(RemoveProduct(sku=skus["gone"], by="bea"))
    command = reserve(wish(skus["tea"], 2, "substitute"))
    await stores.reserve(command)
    assert held(await stores.adjust(adjust(command, **{skus["tea"]: 1}))) == [("tea", 1, 250)]


async def test_a_substitute_that_is_missing_too_is_substituted_by_what_was_not_missing_before(
    stores: Stores, database: Database
) -> None:
    skus = await tea_and_its_alternatives(stores, database, mint=9, rose=9)
    command = reserve(wish(skus["tea"], 2, "substitute"), line(skus["rose"]))
    await offer_instead(stores, skus["mint"], skus["tea"])
    await stores.reserve(command)
    first = await stores.adjust(adjust(command, 1, **{skus["tea"]: 1}))
    assert held(first) == [("tea", 1, 250), ("rose", 1, 250), ("mint", 1, 250)]
    second = await stores.adjust(adjust(command, 2, **{skus["mint"]: 1}))
    assert held(second) == [("tea", 1, 250), ("rose", 1, 250), ("rose", 1, 250)]
    assert [(one.sku, one.line.name) for one in second.substitutes] == [(skus["mint"], "rose")]
    # The line that would skip it goes first; and nothing is left that was not missing before.
    third = await stores.adjust(adjust(command, 3, **{skus["rose"]: 2, skus["tea"]: 1}))
    assert (held(third), third.substitutes) == ([], [])


async def test_substitutes_that_can_not_be_paid_are_let_go(stores: Stores, database: Database) -> None:
    skus = await tea_and_its_alternatives(stores, database, mint=1, rose=9)
    command = reserve(wish(skus["tea"], 3, "substitute"))
    await stores.reserve(command)
    await stores.adjust(adjust(command, 1, **{skus["tea"]: 1}))
    await stores.adjust(adjust(command, 2, **{skus["tea"]: 1}))
    drop = DropSubstitutes(order_id=command.order_id, round=2)
    answers = await asyncio.gather(*(stores.drop_substitutes(drop) for _ in range(3)))
    assert [held(answer) for answer in answers] == [[("tea", 1, 250), ("mint", 1, 250)]] * 3
    assert [await reserved(database, sku) for sku in skus.values()] == [1, 1, 0]
    events = await told(database, f"reservation-{command.order_id}")
    assert [kind for kind, _ in events] == ["StockReserved", *["StockAdjusted"] * 3]
    assert (events[-1][1]["missing"], events[-1][1]["substitutes"]) == ([], [])
    assert [one["sku"] for one in events[-1][1]["lines"]] == [skus["tea"], skus["mint"]]


async def test_what_left_the_mall_is_off_the_shelf_once(stores: Stores, database: Database) -> None:
    skus = await tea_and_its_alternatives(stores, database, mint=9)
    command = reserve(wish(skus["tea"], 3, "substitute"))
    await stores.reserve(command)
    await stores.adjust(adjust(command, **{skus["tea"]: 1}))
    consume = ConsumeStock(order_id=command.order_id)
    await asyncio.gather(*(stores.consume(consume) for _ in range(3)))
    assert [await on_hand(database, sku) for sku in skus.values()] == [8, 8]
    assert [await reserved(database, sku) for sku in skus.values()] == [0, 0]
    assert (await events_of(database, command.order_id))[2:] == ["StockConsumed"]
    for late in (
        stores.release(release(command.order_id)),
        stores.adjust(adjust(command, 2, **{skus["tea"]: 1})),
        stores.drop_substitutes(DropSubstitutes(order_id=command.order_id, round=1)),
    ):
        with pytest.raises(OrderClosed):
            await late


async def test_after_a_release_nothing_is_adjusted_or_consumed(stores: Stores, database: Database) -> None:
    skus = await stocked(database, tea=10)
    command = reserve(line(skus["tea"], 3))
    await stores.reserve(command)
    await stores.release(release(command.order_id))
    for late in (
        stores.adjust(adjust(command, **{skus["tea"]: 1})),
        stores.drop_substitutes(DropSubstitutes(order_id=command.order_id, round=1)),
        stores.consume(ConsumeStock(order_id=command.order_id)),
    ):
        with pytest.raises(OrderClosed):
            await late
    assert (await on_hand(database, skus["tea"]), await reserved(database, skus["tea"])) == (10, 0)
    with pytest.raises(NotFound):
        await stores.consume(ConsumeStock(order_id=new_id()))


async def test_what_a_robot_carries_stays_reserved_until_it_is_back(stores: Stores, database: Database) -> None:
    skus = await stocked(database, tea=10, rum=10)
    command = reserve(line(skus["tea"], 3), line(skus["rum"], 1))
    await stores.reserve(command)
    await stores.release(release(command.order_id, **{skus["tea"]: 2}))
    await stores.release(release(command.order_id))
    assert [await reserved(database, sku) for sku in skus.values()] == [2, 0]
    back = ReturnStock(order_id=command.order_id, pieces=pieces(**{skus["tea"]: 2, skus["rum"]: 1}))
    await asyncio.gather(*(stores.return_stock(back) for _ in range(3)))
    assert [await reserved(database, sku) for sku in skus.values()] == [0, 0]
    events = await told(database, f"reservation-{command.order_id}")
    assert [kind for kind, _ in events] == ["StockReserved", "StockReleased", "StockReturned"]
    carried = [{"sku": skus["tea"], "quantity": 2}]
    assert (events[1][1]["carried"], events[2][1]["pieces"]) == (carried, carried)


async def test_what_is_back_before_the_release_is_not_kept_by_it(stores: Stores, database: Database) -> None:
    skus = await stocked(database, tea=10)
    command = reserve(line(skus["tea"], 3))
    await stores.reserve(command)
    back = ReturnStock(order_id=command.order_id, pieces=pieces(**{skus["tea"]: 2}))
    await stores.return_stock(back)
    await stores.return_stock(back)
    assert await reserved(database, skus["tea"]) == 3
    await stores.release(release(command.order_id, **{skus["tea"]: 2}))
    await stores.return_stock(back)
    assert await reserved(database, skus["tea"]) == 0
    events = await told(database, f"reservation-{command.order_id}")
    assert [kind for kind, _ in events] == ["StockReserved", "StockReleased"]
    assert events[1][1]["carried"] == []


async def test_a_release_keeps_what_is_not_back_yet(stores: Stores, database: Database) -> None:
    skus = await stocked(database, tea=10)
    command = reserve(line(skus["tea"], 4))
    await stores.reserve(command)
    first, rest = (ReturnStock(order_id=command.order_id, pieces=pieces(**{skus["tea"]: n})) for n in (2, 3))
    await stores.return_stock(first)
    await stores.release(release(command.order_id, **{skus["tea"]: 3}))
    assert await reserved(database, skus["tea"]) == 1
    await stores.return_stock(rest)
    assert await reserved(database, skus["tea"]) == 0


async def test_a_robot_may_bring_back_less_and_then_the_rest(stores: Stores, database: Database) -> None:
    skus = await stocked(database, tea=10)
    command = reserve(line(skus["tea"], 3))
    await stores.reserve(command)
    await stores.release(release(command.order_id, **{skus["tea"]: 99}))
    left = []
    for quantity in (1, 1, 3, 2):
        back = pieces(**{skus["tea"]: quantity})
        await stores.return_stock(ReturnStock(order_id=command.order_id, pieces=back))
        left.append(await reserved(database, skus["tea"]))
    assert left == [2, 2, 0, 0]
    await stores.return_stock(ReturnStock(order_id=new_id(), pieces=pieces(**{skus["tea"]: 3})))
    assert await reserved(database, skus["tea"]) == 0


async def test_a_return_that_races_its_release_frees_everything_once(stores: Stores, database: Database) -> None:
    skus = await stocked(database, tea=100)
    commands = [reserve(line(skus["tea"], 3)) for _ in range(20)]
    await asyncio.gather(*(stores.reserve(command) for command in commands))
    carried = pieces(**{skus["tea"]: 2})
    await asyncio.gather(
        *(stores.release(release(command.order_id, **{skus["tea"]: 2})) for command in commands),
        *(stores.return_stock(ReturnStock(order_id=command.order_id, pieces=carried)) for command in commands),
    )
    assert await reserved(database, skus["tea"]) == 0


async def test_the_last_pieces_are_sold_once_also_as_substitutes(stores: Stores, database: Database) -> None:
    skus = await stocked(database, tea=20, mint=20, rose=12)
    await offer_instead(stores, skus["tea"], skus["rose"], skus["mint"])
    await offer_instead(stores, skus["mint"], skus["tea"], skus["rose"])
    commands = [reserve(wish(skus[name], 1, "substitute")) for _ in range(10) for name in ("tea", "mint")]
    await asyncio.gather(*(stores.reserve(command) for command in commands))

    async def buy() -> int:
        try:
            return len((await stores.reserve(reserve(line(skus["rose"])))).lines)
        except Refused:
            return 0

    async def miss(command: ReserveStock) -> int:
        adjusted = await stores.adjust(adjust(command, **{command.lines[0].sku: 1}))
        return sum(one.line.sku == skus["rose"] for one in adjusted.substitutes)

    taken = await asyncio.gather(*(miss(command) for command in commands), *(buy() for _ in range(10)))
    assert sum(taken) == await reserved(database, skus["rose"]) <= 12
    # Nobody went without while there was something that they would have had.
    assert sum(taken[20:]) == 10 or sum(taken) == 12
    assert sum([await reserved(database, sku) for sku in skus.values()]) == 20 + sum(taken[20:])


async def test_an_adjustment_and_a_release_at_once_leave_nothing_held(stores: Stores, database: Database) -> None:
    skus = await tea_and_its_alternatives(stores, database, mint=100)
    commands = [reserve(wish(skus["tea"], 1, "substitute")) for _ in range(10)]
    await asyncio.gather(*(stores.reserve(command) for command in commands))
    outcomes = await asyncio.gather(
        *(stores.adjust(adjust(command, **{skus["tea"]: 1})) for command in commands),
        *(stores.release(release(command.order_id)) for command in commands),
        return_exceptions=True,
    )
    assert {type(outcome) for outcome in outcomes if isinstance(outcome, BaseException)} <= {OrderClosed}
    assert [await reserved(database, sku) for sku in skus.values()] == [0, 0]


async def test_a_product_that_runs_low_is_told_once_until_there_is_more_again(
    stores: Stores, database: Database
) -> None:
    skus = await tea_and_its_alternatives(stores, database, mint=6)
    tea = skus["tea"]
    assert (await stores.stock_of(tea)).low is False
    big, small = reserve(line(tea, 5)), reserve(line(tea, 2))
    await stores.reserve(big)
    await stores.reserve(small)
    assert await lows_of(database, tea) == [5]
    assert (await stores.stock_of(tea)).low is True
    await stores.release(release(big.order_id))
    await stores.manage(CorrectStock(sku=tea, on_hand=6, by="bea"))
    assert await lows_of(database, tea) == [5, 4]
    await stores.manage(ReceiveStock(sku=tea, quantity=4, receipt="D1", by="bea"))
    await stores.manage(SetLowStock(sku=tea, low_at=9, by="bea"))
    assert await lows_of(database, tea) == [5, 4, 8]
    missing = reserve(wish(tea, 2, "substitute"))
    await stores.reserve(missing)
    await stores.adjust(adjust(missing, **{tea: 2}))
    assert await lows_of(database, skus["mint"]) == [4]


async def test_a_product_of_which_nobody_wants_to_hear_never_runs_low(stores: Stores, database: Database) -> None:
    skus = await stocked(database, tea=10)
    await stores.manage(SetLowStock(sku=skus["tea"], low_at=0, by="bea"))
    await stores.reserve(reserve(line(skus["tea"], 10)))
    assert await lows_of(database, skus["tea"]) == []
    assert (await stores.stock_of(skus["tea"])).low is False


async def test_of_many_orders_at_once_one_tells_that_a_product_ran_low(stores: Stores, database: Database) -> None:
    skus = await stocked(database, tea=20)
    await asyncio.gather(*(stores.reserve(reserve(line(skus["tea"]))) for _ in range(20)))
    assert await lows_of(database, skus["tea"]) == [5]


@dataclass
class Books:
    """What must come out of random commands: how much there is of each product, and what each order has of it."""

    on_hand: Counter[str]
    orders: list[ReserveStock] = field(default_factory=list)
    ended: dict[UUID, str] = field(default_factory=dict)
    held: dict[UUID, Counter[str]] = field(default_factory=dict)
    carried: defaultdict[UUID, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    returned: defaultdict[UUID, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    rounds: Counter[UUID] = field(default_factory=Counter)

    def reserved(self, sku: str) -> int:
        carried = sum(max(of[sku] - self.returned[order_id][sku], 0) for order_id, of in self.carried.items())
        return carried + sum(of[sku] for of in self.held.values())


Act = tuple[str, int, int, int, IfMissing]
"""What to do, to which order, with which product and how many pieces of it, and what a new line says."""

ORDERS_ACTS = ("adjust", "drop", "consume", "release", "return")
ACTS = st.tuples(
    st.sampled_from(["reserve", *ORDERS_ACTS, "adjust", "release", "return", "return", "receive", "correct"]),
    st.sampled_from([0, 0, 0, 1]),
    st.sampled_from([0, 0, 0, 1, 2]),
    st.integers(1, 4),
    st.sampled_from(["skip", "substitute", "cancel"]),
)


async def do(stores: Stores, books: Books, skus: list[str], act: Act) -> None:
    """Do it, and note what it must have done. The lines that an answer tells are believed."""
    what, which, number, quantity, if_missing = act
    sku = skus[number]
    if what == "receive":
        await stores.manage(ReceiveStock(sku=sku, quantity=quantity, receipt=str(new_id()), by="bea"))
        books.on_hand[sku] += quantity
    elif what == "correct":
        try:
            await stores.manage(CorrectStock(sku=sku, on_hand=quantity * 2, by="bea"))
            books.on_hand[sku] = quantity * 2
        except Conflict:
            assert quantity * 2 < books.reserved(sku)
    elif what == "reserve":
        command = reserve(wish(sku, quantity, if_missing), wish(skus[0], 1, "substitute"))
        with suppress(Refused):
            books.held[command.order_id] = count_pieces(await stores.reserve(command))
            books.orders.append(command)
    elif books.orders:
        order = books.orders[-1 - which % len(books.orders)]
        ended = books.ended.get(order.order_id)
        try:
            await do_to_order(stores, books, order, what, sku, quantity)
            assert what == "return" or ended in (None, what)
        except OrderClosed:
            assert ended not in (None, what)


async def do_to_order(
    stores: Stores, books: Books, order: ReserveStock, what: str, sku: str, quantity: int
) -> None:
    id = order.order_id
    some = pieces(**{sku: quantity})
    if what == "adjust":
        books.rounds[id] += 1
        adjusted = await stores.adjust(adjust(order, books.rounds[id], **{sku: quantity}))
        books.held[id] = count_pieces(adjusted)
    elif what == "drop":
        drop = DropSubstitutes(order_id=id, round=books.rounds[id])
        books.held[id] = count_pieces(await stores.drop_substitutes(drop))
    elif what == "return":
        await stores.return_stock(ReturnStock(order_id=id, pieces=some))
        books.returned[id][sku] = max(books.returned[id][sku], quantity)
    else:
        if what == "consume":
            await stores.consume(ConsumeStock(order_id=id))
            books.on_hand.subtract(books.held[id])
        else:
            await stores.release(release(id, **{sku: quantity}))
            if id not in books.ended:
                books.carried[id][sku] = min(quantity, books.held[id][sku])
        books.held[id] = Counter()
        books.ended[id] = what


def count_pieces(answer: Reservation | Adjustment) -> Counter[str]:
    counted: Counter[str] = Counter()
    for one in answer.lines:
        counted[one.sku] += one.quantity
    return counted


async def on_hand_by_events(database: Database, books: Books, sku: str) -> int:
    """What was received and corrected less what was consumed."""
    number = 0
    for kind, data in await told(database, f"product-{sku}"):
        number += {"StockReceived": data.get("quantity"), "StockCorrected": data.get("difference")}.get(kind) or 0
    for order_id, end in books.ended.items():
        if end == "consume":
            _, consumed = (await told(database, f"reservation-{order_id}"))[-1]
            number -= sum(one["quantity"] for one in consumed["lines"] if one["sku"] == sku)
    return number


@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)
@given(acts=st.lists(ACTS, min_size=6, max_size=16))
async def test_whatever_happens_no_piece_is_lost_or_made(
    stores: Stores, database: Database, acts: list[Act]
) -> None:
    skus = list((await stocked(database, tea=6, mint=6, rose=3)).values())
    shop = (await stores.product(skus[0])).store
    await offer_instead(stores, skus[0], skus[2], skus[1])
    await offer_instead(stores, skus[1], skus[0])
    books = Books(Counter(dict(zip(skus, (6, 6, 3), strict=True))))
    for act in acts:
        await do(stores, books, skus, act)
        for stock in await stores.stock(store=shop):
            assert (stock.on_hand, stock.reserved) == (books.on_hand[stock.sku], books.reserved(stock.sku)), act
            assert 0 <= stock.reserved <= stock.on_hand
    for sku in skus:
        assert await on_hand_by_events(database, books, sku) == books.on_hand[sku]


def test_of_an_ordered_and_a_substituted_piece_the_substitute_is_the_one_that_is_missing() -> None:
    ordered = HeldLine(1, priced("coffee", 1, 100))
    substitute = HeldLine(3, priced("coffee", 1, 200), instead_of=2, round=1)
    asked = {1: line("coffee"), 2: OrderLine(sku="tea", quantity=1, if_missing="substitute")}
    assert spread_missing([ordered, substitute], {"coffee": 1}, asked) == {3: 1}
    assert spread_missing([ordered, substitute], {"coffee": 2}, asked) == {1: 1, 3: 1}

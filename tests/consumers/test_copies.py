"""Carried state: Depot and Orders know names from the events of Stores, without asking Stores."""

from sqlalchemy import text

from consumers import copies
from domains.depot.messages import ScheduleShopping
from domains.depot.service import Depot
from domains.orders.service import Orders
from domains.stores.catalog import import_catalog
from domains.stores.messages import CatalogLine, RemoveProduct, RenameProduct, RenameStore
from domains.stores.service import Stores
from kernel.database import Database
from kernel.ids import new_id
from tests.consumers.reading import handle_again, read_all
from tests.samples import line, place, priced


async def sell(database: Database, sku: str, name: str, store: str = "Copper Kettle") -> None:
    entry = CatalogLine(sku=sku, store=store, name=name, brand="Ours", price_cents=250)
    await import_catalog(database, [entry], currency="USD", stock=5)


async def test_a_robot_looks_for_what_the_shelf_says_now(fresh_database: Database) -> None:
    depot = Depot(fresh_database)
    await sell(fresh_database, "tea", "Black Tea")
    stores = Stores(fresh_database)
    (shop,) = await stores.stores()
    await stores.manage(
        RenameProduct(sku="tea", name="Dawn Shift Black Tea", by="bea"),
        RenameStore(store_id=shop.id, name="The Copper Kettle", by="bea"),
    )
    await read_all(copies.DEPOT, fresh_database)

    sold_before = [priced("tea", store="Copper Kettle", name="Black Tea"), priced("rose", store="Floral")]
    await depot.schedule(ScheduleShopping(order_id=new_id(), lines=sold_before))
    async with fresh_database.transaction() as connection:
        rows = await connection.execute(
            text("SELECT sku, name, store FROM depot.shopping_list_items ORDER BY sku")
        )
        assert [tuple(row) for row in rows] == [
            ("rose", "rose", "Floral"),  # Depot has not heard of it yet
            ("tea", "Dawn Shift Black Tea", "The Copper Kettle"),
        ]


async def test_what_is_not_sold_any_more_is_not_known_to_depot_until_it_is_sold_again(
    fresh_database: Database,
) -> None:
    async def known() -> list[str]:
        await read_all(copies.DEPOT, fresh_database)
        async with fresh_database.transaction() as connection:
            return list(await connection.scalars(text("SELECT name FROM depot.products")))

    await sell(fresh_database, "tea", "Black Tea")
    await Stores(fresh_database).manage(RemoveProduct(sku="tea", by="bea"))
    assert await known() == []
    await sell(fresh_database, "tea", "Black Tea, new tin")
    assert await known() == ["Black Tea, new tin"]


async def test_an_order_that_is_pending_is_told_by_names(fresh_database: Database) -> None:
    orders = Orders(fresh_database)
    order = place(None, line("tea"), line("rose"))
    await orders.place(order)
    await sell(fresh_database, "tea", "Black Tea")
    await read_all(copies.ORDERS, fresh_database)
    view = await orders.view(order.order_id)
    assert view is not None
    assert [(one.sku, one.name) for one in view.lines] == [("tea", "Black Tea"), ("rose", None)]


async def test_an_event_that_comes_again_leaves_the_copies_as_they_are(fresh_database: Database) -> None:
    await sell(fresh_database, "tea", "Black Tea")
    await sell(fresh_database, "tea", "Dawn Shift Black Tea")
    for consumer in (copies.DEPOT, copies.ORDERS):
        await read_all(consumer, fresh_database)
        await handle_again(consumer, fresh_database)
    async with fresh_database.transaction() as connection:
        for schema in ("depot", "orders"):
            rows = await connection.execute(text(f"SELECT sku, name FROM {schema}.products"))
            assert [tuple(row) for row in rows] == [("tea", "Dawn Shift Black Tea")]

"""Stores hears from Depot what robots brought back, and it can be sold again."""

from uuid import UUID

from sqlalchemy import text

from consumers import returns
from domains.depot.messages import EVENTS, ItemsReturned
from domains.stores.messages import ReleaseStock, ReserveStock
from domains.stores.service import Stores
from events.store import EventStore
from kernel.database import Database
from kernel.ids import new_id
from kernel.messages import Pieces
from tests.consumers.reading import handle_again, read_all
from tests.samples import line, stocked

DEPOT = EventStore("depot", EVENTS)


async def robot_returns(database: Database, order_id: UUID, *pieces: Pieces) -> None:
    event = ItemsReturned(order_id=order_id, robot="robot-7", pieces=list(pieces))
    async with database.transaction() as connection:
        await DEPOT.record(connection, [(f"list-{order_id}", event)])


async def test_what_a_robot_brought_back_is_free_again_once(fresh_database: Database) -> None:
    stores = Stores(fresh_database)
    tea = (await stocked(fresh_database, tea=10))["tea"]
    before, behind = new_id(), new_id()
    carried = Pieces(sku=tea, quantity=2)
    for order_id in (before, behind):
        await stores.reserve(ReserveStock(order_id=order_id, lines=[line(tea, 3)], currency="USD"))
    await stores.release(ReleaseStock(order_id=before, reason="order_cancelled", carried=[carried]))
    assert (await stores.product(tea)).available == 5

    await robot_returns(fresh_database, before, carried)
    await robot_returns(fresh_database, behind, carried)
    await read_all(returns.CONSUMER, fresh_database)
    assert (await stores.product(tea)).available == 7
    await stores.release(ReleaseStock(order_id=behind, reason="order_cancelled", carried=[carried]))
    assert (await stores.product(tea)).available == 10
    await handle_again(returns.CONSUMER, fresh_database)
    assert (await stores.stock_of(tea)).reserved == 0


async def test_the_event_says_which_order_and_what_made_it(fresh_database: Database) -> None:
    stores = Stores(fresh_database)
    tea = (await stocked(fresh_database, tea=10))["tea"]
    order_id, carried = new_id(), Pieces(sku=tea, quantity=2)
    await stores.reserve(ReserveStock(order_id=order_id, lines=[line(tea, 3)], currency="USD"))
    await stores.release(ReleaseStock(order_id=order_id, reason="order_cancelled", carried=[carried]))
    await robot_returns(fresh_database, order_id, carried)
    await read_all(returns.CONSUMER, fresh_database)
    async with fresh_database.transaction() as connection:
        cause = await connection.scalar(text("SELECT id FROM depot.events WHERE type = 'ItemsReturned'"))
        rows = await connection.execute(
            text("SELECT correlation_id, causation_id, data FROM stores.events WHERE type = 'StockReturned'")
        )
        told = rows.one()
    assert (told.correlation_id, told.causation_id) == (order_id, f"ItemsReturned/{cause}")
    assert told.data == {"order_id": str(order_id), "pieces": [carried.model_dump()]}

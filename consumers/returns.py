"""Stores hears of what robots brought back to the shelves: it is free again."""

from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from domains.depot.messages import ItemsReturned
from domains.stores.messages import ReturnStock
from domains.stores.reservations import Reservations
from events.consumer import Consumer
from events.recorded import RecordedEvent
from events.store import Causation, caused_by


async def _free(connection: AsyncConnection, event: RecordedEvent) -> None:
    returned = event.read(ItemsReturned)
    cause = Causation(correlation_id=returned.order_id, causation_id=f"{event.type}/{event.id}")
    with caused_by(cause):
        command = ReturnStock(order_id=returned.order_id, pieces=returned.pieces)
        await Reservations(connection).return_stock(command)


CONSUMER: Final = Consumer("stores-returns", "stores", ("mallbots.depot.ItemsReturned.*",), _free)

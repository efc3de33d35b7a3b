"""What the domains say that they publish is what they write."""

import pytest
from sqlalchemy import text

from domains.depot.messages import CancelShopping, ScheduleShopping
from domains.depot.service import Depot
from domains.orders.messages import ApproveOrder, CancelOrder, RejectOrder
from domains.orders.service import Orders
from domains.payments.messages import VoidPayment
from domains.payments.sandbox import Sandbox
from domains.payments.service import Payments
from domains.published import PUBLISHED, stream_of
from domains.stores.catalog import import_catalog
from domains.stores.messages import CatalogLine, ReleaseStock, ReserveStock
from domains.stores.service import Stores
from events.event import Event
from kernel.database import Database
from kernel.errors import Refusal, Refused
from kernel.ids import new_id
from kernel.messages import Cancellation
from tests.samples import authorize, line, place, priced, stocked


async def _write_every_event(database: Database) -> None:
    orders, stores, depot = Orders(database), Stores(database), Depot(database)
    payments = Payments(database, Sandbox(database, timeout=0.05))
    order, rejected = place(), place()
    await orders.place(order)
    await orders.approve(ApproveOrder(order_id=order.order_id, lines=[priced()], total_cents=900))
    await orders.cancel(CancelOrder(order=order, cancellation=Cancellation(by="customer")))
    await orders.reject(RejectOrder(order=rejected, refusal=Refusal(code="payment_declined", detail="no")))
    skus = await stocked(database, tea=5)
    (sold,) = await stores.products_by_sku(skus.values())
    changed = CatalogLine(sku=sold.sku, store=sold.store, name="green tea", price_cents=sold.price_cents + 1)
    await import_catalog(database, [changed], currency="USD")
    await stores.reserve(ReserveStock(order_id=order.order_id, lines=[line(sold.sku)], currency="USD"))
    await stores.release(ReleaseStock(order_id=order.order_id, reason="order_cancelled"))
    await payments.authorize(authorize(order_id=order.order_id))
    await payments.void(VoidPayment(order_id=order.order_id, reason="order_cancelled"))
    with pytest.raises(Refused):
        await payments.authorize(authorize("tok_declined", new_id()))
    await depot.schedule(ScheduleShopping(order_id=order.order_id, lines=[priced()]))
    await depot.cancel(CancelShopping(order_id=order.order_id, reason="order_cancelled"))


async def test_each_domain_writes_the_events_that_it_names_on_the_streams_that_it_names(
    fresh_database: Database,
) -> None:
    await _write_every_event(fresh_database)
    for domain, published in PUBLISHED.items():
        kinds = {kind.__name__: kind for kind in published.events}
        written = text(f"SELECT type, schema_version, data, stream FROM {domain}.events")
        async with fresh_database.transaction() as connection:
            rows = (await connection.execute(written)).all()
        assert {row.type for row in rows} == set(kinds), domain
        for row in rows:
            assert row.stream == stream_of(kinds[row.type].read(row.schema_version, row.data))


def test_every_event_is_of_one_domain_and_on_one_of_its_streams() -> None:
    places: dict[str, list[str]] = {}
    for published in PUBLISHED.values():
        for kind in (*published.events, *published.announced):
            places[kind.__name__] = []
        for stream, kinds in published.streams.items():
            for kind in kinds:
                places[kind.__name__].append(stream)
    assert [name for name, streams in places.items() if len(streams) != 1] == []
    assert len(places) == sum(len((*one.events, *one.announced)) for one in PUBLISHED.values())


def test_an_event_of_no_domain_has_no_stream() -> None:
    class Rained(Event):
        """It rained."""

    with pytest.raises(LookupError, match="Rained is on no stream of a domain"):
        stream_of(Rained())

"""What the domains say that they publish is what they write."""

from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import text

from domains.depot.messages import AmendList, AssignList, CancelShopping, ScheduleShopping
from domains.depot.service import Depot
from domains.orders.messages import (
    AdjustOrder,
    ApproveOrder,
    CancelOrder,
    CompleteOrder,
    ExpireOrder,
    ReadyOrder,
    RefundOrder,
    RejectOrder,
    RemindOfPickup,
    WithdrawRefund,
)
from domains.orders.service import Orders
from domains.payments.messages import AdjustPayment, CapturePayment, RefundPayment, VoidPayment
from domains.payments.provider import ProviderEvent
from domains.payments.sandbox import Sandbox
from domains.payments.service import Payments
from domains.published import PUBLISHED, stream_of
from domains.stores.catalog import import_catalog
from domains.stores.messages import (
    AdjustReservation,
    CatalogLine,
    ConsumeStock,
    CorrectStock,
    ReceiveStock,
    ReleaseStock,
    RemoveProduct,
    RenameStore,
    ReserveStock,
    ReturnStock,
    SetAlternatives,
    SetLowStock,
    SetParticipation,
)
from domains.stores.service import Stores
from events.event import Event
from kernel.database import Database
from kernel.errors import Refusal, Refused
from kernel.ids import new_id, now
from kernel.messages import Cancellation, Expiry, Pieces
from tests.samples import authorize, line, place, priced, stocked


async def _write_every_event(database: Database) -> None:
    skus = await stocked(database, tea=50, mug=50)
    await _write_those_of_orders(Orders(database))
    await _write_those_of_stores(database, skus["tea"], skus["mug"])
    await _write_those_of_payments(Payments(database, Sandbox(database, timeout=0.05)))
    await _write_those_of_depot(Depot(database))


async def _write_those_of_orders(orders: Orders) -> None:
    completed, cancelled, expired, rejected = place(), place(), place(), place()
    until = now() + timedelta(days=1)
    for order in (completed, cancelled, expired):
        await orders.place(order)
        await orders.approve(ApproveOrder(order_id=order.order_id, lines=[priced()], total_cents=900))
    await orders.reject(RejectOrder(order=rejected, refusal=Refusal(code="payment_declined", detail="no")))
    await orders.cancel(CancelOrder(order=cancelled, cancellation=Cancellation(by="customer")))
    for order in (completed, expired):
        await orders.make_ready(ReadyOrder(order_id=order.order_id, pickup_until=until))
    await orders.expire(ExpireOrder(order=expired, expiry=Expiry(pickup_until=until)))

    order_id, refund_id = completed.order_id, new_id()
    await orders.remind(RemindOfPickup(order_id=order_id, number=1))
    await orders.complete(CompleteOrder(order_id=order_id, by="bea"))
    await orders.refund(RefundOrder(order_id=order_id, refund_id=refund_id, lines=None, by="bea"))
    await orders.withdraw_refund(WithdrawRefund(order_id=order_id, refund_id=refund_id, reason="declined"))

    adjusted = place()
    await orders.place(adjusted)
    await orders.approve(ApproveOrder(order_id=adjusted.order_id, lines=[priced()], total_cents=900))
    await orders.adjust(
        AdjustOrder(
            order_id=adjusted.order_id,
            round=1,
            lines=[priced(quantity=1)],
            total_cents=450,
            missing=[Pieces(sku="tea", quantity=1)],
        )
    )


async def _write_those_of_stores(database: Database, tea: str, mug: str) -> None:
    stores = Stores(database)
    (sold,) = await stores.products_by_sku([tea])
    changed = CatalogLine(sku=tea, store=sold.store, name="green tea", price_cents=sold.price_cents + 1)
    await import_catalog(database, [changed], currency="USD")
    store_id = (await stores.stock_of(tea)).store_id
    handed_over, released = new_id(), new_id()
    asked = [line(tea, 2)]
    for order_id in (handed_over, released):
        await stores.reserve(ReserveStock(order_id=order_id, lines=asked, currency="USD"))
    one = [Pieces(sku=tea, quantity=1)]
    await stores.adjust(AdjustReservation(order_id=handed_over, round=1, missing=one, lines=asked))
    await stores.consume(ConsumeStock(order_id=handed_over))
    await stores.release(ReleaseStock(order_id=released, reason="cancelled by staff", carried=one))
    await stores.return_stock(ReturnStock(order_id=released, pieces=one))
    await stores.manage(
        ReceiveStock(sku=tea, quantity=5, receipt="R-17", by="bea"),
        SetAlternatives(sku=tea, alternatives=[mug], by="bea"),
        SetLowStock(sku=tea, low_at=20, by="bea"),
        CorrectStock(sku=tea, on_hand=10, by="bea"),
        RemoveProduct(sku=mug, by="bea"),
        RenameStore(store_id=store_id, name="Tea and Mugs", by="bea"),
        SetParticipation(store_id=store_id, open=False, by="bea"),
    )


async def _write_those_of_payments(payments: Payments) -> None:
    paid = authorize()
    refund_id = new_id()
    await payments.authorize(paid)
    await payments.adjust(AdjustPayment(order_id=paid.order_id, round=1, amount_cents=800))
    await payments.capture(CapturePayment(order_id=paid.order_id, attempt=1))
    await payments.refund(RefundPayment(order_id=paid.order_id, refund_id=refund_id, amount_cents=100))
    await _tell_that_the_refund_failed(payments, paid.order_id, refund_id)
    voided = authorize()
    await payments.authorize(voided)
    await payments.void(VoidPayment(order_id=voided.order_id, reason="order_cancelled"))
    with pytest.raises(Refused):
        await payments.authorize(authorize("tok_declined"))
    lapsing = authorize("tok_hold_lapses")
    await payments.authorize(lapsing)
    with pytest.raises(Refused):
        await payments.capture(CapturePayment(order_id=lapsing.order_id, attempt=1))


async def _tell_that_the_refund_failed(payments: Payments, order_id: UUID, refund_id: UUID) -> None:
    view = await payments.view(order_id)
    assert view is not None
    assert view.reference is not None
    reference = await payments._provider.refund(
        order_id, refund_id, view.reference, 100, idempotency_key=f"refund-{refund_id}"
    )
    await payments.note_provider_event(
        ProviderEvent(
            f"evt_{new_id().hex}",
            "refund_failed",
            order_id,
            view.reference,
            100,
            reason="expired_or_canceled_card",
            refund_id=refund_id,
            refund_reference=reference,
        )
    )


async def _write_those_of_depot(depot: Depot) -> None:
    brought, cancelled = new_id(), new_id()
    for order_id in (brought, cancelled):
        await depot.schedule(ScheduleShopping(order_id=order_id, lines=[priced()]))
        await depot.assign(AssignList(order_id=order_id, round=1))
        await depot.online("r1")
        await depot.take_list("r1")
        await depot.report_item("r1", order_id, 1, "tea", picked=1, missing=1)
        if order_id == brought:
            await depot.amend(AmendList(order_id=order_id, round=1, lines=[]))
            await depot.finish("r1", order_id)
    await depot.cancel(CancelShopping(order_id=cancelled, reason="cancelled by staff"))
    await depot.returned("r1", cancelled)
    await depot.on_break("r1")
    await depot.hold("r1", "bea")
    await depot.resume("r1", "bea")
    await depot.retire("r1", "bea")


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
        for kind in published.events:
            places[kind.__name__] = []
        for stream, kinds in published.streams.items():
            for kind in kinds:
                places[kind.__name__].append(stream)
    assert [name for name, streams in places.items() if len(streams) != 1] == []
    assert len(places) == sum(len(one.events) for one in PUBLISHED.values())


def test_an_event_of_no_domain_has_no_stream() -> None:
    class Rained(Event):
        """It rained."""

    with pytest.raises(LookupError, match="Rained is on no stream of a domain"):
        stream_of(Rained())

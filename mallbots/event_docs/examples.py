"""An example of each event, out of one story of an order. Fixed, so that the documents are."""

from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

from domains.depot.messages import (
    Item,
    ItemMissing,
    ItemPicked,
    ItemsReturned,
    RobotHeld,
    RobotOffline,
    RobotOnline,
    RobotRegistered,
    RobotResumed,
    RobotRetired,
    ShoppingListAmended,
    ShoppingListAssigned,
    ShoppingListCancelled,
    ShoppingListCompleted,
    ShoppingListReleased,
    ShoppingListScheduled,
    Stop,
)
from domains.orders.messages import (
    OrderAdjusted,
    OrderApproved,
    OrderCancelled,
    OrderCompleted,
    OrderExpired,
    OrderPlaced,
    OrderReadied,
    OrderRefunded,
    OrderRefundWithdrawn,
    OrderRejected,
    PickupReminded,
)
from domains.payments.messages import (
    PaymentAdjusted,
    PaymentAuthorized,
    PaymentCaptured,
    PaymentDeclined,
    PaymentHoldLapsed,
    PaymentRefunded,
    PaymentRefundFailed,
    PaymentVoided,
)
from domains.published import stream_of
from domains.stores.messages import (
    AlternativesChanged,
    LowStockChanged,
    ProductAdded,
    ProductPriceChanged,
    ProductRemoved,
    ProductRenamed,
    StockAdjusted,
    StockConsumed,
    StockCorrected,
    StockFoundMissing,
    StockRanLow,
    StockReceived,
    StockReleased,
    StockReserved,
    StockReturned,
    StoreOpened,
    StoreParticipationChanged,
    StoreRenamed,
)
from events.event import Event
from events.recorded import LogPosition, RecordedEvent
from kernel.errors import Refusal, RefusedLine
from kernel.messages import Cancellation, DomainName, Expiry, OrderLine, Pieces, PricedLine, Substitution

_ORDER: Final = UUID("01a20764-c08f-7549-8fc7-4c3021e7838a")
_REFUND: Final = UUID("01a20a11-52b3-7d81-9f0e-6ac4d27b5813")
_STORE: Final = UUID("01a20760-11d4-7c3e-9b52-0f6a7e1c4d28")
_EVENT: Final = UUID("01a20764-c1e6-7d05-b3a8-52f09c6e1b74")
_IMPORTED: Final = UUID("01a20760-10b2-7f45-a1d9-3c8e5b7f9021")
_IMPORT: Final = "catalog-import"
_RUN: Final = "01a20764-c0a1-7b1f-8a63-9d2e4f507c16"
_REFUND_RUN: Final = "01a20a11-52c0-7e36-b1d7-08f5c9a2e64b"
_AT: Final = datetime(2026, 3, 14, 9, 26, 53, 589793, tzinfo=UTC)
_UNTIL: Final = _AT + timedelta(hours=24)
_TEA: Final = "kettle-dawn-50"
_NAME: Final = "Dawn Shift Black Tea, 50 bags"
_ROOIBOS: Final = "kettle-dusk-25"
_SHOP: Final = "Copper Kettle"
_BRAND: Final = "Kettle & Daughter"
_ROBOT: Final = "robot-7"
_STAFF: Final = "bea"
_TEAS: Final = PricedLine(sku=_TEA, name=_NAME, store=_SHOP, quantity=2, unit_price_cents=649)
_ONE_TEA: Final = _TEAS.model_copy(update={"quantity": 1})
_SUBSTITUTE: Final = PricedLine(
    sku=_ROOIBOS, name="Dusk Shift Rooibos, 25 bags", store=_SHOP, quantity=1, unit_price_cents=599
)
_MISSING: Final = [Pieces(sku=_TEA, quantity=1)]
_SUBSTITUTED: Final = [Substitution(sku=_TEA, line=_SUBSTITUTE)]
_HAD: Final = [_ONE_TEA, _SUBSTITUTE]
_TOTAL: Final = 1248
_HOLD: Final = "hold_01a20764-c11b-7e90-8d3c-6b7f21a0e45d"
_NO_STOCK: Final = Refusal(
    code="insufficient_stock",
    detail=f"there is not enough left of {_TEA}",
    lines=[RefusedLine(sku=_TEA, quantity=2, available=1)],
)
_NO_MONEY: Final = Refusal(code="payment_declined", detail="the card was declined")


class _Told(NamedTuple):
    """An event, its version in its stream, and what led to it: a step of a saga, another event, the import
    of a catalogue (which is a story of its own), or nothing of these, as with robots and staff."""

    event: Event
    version: int
    by: str | None = None


def _stops(line: PricedLine) -> list[Stop]:
    return [Stop(store=line.store, items=[Item(sku=line.sku, name=line.name, quantity=line.quantity)])]


_STORY: Final = (
    # Orders
    _Told(
        OrderPlaced(
            order_id=_ORDER,
            kiosk="kiosk-1",
            customer="ada",
            lines=[OrderLine(sku=_TEA, quantity=2, if_missing="substitute")],
            payment_method="card",
            currency="USD",
            placed_at=_AT - timedelta(milliseconds=12),
        ),
        1,
        f"orders.place/{_RUN}/1",
    ),
    _Told(
        OrderApproved(order_id=_ORDER, lines=[_TEAS], total_cents=1298, pickup_code="C275TC"),
        2,
        f"orders.approve/{_RUN}/5",
    ),
    _Told(OrderRejected(order_id=_ORDER, refusal=_NO_STOCK), 2, f"orders.reject/{_RUN}/4"),
    _Told(
        OrderCancelled(
            order_id=_ORDER, cancellation=Cancellation(by="staff", reason="the customer rang", name=_STAFF)
        ),
        3,
        f"orders.cancel/{_RUN}/11",
    ),
    _Told(
        OrderAdjusted(
            order_id=_ORDER,
            round=1,
            lines=_HAD,
            total_cents=_TOTAL,
            missing=_MISSING,
            substituted=_SUBSTITUTED,
        ),
        3,
        f"orders.adjust/{_RUN}/10",
    ),
    _Told(OrderReadied(order_id=_ORDER, pickup_until=_UNTIL), 4, f"orders.ready/{_RUN}/13"),
    _Told(PickupReminded(order_id=_ORDER, number=1), 5, f"orders.remind/{_RUN}/14"),
    _Told(OrderCompleted(order_id=_ORDER, by=_STAFF), 6, f"orders.complete/{_RUN}/17"),
    _Told(OrderExpired(order_id=_ORDER, expiry=Expiry(pickup_until=_UNTIL)), 6, f"orders.expire/{_RUN}/18"),
    _Told(
        OrderRefunded(
            order_id=_ORDER,
            refund_id=_REFUND,
            lines=[_SUBSTITUTE],
            amount_cents=599,
            currency="USD",
            reason="the packet was open",
            by=_STAFF,
        ),
        7,
        f"orders.refund/{_REFUND_RUN}/1",
    ),
    _Told(
        OrderRefundWithdrawn(order_id=_ORDER, refund_id=_REFUND, reason="not_refundable"),
        8,
        f"orders.withdraw_refund/{_REFUND_RUN}/3",
    ),
    # Stores
    _Told(StoreOpened(store_id=_STORE, name=_SHOP), 1, _IMPORT),
    _Told(StoreRenamed(store_id=_STORE, name="The Copper Kettle", by=_STAFF), 2),
    _Told(StoreParticipationChanged(store_id=_STORE, open=False, by=_STAFF), 2),
    _Told(
        ProductAdded(sku=_TEA, store_id=_STORE, name=_NAME, brand=_BRAND, price_cents=649, currency="USD"),
        1,
        _IMPORT,
    ),
    _Told(ProductRenamed(sku=_TEA, name="Dawn Shift Black Tea, 50 tea bags", brand=_BRAND), 3, _IMPORT),
    _Told(ProductPriceChanged(sku=_TEA, price_cents=699, currency="USD"), 4, _IMPORT),
    _Told(ProductRemoved(sku=_TEA, by=_STAFF), 9),
    _Told(AlternativesChanged(sku=_TEA, alternatives=[_ROOIBOS, "kettle-noon-50"], by=_STAFF), 5),
    _Told(LowStockChanged(sku=_TEA, low_at=10, by=_STAFF), 5),
    _Told(StockReceived(sku=_TEA, quantity=100, receipt="delivery-4711", by=_STAFF), 2),
    _Told(StockCorrected(sku=_TEA, on_hand=97, difference=-3, reason="counted on Saturday", by=_STAFF), 8),
    _Told(StockRanLow(sku=_TEA, available=9, low_at=10), 6, f"stores.reserve/{_RUN}/2"),
    _Told(StockFoundMissing(sku=_TEA, order_id=_ORDER, quantity=1), 7, f"stores.adjust/{_RUN}/8"),
    _Told(StockReserved(order_id=_ORDER, lines=[_TEAS]), 1, f"stores.reserve/{_RUN}/2"),
    _Told(
        StockAdjusted(order_id=_ORDER, round=1, missing=_MISSING, substitutes=_SUBSTITUTED, lines=_HAD),
        2,
        f"stores.adjust/{_RUN}/8",
    ),
    _Told(
        StockReleased(
            order_id=_ORDER, reason="order_cancelled", lines=[_TEAS], carried=[Pieces(sku=_TEA, quantity=1)]
        ),
        2,
        f"stores.release/{_RUN}/10",
    ),
    _Told(StockReturned(order_id=_ORDER, pieces=[Pieces(sku=_TEA, quantity=1)]), 3, f"ItemsReturned/{_EVENT}"),
    _Told(StockConsumed(order_id=_ORDER, lines=_HAD), 3, f"stores.consume/{_RUN}/16"),
    # Payments
    _Told(
        PaymentAuthorized(order_id=_ORDER, method="card", amount_cents=1298, currency="USD", reference=_HOLD),
        1,
        f"payments.authorize/{_RUN}/3",
    ),
    _Told(PaymentDeclined(order_id=_ORDER, refusal=_NO_MONEY), 1, f"payments.authorize/{_RUN}/3"),
    _Told(PaymentVoided(order_id=_ORDER, reason="order_cancelled"), 2, f"payments.void/{_RUN}/9"),
    _Told(
        PaymentAdjusted(order_id=_ORDER, round=1, amount_cents=_TOTAL, currency="USD"),
        2,
        f"payments.adjust/{_RUN}/9",
    ),
    _Told(PaymentHoldLapsed(order_id=_ORDER, reason="the hold is older than seven days"), 3),
    _Told(
        PaymentCaptured(order_id=_ORDER, method="card", amount_cents=_TOTAL, currency="USD", reference=_HOLD),
        3,
        f"payments.capture/{_RUN}/15",
    ),
    _Told(
        PaymentRefunded(
            order_id=_ORDER,
            refund_id=_REFUND,
            method="card",
            amount_cents=599,
            currency="USD",
            reference="refund_01a20a11-52f4-7a09-86cb-e1d3b07f4925",
            reason="the packet was open",
        ),
        4,
        f"payments.refund/{_REFUND_RUN}/2",
    ),
    _Told(
        PaymentRefundFailed(
            order_id=_ORDER,
            refund_id=_REFUND,
            amount_cents=599,
            currency="USD",
            reason="expired_or_canceled_card",
        ),
        5,
        "provider/evt_01a20a12-7d41",
    ),
    # Depot
    _Told(ShoppingListScheduled(order_id=_ORDER, stops=_stops(_TEAS)), 1, f"depot.schedule/{_RUN}/4"),
    _Told(ShoppingListReleased(order_id=_ORDER), 2, f"depot.assign/{_RUN}/depot.assign-1"),
    _Told(ShoppingListAssigned(order_id=_ORDER, robot=_ROBOT), 3),
    _Told(ItemPicked(order_id=_ORDER, robot=_ROBOT, store=_SHOP, sku=_TEA, quantity=1), 4),
    _Told(ItemMissing(order_id=_ORDER, robot=_ROBOT, store=_SHOP, sku=_TEA, name=_NAME, quantity=1), 5),
    _Told(ShoppingListAmended(order_id=_ORDER, stops=_stops(_SUBSTITUTE)), 6, f"depot.amend/{_RUN}/11"),
    _Told(ShoppingListCompleted(order_id=_ORDER, robot=_ROBOT), 8),
    _Told(ShoppingListCancelled(order_id=_ORDER, reason="order_cancelled"), 5, f"depot.cancel/{_RUN}/8"),
    _Told(ItemsReturned(order_id=_ORDER, robot=_ROBOT, pieces=[Pieces(sku=_TEA, quantity=1)]), 6),
    _Told(RobotRegistered(robot=_ROBOT), 1),
    _Told(RobotOnline(robot=_ROBOT), 2),
    _Told(RobotOffline(robot=_ROBOT), 3),
    _Told(RobotHeld(robot=_ROBOT, by="bea"), 4, "staff/bea"),
    _Told(RobotResumed(robot=_ROBOT, by="bea"), 6, "staff/bea"),
    _Told(RobotRetired(robot=_ROBOT, by="bea"), 8, "staff/bea"),
)
_EXAMPLES: Final = {type(told.event): told for told in _STORY}


def example_of(domain: DomainName, kind: type[Event]) -> RecordedEvent:
    """The example of an event of a domain, as it travels. Raises `LookupError` if there is none: add one."""
    if kind not in _EXAMPLES:
        raise LookupError(f"{kind.__name__} has no example in {__name__}")
    event, version, by = _EXAMPLES[kind]
    return RecordedEvent(
        id=_EVENT,
        domain=domain,
        previous=LogPosition(8201, 4114),
        position=LogPosition(8203, 4115),
        stream=stream_of(event),
        version=version,
        type=kind.__name__,
        schema_version=kind.schema_version,
        data=event.model_dump_json().encode(),
        correlation_id=_IMPORTED if by == _IMPORT else dict(event).get("order_id"),
        causation_id=by,
        trace_context={"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},
        recorded_at=_AT,
    )


def headers_of(example: RecordedEvent) -> dict[str, str]:
    """The headers of an example."""
    assert example.previous is not None
    return example.headers(example.previous)

"""An example of each event, out of one story of an order. Fixed, so that the documents are."""

from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

from domains.depot.messages import (
    Item,
    ItemMissing,
    ItemPicked,
    RobotOffline,
    RobotOnline,
    ShoppingListAssigned,
    ShoppingListCancelled,
    ShoppingListCompleted,
    ShoppingListScheduled,
    Stop,
)
from domains.orders.messages import (
    OrderApproved,
    OrderCancelled,
    OrderCompleted,
    OrderPlaced,
    OrderReadied,
    OrderRejected,
    PickupReminded,
)
from domains.payments.messages import PaymentAuthorized, PaymentDeclined, PaymentVoided
from domains.published import stream_of
from domains.stores.messages import (
    ProductAdded,
    ProductPriceChanged,
    ProductRemoved,
    ProductRenamed,
    StockReceived,
    StockReleased,
    StockReserved,
    StoreOpened,
    StoreParticipationChanged,
    StoreRenamed,
)
from events.event import Event
from events.recorded import LogPosition, RecordedEvent
from kernel.errors import Refusal, RefusedLine
from kernel.messages import Cancellation, DomainName, OrderLine, PricedLine

_ORDER: Final = UUID("01a20764-c08f-7549-8fc7-4c3021e7838a")
_STORE: Final = UUID("01a20760-11d4-7c3e-9b52-0f6a7e1c4d28")
_EVENT: Final = UUID("01a20764-c1e6-7d05-b3a8-52f09c6e1b74")
_IMPORTED: Final = UUID("01a20760-10b2-7f45-a1d9-3c8e5b7f9021")
_IMPORT: Final = "catalog-import"
_RUN: Final = "01a20764-c0a1-7b1f-8a63-9d2e4f507c16"
_AT: Final = datetime(2026, 3, 14, 9, 26, 53, 589793, tzinfo=UTC)
_TEA: Final = "kettle-dawn-50"
_NAME: Final = "Dawn Shift Black Tea, 50 bags"
_SHOP: Final = "Copper Kettle"
_BRAND: Final = "Kettle & Daughter"
_LINES: Final = [PricedLine(sku=_TEA, name=_NAME, store=_SHOP, quantity=2, unit_price_cents=649)]
_NO_STOCK: Final = Refusal(
    code="insufficient_stock",
    detail=f"there is not enough left of {_TEA}",
    lines=[RefusedLine(sku=_TEA, quantity=2, available=1)],
)
_NO_MONEY: Final = Refusal(code="payment_declined", detail="the card was declined")


class _Told(NamedTuple):
    """An event, its version in its stream, and what wrote it: a step of the order's saga, the import of a
    catalogue (which is a story of its own), or nothing yet."""

    event: Event
    version: int
    by: str | None


_STORY: Final = (
    _Told(
        OrderPlaced(
            order_id=_ORDER,
            kiosk="kiosk-1",
            customer="ada",
            lines=[OrderLine(sku=_TEA, quantity=2)],
            payment_method="card",
            currency="USD",
            placed_at=_AT - timedelta(milliseconds=12),
        ),
        1,
        f"orders.place/{_RUN}/1",
    ),
    _Told(
        OrderApproved(order_id=_ORDER, lines=_LINES, total_cents=1298, pickup_code="C275TC"),
        2,
        f"orders.approve/{_RUN}/5",
    ),
    _Told(OrderRejected(order_id=_ORDER, refusal=_NO_STOCK), 2, f"orders.reject/{_RUN}/4"),
    _Told(
        OrderCancelled(order_id=_ORDER, cancellation=Cancellation(by="customer", reason="changed my mind")),
        3,
        f"orders.cancel/{_RUN}/9",
    ),
    _Told(OrderReadied(order_id=_ORDER), 3, None),
    _Told(PickupReminded(order_id=_ORDER), 4, None),
    _Told(OrderCompleted(order_id=_ORDER), 5, None),
    _Told(StoreOpened(store_id=_STORE, name=_SHOP), 1, _IMPORT),
    _Told(StoreRenamed(store_id=_STORE, name="The Copper Kettle"), 2, None),
    _Told(StoreParticipationChanged(store_id=_STORE, open=False), 2, None),
    _Told(
        ProductAdded(sku=_TEA, store_id=_STORE, name=_NAME, brand=_BRAND, price_cents=649, currency="USD"),
        1,
        _IMPORT,
    ),
    _Told(ProductRenamed(sku=_TEA, name="Dawn Shift Black Tea, 50 tea bags", brand=_BRAND), 3, _IMPORT),
    _Told(ProductPriceChanged(sku=_TEA, price_cents=699, currency="USD"), 4, _IMPORT),
    _Told(ProductRemoved(sku=_TEA), 5, None),
    _Told(StockReceived(sku=_TEA, quantity=100), 2, _IMPORT),
    _Told(StockReserved(order_id=_ORDER, lines=_LINES), 1, f"stores.reserve/{_RUN}/2"),
    _Told(StockReleased(order_id=_ORDER, reason="order_cancelled", lines=_LINES), 2, f"stores.release/{_RUN}/8"),
    _Told(
        PaymentAuthorized(
            order_id=_ORDER,
            method="card",
            amount_cents=1298,
            currency="USD",
            reference="hold_01a20764-c11b-7e90-8d3c-6b7f21a0e45d",
        ),
        1,
        f"payments.authorize/{_RUN}/3",
    ),
    _Told(PaymentDeclined(order_id=_ORDER, refusal=_NO_MONEY), 1, f"payments.authorize/{_RUN}/3"),
    _Told(PaymentVoided(order_id=_ORDER, reason="order_cancelled"), 2, f"payments.void/{_RUN}/7"),
    _Told(
        ShoppingListScheduled(
            order_id=_ORDER, stops=[Stop(store=_SHOP, items=[Item(sku=_TEA, name=_NAME, quantity=2)])]
        ),
        1,
        f"depot.schedule/{_RUN}/4",
    ),
    _Told(ShoppingListCancelled(order_id=_ORDER, reason="order_cancelled"), 2, f"depot.cancel/{_RUN}/6"),
    _Told(ShoppingListAssigned(order_id=_ORDER, robot="robot-7"), 2, None),
    _Told(ItemPicked(order_id=_ORDER, robot="robot-7", store=_SHOP, sku=_TEA, quantity=1), 3, None),
    _Told(ItemMissing(order_id=_ORDER, robot="robot-7", store=_SHOP, sku=_TEA, name=_NAME, quantity=1), 4, None),
    _Told(ShoppingListCompleted(order_id=_ORDER, robot="robot-7"), 5, None),
    _Told(RobotOnline(robot="robot-7"), 1, None),
    _Told(RobotOffline(robot="robot-7"), 2, None),
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

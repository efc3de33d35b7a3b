"""What Orders can be asked to do. Each use case is load, decide, save, in one transaction."""

import re
import secrets
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from domains.orders.copies import ProductNames
from domains.orders.messages import (
    EVENTS,
    LIVE,
    AdjustOrder,
    ApproveOrder,
    CancelOrder,
    CompleteOrder,
    ExpireOrder,
    LiveOrder,
    OrderAnswer,
    OrderApproved,
    OrderPlaced,
    OrderReadied,
    OrderRefunded,
    OrderStatus,
    OrderSummary,
    OrderView,
    PlaceOrder,
    ReadyOrder,
    Refund,
    RefundOrder,
    RejectOrder,
    RemindOfPickup,
    WithdrawRefund,
)
from domains.orders.model import Order
from events.log import EventLog
from events.recorded import RecordedEvent
from events.store import EventStore
from kernel.database import Database
from kernel.errors import ConcurrencyConflict
from kernel.ids import now

# No vowels (no words), nothing that reads like another sign: 28^6 codes, unique among open orders.
PICKUP_CODE_SIGNS: Final = "23456789BCDFGHJKMNPQRSTVWXYZ"
PICKUP_CODE_LENGTH: Final = 6

_PUT = text(
    "INSERT INTO orders.orders"
    " (id, kiosk, customer, status, currency, total_cents, pickup_code, placed_at, version) VALUES"
    " (:id, :kiosk, :customer, :status, :currency, :total_cents, :pickup_code, :placed_at, :version)"
    " ON CONFLICT (id) DO UPDATE SET status = excluded.status, total_cents = excluded.total_cents,"
    " pickup_code = excluded.pickup_code, version = excluded.version, updated_at = now()"
)

_SUMMARIES: Final = (
    "SELECT id AS order_id, kiosk, customer, status, currency, total_cents, pickup_code, placed_at"
    " FROM orders.orders"
)

# The last of those events that change the status of a live order is found by the stream's index, order by order.
_LIVE = text(
    "SELECT id AS order_id, kiosk, customer, status, currency, total_cents, pickup_code, placed_at,"
    " orders.version, entered.recorded_at AS since FROM orders.orders CROSS JOIN LATERAL"
    " (SELECT recorded_at FROM orders.all_events WHERE stream = 'order-' || orders.id AND type = ANY(:entries)"
    "  ORDER BY all_events.version DESC LIMIT 1) AS entered"
    " WHERE status = ANY(:statuses) ORDER BY id"
)
_HOW_MANY = text(
    "SELECT status, count(*) AS orders FROM orders.orders WHERE status = ANY(:statuses) GROUP BY status"
)
_ENTRIES: Final = [event.__name__ for event in (OrderPlaced, OrderApproved, OrderReadied)]


class Orders:
    """The Orders domain on its database. Every command may be repeated: the effect is that of the first."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._store = EventStore("orders", EVENTS)
        self._log = EventLog("orders")

    async def place(self, command: PlaceOrder) -> None:
        """Record the order as pending. Raises `IdempotencyKeyReused`, `OrderClosed`."""
        async with self._order(command.order_id) as order:
            order.place(command, now())

    async def approve(self, command: ApproveOrder) -> OrderAnswer:
        """Approve the order and give it a pickup code. Raises `OrderClosed` if it has ended."""
        async with self._order(command.order_id) as order:
            order.approve(command.order_id, command.lines, command.total_cents, _new_pickup_code())
        return _answer_of(order)

    async def reject(self, command: RejectOrder) -> OrderAnswer:
        """End the order as rejected, also one whose placing never got here: it is on record then.

        Returns what the kiosk is told of it. Raises `Conflict` if it was approved.
        """
        async with self._order(command.order.order_id) as order:
            if order.placed is None:
                order.place(command.order, now())
            order.reject(command.order.order_id, command.refusal)
        return _answer_of(order)

    async def cancel(self, command: CancelOrder) -> OrderAnswer:
        """End the order as cancelled, also one whose placing never got here: it is on record then.

        Returns what the kiosk is told of it, which is the approval if that came first.
        """
        async with self._order(command.order.order_id) as order:
            if order.placed is None:
                order.place(command.order, now())
            order.cancel(command.order.order_id, command.cancellation)
        return _answer_of(order)

    async def expire(self, command: ExpireOrder) -> OrderAnswer:
        """End the order because nobody came for it. Returns the approval that the kiosk was told."""
        async with self._order(command.order.order_id) as order:
            order.expire(command.order.order_id, command.expiry)
        return _answer_of(order)

    async def adjust(self, command: AdjustOrder) -> None:
        """Some of the order was missing: these lines and this total are what can be had. Raises `OrderClosed`."""
        async with self._order(command.order_id) as order:
            order.adjust(command)

    async def make_ready(self, command: ReadyOrder) -> None:
        """Everything that could be had is at the desk. Raises `OrderClosed`."""
        async with self._order(command.order_id) as order:
            order.make_ready(command)

    async def remind(self, command: RemindOfPickup) -> None:
        """Let the customer be reminded, each number once."""
        async with self._order(command.order_id) as order:
            order.remind(command)

    async def complete(self, command: CompleteOrder) -> None:
        """The order was handed over. Raises `OrderClosed` if it has ended otherwise."""
        async with self._order(command.order_id) as order:
            order.complete(command)

    async def refund(self, command: RefundOrder) -> Refund:
        """Say what is given back, each refund once. Raises `Refused` (`not_refundable`)."""
        async with self._order(command.order_id) as order:
            return order.refund(command)

    async def refunds(self, order_id: UUID) -> list[OrderRefunded]:
        """The refunds of an order that were not withdrawn, oldest first."""
        return (await self._load(order_id)).refunds_that_count

    async def withdraw_refund(self, command: WithdrawRefund) -> None:
        """The refund could not be paid. One that comes later is refused."""
        async with self._order(command.order_id) as order:
            order.withdraw_refund(command)

    async def view(self, order_id: UUID) -> OrderView | None:
        """The order as it is now, or None."""
        async with self._database.transaction() as connection:
            view = Order.fold(await self._store.load(connection, stream_of(order_id))).view
            if view is None:
                return None
            names = await ProductNames(connection).of(line.sku for line in view.lines)
        lines = [line.model_copy(update={"name": names.get(line.sku)}) for line in view.lines]
        return view.model_copy(update={"lines": lines})

    async def answer(self, order_id: UUID) -> OrderAnswer | None:
        """What the kiosk was told, or None while the order is unknown or pending."""
        return (await self._load(order_id)).answer

    async def events_after(self, order_id: UUID, version: int) -> list[RecordedEvent]:
        """What happened to the order behind a version of its stream, oldest first, in today's schema versions."""
        async with self._database.transaction() as connection:
            events = await self._log.of_stream(connection, stream_of(order_id), version)
        return [event.upcast(EVENTS) for event in events]

    async def find(
        self,
        *,
        pickup_code: str | None = None,
        customer: str | None = None,
        kiosk: str | None = None,
        statuses: Collection[OrderStatus] = (),
        before: UUID | None = None,
        limit: int = 50,
    ) -> list[OrderSummary]:
        """Up to `limit` orders, the newest first, from the first behind `before`; with this pickup code, of a
        customer whose name begins so (in capitals or not), of this kiosk and in one of these statuses, if given. A
        pickup code is unique among the orders that can still be picked up."""
        rules: list[tuple[str, str, object]] = [
            ("pickup_code = :pickup_code", "pickup_code", pickup_code),
            ("lower(customer) LIKE lower(:customer)", "customer", customer and _beginning_with(customer)),
            ("kiosk = :kiosk", "kiosk", kiosk),
            ("status = ANY(:statuses)", "statuses", list(statuses) or None),
            ("id < :before", "before", before),
        ]
        used = [(rule, name, value) for rule, name, value in rules if value is not None]
        where = " AND ".join(["true", *(rule for rule, _, _ in used)])
        values = {"limit": limit, **{name: value for _, name, value in used}}
        query = text(f"{_SUMMARIES} WHERE {where} ORDER BY id DESC LIMIT :limit")
        async with self._database.transaction() as connection:
            rows = (await connection.execute(query, values)).mappings()
            return [OrderSummary.model_validate(dict(row)) for row in rows]

    async def live(self) -> list[LiveOrder]:
        """Every order that has not ended, the oldest first."""
        async with self._database.transaction() as connection:
            found = await connection.execute(_LIVE, {"statuses": list(LIVE), "entries": _ENTRIES})
            return [LiveOrder.model_validate(dict(row)) for row in found.mappings()]

    async def how_many(self) -> dict[OrderStatus, int]:
        """How many orders there are in each state, of those that have not ended."""
        async with self._database.transaction() as connection:
            found = await connection.execute(_HOW_MANY, {"statuses": list(LIVE)})
            return dict.fromkeys(LIVE, 0) | {row.status: row.orders for row in found}

    async def _load(self, order_id: UUID) -> Order:
        async with self._database.transaction() as connection:
            return Order.fold(await self._store.load(connection, stream_of(order_id)))

    @asynccontextmanager
    async def _order(self, order_id: UUID) -> AsyncIterator[Order]:
        """The order to decide on; what it records is saved at the end, with its row."""
        try:
            async with self._database.transaction() as connection:
                order = Order.fold(await self._store.load(connection, stream_of(order_id)))
                yield order
                if order.changes:
                    await self._store.append(connection, stream_of(order_id), order.version, order.changes)
                    await connection.execute(_PUT, _row(order))
        except IntegrityError as error:
            # The one constraint left: an open order has drawn the same pickup code. Draw again.
            raise ConcurrencyConflict(f"order {order_id} could not be saved: {error.orig}") from error


def stream_of(order_id: UUID) -> str:
    """The stream that an order's events are on."""
    return f"order-{order_id}"


def _answer_of(order: Order) -> OrderAnswer:
    answer = order.answer
    assert answer is not None
    return answer


def _beginning_with(words: str) -> str:
    """The pattern of LIKE for what begins with these very words."""
    return re.sub(r"([\\%_])", r"\\\1", words) + "%"


def _new_pickup_code() -> str:
    return "".join(secrets.choice(PICKUP_CODE_SIGNS) for _ in range(PICKUP_CODE_LENGTH))


def _row(order: Order) -> dict[str, object]:
    view = order.view
    assert view is not None
    columns = {"kiosk", "customer", "status", "currency", "total_cents", "pickup_code", "placed_at"}
    return {
        **view.model_dump(include=columns),
        "id": view.order_id,
        "version": order.version + len(order.changes),
    }

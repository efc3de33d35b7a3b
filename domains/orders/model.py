"""The order: pending, then approved or rejected; cancelled at any time before it is handed over."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from domains.orders.messages import (
    OrderAnswer,
    OrderApproved,
    OrderCancelled,
    OrderPlaced,
    OrderRejected,
    OrderStatus,
    OrderView,
    PlaceOrder,
    cancelled_before_approval,
)
from events.aggregate import Aggregate
from events.event import Event
from kernel.errors import Conflict, IdempotencyKeyReused, OrderClosed, Refusal
from kernel.messages import Cancellation, PricedLine


class Order(Aggregate):
    """One order. Each method is a decision: it records what happened, or nothing on a repeat, or raises."""

    def __init__(self) -> None:
        super().__init__()
        self.placed: OrderPlaced | None = None
        self.status: OrderStatus | Literal["unknown"] = "unknown"
        self.approved: OrderApproved | None = None
        self.refusal: Refusal | None = None
        self.cancellation: Cancellation | None = None

    def place(self, command: PlaceOrder, placed_at: datetime) -> None:
        """Accept the order as pending.

        Raises `IdempotencyKeyReused` if another order has this id, `OrderClosed` if this one has ended.
        """
        if self.status in ("rejected", "cancelled"):
            raise OrderClosed(f"order {command.order_id} has been {self.status}")
        if self.placed is None:
            self.record(OrderPlaced(**command.model_dump(), placed_at=placed_at))
        elif self.placed.lines != command.lines or self.placed.kiosk != command.kiosk:
            raise IdempotencyKeyReused(f"order {command.order_id} was placed with other lines")

    def approve(self, order_id: UUID, lines: list[PricedLine], total_cents: int, pickup_code: str) -> None:
        """Promise the order to the customer. A repeat keeps the first pickup code.

        Raises `OrderClosed` if the order has ended: a late approval never overwrites a cancellation.
        """
        if self.status in ("rejected", "cancelled"):
            raise OrderClosed(f"order {order_id} has been {self.status}")
        if self.status == "unknown":
            raise Conflict(f"order {order_id} was never placed")
        if self.approved is None:
            self.record(
                OrderApproved(order_id=order_id, lines=lines, total_cents=total_cents, pickup_code=pickup_code)
            )

    def reject(self, order_id: UUID, refusal: Refusal) -> None:
        """End a pending order for a business reason; one that has ended stays as it ended.

        Raises `Conflict` if it was approved.
        """
        if self.status in ("rejected", "cancelled"):
            return
        if self.status != "pending":
            raise Conflict(f"order {order_id} is {self.status} and can not be rejected")
        self.record(OrderRejected(order_id=order_id, refusal=refusal))

    def cancel(self, order_id: UUID, cancellation: Cancellation) -> None:
        """End a pending or approved order because somebody wants so; one that has ended stays as it ended.

        Raises `Conflict` if it was never placed.
        """
        if self.status in ("rejected", "cancelled"):
            return
        if self.status == "unknown":
            raise Conflict(f"order {order_id} was never placed")
        self.record(OrderCancelled(order_id=order_id, cancellation=cancellation))

    def apply(self, event: Event) -> None:
        match event:
            case OrderPlaced():
                self.placed, self.status = event, "pending"
            case OrderApproved():
                self.approved, self.status = event, "approved"
            case OrderRejected():
                self.refusal, self.status = event.refusal, "rejected"
            case OrderCancelled():
                self.cancellation, self.status = event.cancellation, "cancelled"
            case _:
                raise TypeError(f"{type(event).__name__} is not an event of an order")

    @property
    def view(self) -> OrderView | None:
        """The order as it is now; None if it was never placed."""
        if self.placed is None or self.status == "unknown":
            return None
        return OrderView(
            **self.placed.model_dump(),
            status=self.status,
            items=self.approved.lines if self.approved else [],
            total_cents=self.approved.total_cents if self.approved else None,
            pickup_code=self.approved.pickup_code if self.approved else None,
            refusal=self.refusal,
            cancellation=self.cancellation,
        )

    @property
    def answer(self) -> OrderAnswer | None:
        """What the kiosk was told; None while there is nothing to tell. It never changes once given: an order
        that was approved and later cancelled was still answered with its approval."""
        if self.placed is None or self.status == "pending":
            return None
        if self.approved is not None:
            return OrderAnswer(
                order_id=self.approved.order_id,
                currency=self.placed.currency,
                pickup_code=self.approved.pickup_code,
                total_cents=self.approved.total_cents,
                items=self.approved.lines,
            )
        refusal = cancelled_before_approval(self.cancellation) if self.cancellation else self.refusal
        return OrderAnswer(order_id=self.placed.order_id, currency=self.placed.currency, refusal=refusal)

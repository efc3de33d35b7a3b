"""The order: pending, approved, ready, completed; or rejected, cancelled, expired. Refunds come after that."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

from domains.orders.messages import (
    AdjustOrder,
    CompleteOrder,
    OrderAdjusted,
    OrderAnswer,
    OrderApproved,
    OrderCancelled,
    OrderCompleted,
    OrderExpired,
    OrderPlaced,
    OrderReadied,
    OrderRefunded,
    OrderRefundWithdrawn,
    OrderRejected,
    OrderStatus,
    OrderView,
    PickupReminded,
    PlaceOrder,
    ReadyOrder,
    Refund,
    RefundOrder,
    RemindOfPickup,
    WithdrawRefund,
    cancelled_before_approval,
)
from events.aggregate import Aggregate
from events.event import Event
from kernel.errors import Conflict, IdempotencyKeyReused, OrderClosed, Refusal, Refused
from kernel.messages import Cancellation, Expiry, Pieces, PricedLine, Substitution, pieces_by_sku

UNDONE: Final = ("rejected", "cancelled", "expired")
"""How an order ends without being handed over."""


class Order(Aggregate):
    """One order. Each method is a decision: it records what happened, or nothing on a repeat, or raises."""

    def __init__(self) -> None:
        super().__init__()
        self.placed: OrderPlaced | None = None
        self.status: OrderStatus | Literal["unknown"] = "unknown"
        self.approved: OrderApproved | None = None
        self.adjusted: OrderAdjusted | None = None
        self.missing: list[Pieces] = []
        self.substituted: list[Substitution] = []
        self.pickup_until: datetime | None = None
        self.reminders = 0
        self.completed_by: str | None = None
        self.refunds: dict[UUID, OrderRefunded] = {}
        self.withdrawn: set[UUID] = set()
        self.refusal: Refusal | None = None
        self.cancellation: Cancellation | None = None
        self.expiry: Expiry | None = None

    def place(self, command: PlaceOrder, placed_at: datetime) -> None:
        """Accept the order as pending.

        Raises `IdempotencyKeyReused` if another order has this id, `OrderClosed` if this one has ended.
        """
        self._check_open(command.order_id)
        if self.placed is None:
            self.record(OrderPlaced(**command.model_dump(), placed_at=placed_at))
        elif self.placed.lines != command.lines or self.placed.kiosk != command.kiosk:
            raise IdempotencyKeyReused(f"order {command.order_id} was placed with other lines")

    def approve(self, order_id: UUID, lines: list[PricedLine], total_cents: int, pickup_code: str) -> None:
        """Promise the order to the customer. A repeat keeps the first pickup code.

        Raises `OrderClosed` if the order has ended: a late approval never overwrites a cancellation.
        """
        self._check_open(order_id)
        if self.status == "unknown":
            raise Conflict(f"order {order_id} was never placed")
        if self.approved is None:
            self.record(
                OrderApproved(order_id=order_id, lines=lines, total_cents=total_cents, pickup_code=pickup_code)
            )

    def adjust(self, command: AdjustOrder) -> None:
        """Some of it was missing. Raises `OrderClosed` if it has ended, `Conflict` if it is not being shopped."""
        self._check_open(command.order_id)
        if self.adjusted is not None and self.adjusted.round >= command.round:
            return
        if self.status != "approved":
            raise Conflict(f"order {command.order_id} is {self.status} and can not be adjusted")
        self.record(OrderAdjusted(**dict(command)))

    def make_ready(self, command: ReadyOrder) -> None:
        """It is at the desk. Raises `OrderClosed` if it has ended, `Conflict` if it was never approved."""
        self._check_open(command.order_id)
        if self.status == "approved":
            self.record(OrderReadied(**dict(command)))
        elif self.status not in ("ready", "completed"):
            raise Conflict(f"order {command.order_id} is {self.status} and can not be ready")

    def remind(self, command: RemindOfPickup) -> None:
        """The customer is reminded, each time once; never of an order that is not (or no longer) at the desk."""
        if self.status == "ready" and command.number > self.reminders:
            self.record(PickupReminded(**dict(command)))

    def complete(self, command: CompleteOrder) -> None:
        """It was handed over. Raises `OrderClosed` if it has ended otherwise, `Conflict` if it is not ready."""
        self._check_open(command.order_id)
        if self.status == "completed":
            return
        if self.status != "ready":
            raise Conflict(f"order {command.order_id} is {self.status} and can not be completed")
        self.record(OrderCompleted(**dict(command)))

    def reject(self, order_id: UUID, refusal: Refusal) -> None:
        """End a pending order for a business reason; one that has ended stays as it ended.

        Raises `Conflict` if it was approved.
        """
        if self.status in UNDONE:
            return
        if self.status != "pending":
            raise Conflict(f"order {order_id} is {self.status} and can not be rejected")
        self.record(OrderRejected(order_id=order_id, refusal=refusal))

    def cancel(self, order_id: UUID, cancellation: Cancellation) -> None:
        """End an order because somebody wants so; one that was undone before stays as it ended.

        Raises `Conflict` if it was never placed, or was handed over.
        """
        if self._can_be_undone(order_id):
            self.record(OrderCancelled(order_id=order_id, cancellation=cancellation))

    def expire(self, order_id: UUID, expiry: Expiry) -> None:
        """End an order that nobody came for. Raises as `cancel` does."""
        if self._can_be_undone(order_id):
            self.record(OrderExpired(order_id=order_id, expiry=expiry))

    def refund(self, command: RefundOrder) -> Refund:
        """Give money back for pieces of it, or for all that is left; a repeat is the same refund.

        Raises `Refused` (`not_refundable`) if the order was not handed over, has no such pieces, or they have been
        refunded; also if this refund was withdrawn.
        """
        known = self.refunds.get(command.refund_id)
        if known is None:
            if command.refund_id in self.withdrawn:
                raise _not_refundable("this refund was withdrawn: ask for a new one")
            if self.status != "completed" or self.placed is None:
                raise _not_refundable(f"the order is {self.status}: only what was handed over is refunded")
            lines = self._refundable(command.lines)
            known = OrderRefunded(
                order_id=command.order_id,
                refund_id=command.refund_id,
                lines=lines,
                amount_cents=sum(line.quantity * line.unit_price_cents for line in lines),
                currency=self.placed.currency,
                reason=command.reason,
                by=command.by,
            )
            self.record(known)
        return Refund.model_validate(dict(known))

    def withdraw_refund(self, command: WithdrawRefund) -> None:
        """The refund could not be paid; one that comes later is refused."""
        if self.status == "completed" and command.refund_id not in self.withdrawn:
            self.record(OrderRefundWithdrawn(**dict(command)))

    def apply(self, event: Event) -> None:
        match event:
            case OrderPlaced():
                self.placed, self.status = event, "pending"
            case OrderApproved():
                self.approved, self.status = event, "approved"
            case OrderAdjusted():
                self.adjusted = event
                self.missing = [*self.missing, *event.missing]
                self.substituted = [*self.substituted, *event.substituted]
            case OrderReadied():
                self.pickup_until, self.status = event.pickup_until, "ready"
            case PickupReminded():
                self.reminders = event.number
            case OrderCompleted():
                self.completed_by, self.status = event.by, "completed"
            case OrderRejected():
                self.refusal, self.status = event.refusal, "rejected"
            case OrderCancelled():
                self.cancellation, self.status = event.cancellation, "cancelled"
            case OrderExpired():
                self.expiry, self.status = event.expiry, "expired"
            case OrderRefunded():
                self.refunds[event.refund_id] = event
            case OrderRefundWithdrawn():
                self.withdrawn.add(event.refund_id)
            case _:
                raise TypeError(f"{type(event).__name__} is not an event of an order")

    @property
    def lines(self) -> list[PricedLine]:
        """What is or was to be had of the order, at its prices; empty before its approval."""
        latest = self.adjusted or self.approved
        return latest.lines if latest else []

    @property
    def refunded_cents(self) -> int:
        """What was given back, or is being given back."""
        return sum(refund.amount_cents for refund in self.refunds_that_count)

    @property
    def view(self) -> OrderView | None:
        """The order as it is now; None if it was never placed."""
        if self.placed is None or self.status == "unknown":
            return None
        latest = self.adjusted or self.approved
        return OrderView(
            **self.placed.model_dump(),
            status=self.status,
            items=self.lines,
            total_cents=latest.total_cents if latest else None,
            pickup_code=self.approved.pickup_code if self.approved else None,
            refusal=self.refusal,
            cancellation=self.cancellation,
            missing=self.missing,
            substituted=self.substituted,
            pickup_until=self.pickup_until,
            completed_by=self.completed_by,
            refunded_cents=self.refunded_cents,
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

    @property
    def refunds_that_count(self) -> list[OrderRefunded]:
        """Those that were not withdrawn, oldest first."""
        return [refund for refund_id, refund in self.refunds.items() if refund_id not in self.withdrawn]

    def _check_open(self, order_id: UUID) -> None:
        if self.status in UNDONE:
            raise OrderClosed(f"order {order_id} has been {self.status}")

    def _can_be_undone(self, order_id: UUID) -> bool:
        if self.status in UNDONE:
            return False
        if self.status == "unknown":
            raise Conflict(f"order {order_id} was never placed")
        if self.status == "completed":
            raise Conflict(f"order {order_id} was handed over: refund it")
        return True

    def _refundable(self, wanted: Sequence[Pieces] | None) -> list[PricedLine]:
        """The lines of a refund: the dearest pieces of a product first, where they had different prices."""
        left = self._not_refunded()
        if wanted is None:
            if not left:
                raise _not_refundable("all of it was refunded")
            return left
        lines: list[PricedLine] = []
        for sku, number in pieces_by_sku(wanted).items():
            pieces = number
            of_sku = sorted(
                (line for line in left if line.sku == sku), key=lambda line: line.unit_price_cents, reverse=True
            )
            available = sum(line.quantity for line in of_sku)
            if pieces > available:
                raise _not_refundable(f"there are {available} of {sku} to refund, not {pieces}")
            for line in of_sku:
                taken = min(pieces, line.quantity)
                pieces -= taken
                lines += [line.model_copy(update={"quantity": taken})] if taken else []
        return lines

    def _not_refunded(self) -> list[PricedLine]:
        refunded: Counter[tuple[str, int]] = Counter()
        for refund in self.refunds_that_count:
            for line in refund.lines:
                refunded[line.sku, line.unit_price_cents] += line.quantity
        left = []
        for line in self.lines:
            key = line.sku, line.unit_price_cents
            gone = min(line.quantity, refunded[key])
            refunded[key] -= gone
            if gone < line.quantity:
                left.append(line.model_copy(update={"quantity": line.quantity - gone}))
        return left


def _not_refundable(detail: str) -> Refused:
    return Refused(Refusal(code="not_refundable", detail=detail))

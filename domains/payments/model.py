"""A payment: authorized or declined, adjusted with its order, captured once and perhaps refunded, or voided when
its order ends unpaid."""

from typing import Final
from uuid import UUID

from domains.payments.messages import (
    AdjustPayment,
    AuthorizePayment,
    CapturePayment,
    CashPayment,
    PaymentAdjusted,
    PaymentAuthorized,
    PaymentCaptured,
    PaymentDeclined,
    PaymentHoldLapsed,
    PaymentRefunded,
    PaymentRefundFailed,
    PaymentStatus,
    PaymentView,
    PaymentVoided,
    Receipt,
    RefundPayment,
    SettlementMethod,
    VoidPayment,
)
from domains.payments.provider import ProviderEvent, Taken
from events.aggregate import Aggregate
from events.event import Event
from kernel.errors import Conflict, IdempotencyKeyReused, InvalidInput, OrderClosed, Refusal, Refused, Unavailable
from kernel.wording import format_money

_FAILED: Final = Refusal(code="not_refundable", detail="the card's bank did not take this refund")


class Payment(Aggregate):
    """The payment of one order. Each method is a decision: it records what happened, nothing on a repeat, or
    raises."""

    def __init__(self) -> None:
        super().__init__()
        self.status: PaymentStatus | None = None
        self.authorized: PaymentAuthorized | None = None
        self.refusal: Refusal | None = None
        self.due_cents = 0
        self.round = 0
        self.lapsed = False
        self.captured: PaymentCaptured | None = None
        self.refunds: dict[UUID, PaymentRefunded] = {}
        self.failed_refunds: set[UUID] = set()

    def is_settled(self, order_id: UUID) -> bool:
        """Whether the authorization was decided before: True if it is held, False if it is still to be asked for.

        Raises `Refused` if it was declined, `OrderClosed` if it was voided.
        """
        if self.status == "voided":
            raise OrderClosed(f"the payment of order {order_id} has been voided")
        if self.refusal is not None:
            raise Refused(self.refusal)
        return self.authorized is not None

    def authorize(self, command: AuthorizePayment, reference: str | None) -> None:
        """The provider holds the amount. Raises as `is_settled` does."""
        if not self.is_settled(command.order_id):
            self.record(
                PaymentAuthorized(
                    order_id=command.order_id,
                    method=command.payment.method,
                    amount_cents=command.amount_cents,
                    currency=command.currency,
                    reference=reference,
                )
            )

    def decline(self, order_id: UUID, refusal: Refusal) -> None:
        """The provider said no. Raises `Conflict` if it has said yes, `OrderClosed` if it was voided."""
        if self.status == "voided":
            raise OrderClosed(f"the payment of order {order_id} has been voided")
        if self.authorized is not None:
            raise Conflict(f"the payment of order {order_id} is authorized and can not be declined")
        if self.status is None:
            self.record(PaymentDeclined(order_id=order_id, refusal=refusal))

    def void(self, command: VoidPayment) -> None:
        """Nothing is held any more; an authorization that comes later is refused.

        Raises `Conflict` if the order is paid, unless all of it was refunded for that.
        """
        if self.status == "voided":
            return
        if self.captured and not (command.refund_captured and self.refundable_cents == 0):
            raise Conflict(f"order {command.order_id} is paid: its payment can not be voided")
        self.record(PaymentVoided(order_id=command.order_id, reason=command.reason))

    @property
    def has_hold(self) -> bool:
        """Whether the provider holds something on a card, as far as is known."""
        return self.authorized is not None and self.authorized.reference is not None and not self.lapsed

    @property
    def is_nothing_held(self) -> bool:
        """Whether a card is to pay of which nothing was ever held, because nothing was due."""
        return self.authorized is not None and self.authorized.method == "card" and not self.authorized.reference

    def is_due(self, order_id: UUID) -> PaymentAuthorized:
        """The authorization of a payment that is still to be captured.

        Raises `OrderClosed` if it was captured or voided, `Conflict` if it was never authorized.
        """
        if self.status in ("captured", "voided"):
            raise OrderClosed(f"the payment of order {order_id} has been {self.status}")
        if self.authorized is None:
            raise Conflict(f"the payment of order {order_id} is not authorized")
        return self.authorized

    def adjust(self, command: AdjustPayment) -> None:
        """Another amount is held or due; each round once. Raises as `is_due` does."""
        authorized = self.is_due(command.order_id)
        if command.round > self.round:
            self.record(
                PaymentAdjusted(
                    order_id=command.order_id,
                    round=command.round,
                    amount_cents=command.amount_cents,
                    currency=authorized.currency,
                )
            )

    def lapse(self, order_id: UUID, reason: str) -> None:
        """The provider let go of the hold by itself. Nothing if that was known, or does not matter any more."""
        if self.status == "authorized" and self.has_hold:
            self.record(PaymentHoldLapsed(order_id=order_id, reason=reason))

    def check_offer(self, command: CapturePayment) -> PaymentAuthorized:
        """Whether what is offered can pay what is due.

        Raises `InvalidInput` if it is not enough, or nothing for an order that is paid at the desk; and as
        `is_due` does.
        """
        authorized = self.is_due(command.order_id)
        if command.payment is None and authorized.method == "at_pickup" and self.due_cents:
            raise InvalidInput("payment is required", "payment")
        if isinstance(command.payment, CashPayment) and command.payment.tendered_cents < self.due_cents:
            due = format_money(self.due_cents, authorized.currency)
            raise InvalidInput(f"{due} is due", "payment.tendered_cents")
        return authorized

    def capture(self, order_id: UUID, taken: Taken) -> None:
        """The provider took the money. Raises `OrderClosed` if it was voided."""
        if self.captured is None:
            self._settle(order_id, taken.method, taken.amount_cents, taken.reference)

    def settle(self, command: CapturePayment) -> None:
        """It is paid without the provider: in cash, or because nothing is due. Raises as `check_offer` does, and
        `Conflict` if it is the provider's to take."""
        if self.captured is not None:
            return
        authorized, offer = self.check_offer(command), command.payment
        if isinstance(offer, CashPayment):
            change = offer.tendered_cents - self.due_cents
            self._settle(command.order_id, "cash", self.due_cents, None, offer.tendered_cents, change)
            return
        if self.due_cents:
            raise Conflict(f"order {command.order_id} is to be paid by card")
        at_desk: SettlementMethod = "desk_card" if offer else "cash"
        method = at_desk if offer or authorized.method == "at_pickup" else "card"
        self._settle(command.order_id, method, self.due_cents, None)

    def receipt(self, command: CapturePayment) -> Receipt:
        """What was taken, however often and by whichever attempt that is asked. Cash that is offered for what a
        card has paid is given back. Raises `OrderClosed` if it was refunded because the order was undone."""
        paid = self.captured
        assert paid is not None
        if self.status == "voided":
            raise OrderClosed(f"the payment of order {command.order_id} has been voided")
        tendered, change = paid.tendered_cents, paid.change_cents
        if isinstance(command.payment, CashPayment) and paid.method != "cash":
            tendered = change = command.payment.tendered_cents
        return Receipt(
            method=paid.method,
            amount_cents=paid.amount_cents,
            currency=paid.currency,
            tendered_cents=tendered,
            change_cents=change,
        )

    @property
    def refunded_cents(self) -> int:
        """What was given back in all."""
        return sum(refund.amount_cents for refund in self.refunds.values())

    @property
    def refundable_cents(self) -> int:
        """What could still be given back."""
        return self.captured.amount_cents - self.refunded_cents if self.captured else 0

    def check_refund(self, command: RefundPayment) -> bool:
        """Whether the refund was done before: if not, it may be.

        Raises `Refused` (`not_refundable`) if so much was not captured or this refund has failed,
        `IdempotencyKeyReused` if it was done before with another amount.
        """
        if command.refund_id in self.failed_refunds:
            raise Refused(_FAILED)
        done = self.refunds.get(command.refund_id)
        if done is None and command.amount_cents > self.refundable_cents:
            detail = (
                f"{command.amount_cents} cents are asked for, {self.refundable_cents} are left of what was paid"
            )
            raise Refused(Refusal(code="not_refundable", detail=detail))
        if done is not None and done.amount_cents != command.amount_cents:
            raise IdempotencyKeyReused(f"refund {command.refund_id} came before with another amount")
        return done is not None

    def refund(self, command: RefundPayment, reference: str | None) -> None:
        """So much was given back, in the way that it was paid; each refund once. Raises as `check_refund` does."""
        if not self.check_refund(command):
            assert self.captured is not None
            self.record(
                PaymentRefunded(
                    order_id=command.order_id,
                    refund_id=command.refund_id,
                    method=self.captured.method,
                    amount_cents=command.amount_cents,
                    currency=self.captured.currency,
                    reference=reference,
                    reason=command.reason,
                )
            )

    def is_surplus(self, event: ProviderEvent) -> bool:
        """Whether the provider took money that it should not have: beside what paid the order, or for one that is
        not to be paid."""
        if event.kind not in ("captured", "charged") or self.status is None:
            return False
        if self.captured is not None:
            return self.captured.reference != event.reference
        return self.status != "authorized"

    def note(self, event: ProviderEvent) -> None:
        """What the provider said has happened, unless that is known, or does not matter to the order any more.

        Raises `Unavailable` if what came before it is not known yet.
        """
        if event.kind == "lapsed":
            if self.authorized is not None and self.authorized.reference == event.reference:
                self.lapse(event.order_id, event.reason)
            return
        if self.status is None or (event.kind == "refunded" and self.status == "authorized"):
            raise Unavailable(f"what came before this is not known yet of the payment of order {event.order_id}")
        if event.kind == "refunded":
            self._note_refund(event)
        elif event.kind == "refund_failed":
            self._note_failed_refund(event)
        elif self.status == "authorized":
            method: SettlementMethod = "card" if event.kind == "captured" else "desk_card"
            self.capture(event.order_id, Taken(method, event.amount_cents, event.reference))

    @property
    def view(self) -> PaymentView | None:
        """The payment as it is now; None if nothing was asked of it yet."""
        if self.status is None:
            return None
        held = self.authorized
        return PaymentView(
            status=self.status,
            method=held.method if held else None,
            amount_cents=self.due_cents if held else None,
            currency=held.currency if held else None,
            reference=held.reference if held else None,
            refusal=self.refusal,
            captured_cents=self.captured.amount_cents if self.captured else 0,
            settled_by=self.captured.method if self.captured else None,
            refunded_cents=self.refunded_cents,
        )

    def _note_refund(self, event: ProviderEvent) -> None:
        paid, refund_id = self.captured, event.refund_id
        if refund_id in self.failed_refunds:
            return
        if paid is not None and refund_id is not None and paid.reference == event.reference:
            command = RefundPayment(
                order_id=event.order_id,
                refund_id=refund_id,
                amount_cents=event.amount_cents,
                reason=event.reason,
            )
            self.refund(command, event.refund_reference)

    def _note_failed_refund(self, event: ProviderEvent) -> None:
        paid, refund_id = self.captured, event.refund_id
        if paid is None or refund_id is None or paid.reference != event.reference:
            return
        if refund_id in self.failed_refunds:
            return
        refund = self.refunds.get(refund_id)
        if refund is None:
            raise Unavailable(f"refund {refund_id} of order {event.order_id} is not booked (yet)")
        if refund.reference == event.refund_reference:
            self.record(
                PaymentRefundFailed(
                    order_id=event.order_id,
                    refund_id=refund_id,
                    amount_cents=refund.amount_cents,
                    currency=refund.currency,
                    reason=event.reason,
                )
            )

    def _settle(
        self,
        order_id: UUID,
        method: SettlementMethod,
        amount_cents: int,
        reference: str | None,
        tendered_cents: int | None = None,
        change_cents: int | None = None,
    ) -> None:
        self.record(
            PaymentCaptured(
                order_id=order_id,
                method=method,
                amount_cents=amount_cents,
                currency=self.is_due(order_id).currency,
                reference=reference,
                tendered_cents=tendered_cents,
                change_cents=change_cents,
            )
        )

    def apply(self, event: Event) -> None:
        match event:
            case PaymentAuthorized():
                self.authorized, self.status, self.due_cents = event, "authorized", event.amount_cents
            case PaymentDeclined():
                self.refusal, self.status = event.refusal, "declined"
            case PaymentVoided():
                self.status = "voided"
            case PaymentAdjusted():
                self.round, self.due_cents = event.round, event.amount_cents
            case PaymentHoldLapsed():
                self.lapsed = True
            case PaymentCaptured():
                self.captured, self.status = event, "captured"
            case PaymentRefunded():
                self.refunds[event.refund_id] = event
            case PaymentRefundFailed():
                self.refunds.pop(event.refund_id, None)
                self.failed_refunds.add(event.refund_id)
            case _:
                raise TypeError(f"{type(event).__name__} is not an event of a payment")

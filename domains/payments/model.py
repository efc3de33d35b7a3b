"""A payment: authorized or declined, and voided when its order ends unpaid."""

from uuid import UUID

from domains.payments.messages import (
    AuthorizePayment,
    PaymentAuthorized,
    PaymentDeclined,
    PaymentStatus,
    PaymentView,
    PaymentVoided,
)
from events.aggregate import Aggregate
from events.event import Event
from kernel.errors import Conflict, OrderClosed, Refusal, Refused


class Payment(Aggregate):
    """The payment of one order. Each method is a decision: it records what happened, nothing on a repeat, or
    raises."""

    def __init__(self) -> None:
        super().__init__()
        self.status: PaymentStatus | None = None
        self.authorized: PaymentAuthorized | None = None
        self.refusal: Refusal | None = None

    def is_settled(self, order_id: UUID) -> bool:
        """Whether the authorization was decided before: True if it is held, False if it is still to be asked for.

        Raises `Refused` if it was declined, `OrderClosed` if it was voided.
        """
        if self.status == "voided":
            raise OrderClosed(f"the payment of order {order_id} has been voided")
        if self.refusal is not None:
            raise Refused(self.refusal)
        return self.status == "authorized"

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
        if self.status == "authorized":
            raise Conflict(f"the payment of order {order_id} is authorized and can not be declined")
        if self.status == "voided":
            raise OrderClosed(f"the payment of order {order_id} has been voided")
        if self.status is None:
            self.record(PaymentDeclined(order_id=order_id, refusal=refusal))

    def void(self, order_id: UUID, reason: str) -> None:
        """Nothing is held any more; an authorization that comes later is refused."""
        if self.status != "voided":
            self.record(PaymentVoided(order_id=order_id, reason=reason))

    @property
    def view(self) -> PaymentView | None:
        """The payment as it is now; None if nothing was asked of it yet."""
        if self.status is None:
            return None
        held = self.authorized.model_dump(exclude={"order_id"}) if self.authorized else {}
        return PaymentView(status=self.status, refusal=self.refusal, **held)

    def apply(self, event: Event) -> None:
        match event:
            case PaymentAuthorized():
                self.authorized, self.status = event, "authorized"
            case PaymentDeclined():
                self.refusal, self.status = event.refusal, "declined"
            case PaymentVoided():
                self.status = "voided"
            case _:
                raise TypeError(f"{type(event).__name__} is not an event of a payment")

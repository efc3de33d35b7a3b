"""The port to a payment provider. The built-in one is `sandbox.py`; `stripe.py` is a real one."""

from dataclasses import dataclass
from typing import Literal, Protocol
from uuid import UUID

from domains.payments.messages import SettlementMethod


@dataclass(frozen=True)
class Taken:
    """Money that the provider took: how much, its reference, and whether from the hold or at the desk."""

    method: SettlementMethod
    amount_cents: int
    reference: str


@dataclass(frozen=True)
class ProviderEvent:
    """What a provider says by itself, perhaps late, twice, or before it answers. `id` is the provider's.

    `lapsed`: it let go of the hold. `captured`, `charged`: it took the amount, from the hold or at the desk.
    `refunded`: it gave back what `refund_id` asked for, under a reference of its own. `refund_failed`: after all
    it did not, although it had said so.
    """

    id: str
    kind: Literal["lapsed", "captured", "charged", "refunded", "refund_failed"]
    order_id: UUID
    reference: str
    amount_cents: int = 0
    reason: str = ""
    refund_id: UUID | None = None
    refund_reference: str | None = None


class PaymentProvider(Protocol):
    """What MallBots needs of a payment provider. A payment is named by its order's id, and has one hold.

    The same idempotency key and arguments again: the same answer, and one effect; with other arguments
    `IdempotencyKeyReused`. Every method raises `ProviderTimeout` if no answer came (the effect may be there), and
    `Unavailable` or `Misconfigured` if it was certainly not done.
    """

    async def authorize(
        self, order_id: UUID, token: str, amount_cents: int, currency: str, *, idempotency_key: str
    ) -> str:
        """Hold an amount on a card and return the provider's reference.

        Raises `Refused` (`payment_declined`, `insufficient_funds`).
        """
        ...

    async def adjust(self, order_id: UUID, amount_cents: int, *, idempotency_key: str) -> None:
        """Hold another amount. A provider that can not hold less lets the rest go when it captures.

        Raises `Refused`: `payment_declined` or `insufficient_funds` if it does not hold more (then it holds what
        it held), `hold_lapsed` if it holds nothing any more.
        """
        ...

    async def capture(self, order_id: UUID, amount_cents: int, *, idempotency_key: str) -> Taken:
        """Take what is held, or a part; the rest is let go. If it was captured before, under any key: what was
        taken then.

        Raises `Refused`: `hold_lapsed` if nothing is held (any more), `payment_declined` or `insufficient_funds`
        if the bank says no.
        """
        ...

    async def void(self, order_id: UUID, *, idempotency_key: str) -> Taken | None:
        """Let go whatever is held for an order; nothing held is fine. From then on nothing of it can be captured.

        If it was captured before, that stays, and is returned.
        """
        ...

    async def charge(
        self,
        order_id: UUID,
        attempt: int,
        token: str,
        amount_cents: int,
        currency: str,
        *,
        idempotency_key: str,
    ) -> Taken:
        """Take an amount from a card at the desk, at once.

        Raises `Refused` (`payment_declined`, `insufficient_funds`), and `Conflict` if the attempt was called off.
        """
        ...

    async def call_off(self, order_id: UUID, before: int | None) -> Taken | None:
        """Let no charge at the desk happen that belongs to an attempt before this one (None: to any), also if its
        request comes only later. If one has happened, that stays, and is returned."""
        ...

    async def refund(
        self, order_id: UUID, refund_id: UUID, reference: str, amount_cents: int, *, idempotency_key: str
    ) -> str:
        """Give back a part of what was taken under `reference`, or all; return the refund's own reference.

        Raises `Refused` (`not_refundable`): it is more than is left, or the bank says no.
        """
        ...

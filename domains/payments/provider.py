"""The port to a payment provider. The built-in one is `sandbox.py`."""

from typing import Protocol
from uuid import UUID


class PaymentProvider(Protocol):
    """What MallBots needs of a payment provider. A payment is named by its order's id."""

    async def authorize(
        self, order_id: UUID, token: str, amount_cents: int, currency: str, *, idempotency_key: str
    ) -> str:
        """Hold an amount on a card and return the provider's reference.

        The same key and arguments again: the same answer, and one hold. Raises `Refused`
        (`payment_declined`, `insufficient_funds`), `ProviderTimeout` if no answer came (the hold may be there),
        `IdempotencyKeyReused` if the key came before with other arguments.
        """
        ...

    async def void(self, order_id: UUID, *, idempotency_key: str) -> None:
        """Let go whatever is held for an order; nothing held is fine. Raises `ProviderTimeout`."""
        ...

"""A payment provider of our own, in a database of its own, that misbehaves on demand.

What a card does is told by its token (`CARD_TOKENS`). It keeps idempotency keys as a real provider does: the
same key and arguments get the first answer again, and hold the amount once.
"""

import asyncio
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import BigInteger, DateTime, Index, func, text
from sqlmodel import Field, SQLModel

from kernel.database import Database
from kernel.errors import IdempotencyKeyReused, ProviderTimeout, Refusal, Refused
from kernel.ids import new_id

SCHEMA = "sandbox"

CARD_TOKENS: Final[dict[str, str]] = {
    "tok_approved": "the amount is held",
    "tok_declined": "the bank says no",
    "tok_insufficient_funds": "there is not enough on the account",
    "tok_timeout_once": "the first request gets lost on its way; the next one holds the amount",
    "tok_slow": "the amount is held, but the answer takes half the time-out",
    "tok_timeout_always": "every request gets lost on its way",
    "tok_lost_answer": "the first request holds the amount, but its answer gets lost; the next one is answered",
}

_REFUSALS: Final = {
    "tok_declined": Refusal(code="payment_declined", detail="the card was declined"),
    "tok_insufficient_funds": Refusal(
        code="insufficient_funds", detail="there is not enough on the card's account"
    ),
}
_UNKNOWN_CARD: Final = Refusal(code="payment_declined", detail="the payment provider does not know this card")

# Counting calls decides which of them get lost; the row's lock lets calls with one key queue.
_CALL = text(
    "INSERT INTO sandbox.holds (id, idempotency_key, order_id, token, amount_cents, currency, status, calls)"
    " VALUES (:id, :idempotency_key, :order_id, :token, :amount_cents, :currency, 'unanswered', 1)"
    " ON CONFLICT (idempotency_key) DO UPDATE SET calls = holds.calls + 1"
    " RETURNING id, order_id, token, amount_cents, currency, status, calls"
)
_SET_STATUS = text("UPDATE sandbox.holds SET status = :status WHERE id = :id")
_VOID = text("UPDATE sandbox.holds SET status = 'voided' WHERE order_id = :order_id AND status = 'held'")


class HoldRow(SQLModel, table=True):
    """A request to hold an amount: `unanswered` (it got lost), `held`, `declined` or `voided`."""

    __tablename__ = "holds"
    __table_args__ = (Index("ix_holds_order_id", "order_id"), {"schema": SCHEMA})

    id: UUID = Field(primary_key=True)
    idempotency_key: str = Field(unique=True)
    order_id: UUID
    token: str
    amount_cents: int = Field(sa_type=BigInteger)
    currency: str
    status: str
    calls: int
    created_at: datetime | None = Field(
        default=None,
        sa_type=DateTime(timezone=True),
        nullable=False,
        sa_column_kwargs={"server_default": func.now()},
    )


class Sandbox:
    """The sandbox provider. `timeout` is how many seconds a caller waits for an answer that never comes."""

    def __init__(self, database: Database, *, timeout: float = 2.0) -> None:
        self._database = database
        self._timeout = timeout

    async def authorize(
        self, order_id: UUID, token: str, amount_cents: int, currency: str, *, idempotency_key: str
    ) -> str:
        """As `PaymentProvider.authorize`."""
        asked = {"order_id": order_id, "token": token, "amount_cents": amount_cents, "currency": currency}
        async with self._database.transaction() as connection:
            call = (
                await connection.execute(_CALL, {"id": new_id(), "idempotency_key": idempotency_key, **asked})
            ).one()
            if {name: getattr(call, name) for name in asked} != asked:
                raise IdempotencyKeyReused(f"{idempotency_key} came before with another request")
            lost = token == "tok_timeout_always" or (token == "tok_timeout_once" and call.calls == 1)  # noqa: S105
            refusal = _REFUSALS.get(token) if token in CARD_TOKENS else _UNKNOWN_CARD
            if call.status == "unanswered" and not lost:
                status = "declined" if refusal else "held"
                await connection.execute(_SET_STATUS, {"id": call.id, "status": status})
        if lost or (token == "tok_lost_answer" and call.calls == 1):  # noqa: S105
            await asyncio.sleep(self._timeout)
            raise ProviderTimeout("the payment provider did not answer in time")
        if token == "tok_slow":  # noqa: S105
            await asyncio.sleep(self._timeout / 2)
        if refusal:
            raise Refused(refusal)
        return f"hold_{call.id}"

    async def void(self, order_id: UUID, *, idempotency_key: str) -> None:
        """As `PaymentProvider.void`. Voiding is idempotent by nature here, so the key is not kept."""
        async with self._database.transaction() as connection:
            await connection.execute(_VOID, {"order_id": order_id})

"""A payment provider of our own, in a database of its own, that misbehaves on demand.

What a card does is told by its token (`CARD_TOKENS`). It keeps idempotency keys as a real provider does: the
same key and arguments get the first answer again, and have one effect.
"""

import asyncio
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NoReturn
from uuid import UUID

from sqlalchemy import BigInteger, DateTime, Index, Integer, bindparam, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import Field, SQLModel

from domains.payments.desk import Desk
from domains.payments.provider import Taken
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
    "tok_no_increase": "the amount is held, but never more than that",
    "tok_hold_lapses": "the amount is held, but not any more when it is captured",
    "tok_capture_declined": "the amount is held, but the bank says no when it is captured",
    "tok_capture_lost_answer": "the amount is held; the first capture takes it, but its answer gets lost",
    "tok_capture_timeout": "the amount is held; every capture gets lost on its way",
    "tok_refund_declined": "the amount is held and captured; the bank takes nothing back",
    "tok_refund_lost_answer": "the amount is held and captured; of each refund the first answer gets lost",
}
"""What each card does. At the desk an amount is taken at once where it says that it is held."""

_REFUSALS: Final = {
    "tok_declined": Refusal(code="payment_declined", detail="the card was declined"),
    "tok_insufficient_funds": Refusal(
        code="insufficient_funds", detail="there is not enough on the card's account"
    ),
}
_UNKNOWN_CARD: Final = Refusal(code="payment_declined", detail="the payment provider does not know this card")
_NO_INCREASE: Final = Refusal(code="payment_declined", detail="no more is held on the card")
_CAPTURE_DECLINED: Final = Refusal(code="payment_declined", detail="the card was declined when it was to pay")
_NO_HOLD: Final = Refusal(code="hold_lapsed", detail="nothing is held on the card any more")
_REFUND_DECLINED: Final = Refusal(code="not_refundable", detail="the card's bank takes no refund")
_TOO_MUCH: Final = Refusal(code="not_refundable", detail="so much is not left of what was paid")

# Counting calls decides which of them get lost; the row's lock lets calls with one key queue.
_CALL = text(
    "INSERT INTO sandbox.holds"
    " (id, idempotency_key, order_id, attempt, token, amount_cents, currency, status, calls) VALUES"
    " (:id, :idempotency_key, :order_id, :attempt, :token, :amount_cents, :currency, 'unanswered', 1)"
    " ON CONFLICT (idempotency_key) DO UPDATE SET calls = holds.calls + 1"
    " RETURNING id, order_id, attempt, token, coalesce(asked_cents, amount_cents) AS amount_cents,"
    " currency, status, calls"
)
_ANSWER = text("UPDATE sandbox.holds SET status = :status, captured_cents = :captured_cents WHERE id = :id")
_HOLD = text(
    "SELECT id, token, amount_cents, status, captured_cents FROM sandbox.holds"
    " WHERE order_id = :order_id AND attempt IS NULL ORDER BY id LIMIT 1 FOR UPDATE"
)
_PAID = text(
    "SELECT id, token, captured_cents - refunded_cents AS left_cents FROM sandbox.holds WHERE id = :id FOR UPDATE"
)
_ADJUST = text(
    "UPDATE sandbox.holds SET asked_cents = coalesce(asked_cents, amount_cents), amount_cents = :amount_cents"
    " WHERE id = :id"
)
_REFUND = text("UPDATE sandbox.holds SET refunded_cents = refunded_cents + :amount_cents WHERE id = :id")
_VOID = text("UPDATE sandbox.holds SET status = 'voided' WHERE order_id = :order_id AND status = 'held'")
_CAPTURED = text(
    "SELECT id, captured_cents FROM sandbox.holds"
    " WHERE order_id = :order_id AND attempt IS NULL AND status = 'captured'"
)
_CHARGED = text(
    "SELECT id, captured_cents FROM sandbox.holds"
    " WHERE order_id = :order_id AND attempt < coalesce(:before, attempt + 1) AND status = 'captured'"
).bindparams(bindparam("before", type_=Integer()))
_REQUEST = text(
    "INSERT INTO sandbox.requests (idempotency_key, id, kind, hold_id, amount_cents, calls)"
    " VALUES (:idempotency_key, :id, :kind, :hold_id, :amount_cents, 1)"
    " ON CONFLICT (idempotency_key) DO UPDATE SET calls = requests.calls + 1"
    " RETURNING id, kind, hold_id, amount_cents, calls, answer"
)
_ANSWER_REQUEST = text("UPDATE sandbox.requests SET answer = :answer WHERE id = :id").bindparams(
    bindparam("answer", type_=JSONB())
)


class HoldRow(SQLModel, table=True):
    """A request to hold an amount, or to take it from a card at the desk (in which `attempt`).

    `unanswered`: it got lost. `held`, `declined`, `voided`, `lapsed`, or `captured`: then `captured_cents` were
    taken, and `refunded_cents` of them given back. `amount_cents` is what is held now; what was asked for at first
    is in `asked_cents`, if that was another amount.
    """

    __tablename__ = "holds"
    __table_args__ = (Index("ix_holds_order_id", "order_id"), {"schema": SCHEMA})

    id: UUID = Field(primary_key=True)
    idempotency_key: str = Field(unique=True)
    order_id: UUID
    attempt: int | None = None
    token: str
    amount_cents: int = Field(sa_type=BigInteger)
    asked_cents: int | None = Field(default=None, sa_type=BigInteger)
    currency: str
    status: str
    captured_cents: int = Field(default=0, sa_type=BigInteger, sa_column_kwargs={"server_default": "0"})
    refunded_cents: int = Field(default=0, sa_type=BigInteger, sa_column_kwargs={"server_default": "0"})
    calls: int
    created_at: datetime | None = Field(
        default=None,
        sa_type=DateTime(timezone=True),
        nullable=False,
        sa_column_kwargs={"server_default": func.now()},
    )


class RequestRow(SQLModel, table=True):
    """A request to adjust, capture or refund. `answer` is a refusal, or empty; None if the request got lost."""

    __tablename__ = "requests"
    __table_args__ = {"schema": SCHEMA}

    idempotency_key: str = Field(primary_key=True)
    id: UUID
    kind: str
    hold_id: UUID = Field(foreign_key="sandbox.holds.id")
    amount_cents: int = Field(sa_type=BigInteger)
    calls: int
    answer: dict[str, Any] | None = Field(default=None, sa_type=JSONB)


class SandboxDeskRow(SQLModel, table=True):
    """The latest attempt at an order's desk, as the provider was told; see `Desk`."""

    __tablename__ = "desks"
    __table_args__ = {"schema": SCHEMA}

    order_id: UUID = Field(primary_key=True)
    attempt: int
    closed: bool


@dataclass(frozen=True)
class _Request:
    """A request under its key: how often it came, and what it was answered; `is_new` if it was not yet."""

    id: UUID
    calls: int
    is_new: bool
    refusal: Refusal | None


class Sandbox:
    """The sandbox provider. `timeout` is how many seconds a caller waits for an answer that never comes."""

    def __init__(self, database: Database, *, timeout: float = 2.0) -> None:
        self._database = database
        self._timeout = timeout
        self._desk = Desk(SCHEMA)

    async def authorize(
        self, order_id: UUID, token: str, amount_cents: int, currency: str, *, idempotency_key: str
    ) -> str:
        """As `PaymentProvider.authorize`."""
        return _reference(await self._use_card(order_id, None, token, amount_cents, currency, idempotency_key))

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
        """As `PaymentProvider.charge`."""
        charge_id = await self._use_card(order_id, attempt, token, amount_cents, currency, idempotency_key)
        return Taken("desk_card", amount_cents, _reference(charge_id))

    async def adjust(self, order_id: UUID, amount_cents: int, *, idempotency_key: str) -> None:
        """As `PaymentProvider.adjust`."""
        async with self._database.transaction() as connection:
            hold = (await connection.execute(_HOLD, {"order_id": order_id})).one_or_none()
            if hold is None:
                raise Refused(_NO_HOLD)
            request = await self._request(connection, "adjust", hold.id, amount_cents, idempotency_key)
            refusal = request.refusal
            if request.is_new:
                if hold.status != "held":
                    refusal = _NO_HOLD
                elif amount_cents > hold.amount_cents and hold.token == "tok_no_increase":  # noqa: S105
                    refusal = _NO_INCREASE
                else:
                    await connection.execute(_ADJUST, {"id": hold.id, "amount_cents": amount_cents})
                await self._answer(connection, request, refusal)
        if refusal:
            raise Refused(refusal)

    async def capture(self, order_id: UUID, amount_cents: int, *, idempotency_key: str) -> Taken:
        """As `PaymentProvider.capture`."""
        async with self._database.transaction() as connection:
            hold = (await connection.execute(_HOLD, {"order_id": order_id})).one_or_none()
            if hold is None:
                raise Refused(_NO_HOLD)
            if hold.status == "captured":
                return Taken("card", hold.captured_cents, _reference(hold.id))
            request = await self._request(connection, "capture", hold.id, amount_cents, idempotency_key)
            lost = hold.token == "tok_capture_timeout"  # noqa: S105
            refusal = request.refusal
            if request.is_new and not lost:
                refusal = _refusal_of_capture(hold.status, hold.token, amount_cents > hold.amount_cents)
                if refusal is None:
                    taken = {"id": hold.id, "status": "captured", "captured_cents": amount_cents}
                    await connection.execute(_ANSWER, taken)
                elif hold.status == "held" and refusal is _NO_HOLD:
                    await connection.execute(_ANSWER, {"id": hold.id, "status": "lapsed", "captured_cents": 0})
                await self._answer(connection, request, refusal)
        if lost or hold.token == "tok_capture_lost_answer":  # noqa: S105
            await self._never_answer()
        if refusal:
            raise Refused(refusal)
        return Taken("card", amount_cents, _reference(hold.id))

    async def void(self, order_id: UUID, *, idempotency_key: str) -> Taken | None:
        """As `PaymentProvider.void`. Voiding is idempotent by nature here, so the key is not kept."""
        async with self._database.transaction() as connection:
            await connection.execute(_VOID, {"order_id": order_id})
            captured = (await connection.execute(_CAPTURED, {"order_id": order_id})).first()
        return Taken("card", captured.captured_cents, _reference(captured.id)) if captured else None

    async def call_off(self, order_id: UUID, before: int | None) -> Taken | None:
        """As `PaymentProvider.call_off`."""
        async with self._database.transaction() as connection:
            if before is None:
                await self._desk.close(connection, order_id)
            else:
                await self._desk.begin(connection, order_id, before)
            charged = (await connection.execute(_CHARGED, {"order_id": order_id, "before": before})).first()
        return Taken("desk_card", charged.captured_cents, _reference(charged.id)) if charged else None

    async def refund(
        self, order_id: UUID, refund_id: UUID, reference: str, amount_cents: int, *, idempotency_key: str
    ) -> str:
        """As `PaymentProvider.refund`."""
        async with self._database.transaction() as connection:
            paid = (await connection.execute(_PAID, {"id": _id_in(reference)})).one_or_none()
            if paid is None:
                raise Refused(_TOO_MUCH)
            request = await self._request(connection, "refund", paid.id, amount_cents, idempotency_key)
            refusal = request.refusal
            if request.is_new:
                if paid.token == "tok_refund_declined":  # noqa: S105
                    refusal = _REFUND_DECLINED
                elif amount_cents > paid.left_cents:
                    refusal = _TOO_MUCH
                else:
                    await connection.execute(_REFUND, {"id": paid.id, "amount_cents": amount_cents})
                await self._answer(connection, request, refusal)
        if paid.token == "tok_refund_lost_answer" and request.calls == 1:  # noqa: S105
            await self._never_answer()
        if refusal:
            raise Refused(refusal)
        return f"refund_{request.id}"

    async def _use_card(
        self, order_id: UUID, attempt: int | None, token: str, amount_cents: int, currency: str, key: str
    ) -> UUID:
        """Hold the amount, or take it for an attempt at the desk; the id of the hold or the charge."""
        asked = {
            "order_id": order_id,
            "attempt": attempt,
            "token": token,
            "amount_cents": amount_cents,
            "currency": currency,
        }
        async with self._database.transaction() as connection:
            if attempt is not None:
                await self._desk.begin(connection, order_id, attempt)
            call = (await connection.execute(_CALL, {"id": new_id(), "idempotency_key": key, **asked})).one()
            if {name: getattr(call, name) for name in asked} != asked:
                raise IdempotencyKeyReused(f"{key} came before with another request")
            lost = token == "tok_timeout_always" or (token == "tok_timeout_once" and call.calls == 1)  # noqa: S105
            refusal = _REFUSALS.get(token) if token in CARD_TOKENS else _UNKNOWN_CARD
            if call.status == "unanswered" and not lost:
                status = "declined" if refusal else "held" if attempt is None else "captured"
                captured_cents = amount_cents if status == "captured" else 0
                await connection.execute(
                    _ANSWER, {"id": call.id, "status": status, "captured_cents": captured_cents}
                )
        if lost or (token == "tok_lost_answer" and call.calls == 1):  # noqa: S105
            await self._never_answer()
        if token == "tok_slow":  # noqa: S105
            await asyncio.sleep(self._timeout / 2)
        if refusal:
            raise Refused(refusal)
        found: UUID = call.id
        return found

    async def _request(
        self, connection: AsyncConnection, kind: str, hold_id: UUID, amount_cents: int, key: str
    ) -> _Request:
        asked = {"kind": kind, "hold_id": hold_id, "amount_cents": amount_cents}
        row = (await connection.execute(_REQUEST, {"idempotency_key": key, "id": new_id(), **asked})).one()
        if {name: getattr(row, name) for name in asked} != asked:
            raise IdempotencyKeyReused(f"{key} came before with another request")
        refusal = Refusal.model_validate(row.answer) if row.answer else None
        return _Request(row.id, row.calls, row.answer is None, refusal)

    async def _answer(self, connection: AsyncConnection, request: _Request, refusal: Refusal | None) -> None:
        answer = refusal.model_dump() if refusal else {}
        await connection.execute(_ANSWER_REQUEST, {"id": request.id, "answer": answer})

    async def _never_answer(self) -> NoReturn:
        await asyncio.sleep(self._timeout)
        raise ProviderTimeout("the payment provider did not answer in time")


def _refusal_of_capture(status: str, token: str, too_much: bool) -> Refusal | None:
    if status != "held" or token == "tok_hold_lapses":  # noqa: S105
        return _NO_HOLD
    if token == "tok_capture_declined" or too_much:  # noqa: S105
        return _CAPTURE_DECLINED
    return None


def _reference(hold_id: UUID) -> str:
    return f"hold_{hold_id}"


def _id_in(reference: str) -> UUID:
    return UUID(reference.removeprefix("hold_"))

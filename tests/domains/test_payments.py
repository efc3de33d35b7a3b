"""Payments: at most one charge an order, whatever gets lost on the way to the provider and back."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from domains.payments.messages import AuthorizePayment, VoidPayment
from domains.payments.provider import Taken
from domains.payments.sandbox import Sandbox
from domains.payments.service import Payments
from events.store import EventStore
from kernel.database import Database
from kernel.errors import (
    ConcurrencyConflict,
    IdempotencyKeyReused,
    OrderClosed,
    ProviderTimeout,
    Refused,
    Unavailable,
)
from kernel.ids import new_id
from tests.samples import authorize


def void(order_id: UUID) -> VoidPayment:
    return VoidPayment(order_id=order_id, reason="insufficient_stock")


async def holds(database: Database, order_id: UUID) -> list[tuple[str, int]]:
    async with database.transaction() as connection:
        rows = await connection.execute(
            text("SELECT status, amount_cents FROM sandbox.holds WHERE order_id = :order_id"),
            {"order_id": order_id},
        )
        return [(row.status, row.amount_cents) for row in rows]


async def events_of(database: Database, order_id: UUID) -> list[str]:
    async with database.transaction() as connection:
        rows = await connection.execute(
            text("SELECT type FROM payments.events WHERE stream = :stream ORDER BY version"),
            {"stream": f"payment-{order_id}"},
        )
        return [row.type for row in rows]


async def authorize_until_answered(payments: Payments, command: AuthorizePayment, attempts: int = 5) -> None:
    for _ in range(attempts):
        try:
            return await payments.authorize(command)
        except ProviderTimeout:
            continue
    raise AssertionError("never answered")


@pytest.mark.parametrize("token", ["tok_approved", "tok_timeout_once", "tok_slow", "tok_lost_answer"])
async def test_a_card_that_pays_is_charged_once_however_often_it_is_asked(
    payments: Payments, database: Database, token: str
) -> None:
    command = authorize(token)
    await authorize_until_answered(payments, command)
    await payments.authorize(command)
    assert await holds(database, command.order_id) == [("held", 900)]
    assert await events_of(database, command.order_id) == ["PaymentAuthorized"]


@pytest.mark.parametrize(
    ("token", "code"),
    [
        ("tok_declined", "payment_declined"),
        ("tok_insufficient_funds", "insufficient_funds"),
        ("tok_of_nobody", "payment_declined"),
    ],
)
async def test_a_card_that_does_not_pay_is_refused_with_the_same_reason_every_time(
    payments: Payments, database: Database, token: str, code: str
) -> None:
    command = authorize(token)
    for _ in range(2):
        with pytest.raises(Refused) as refused:
            await payments.authorize(command)
        assert refused.value.refusal.code == code
    assert await holds(database, command.order_id) == [("declined", 900)]
    assert await events_of(database, command.order_id) == ["PaymentDeclined"]


async def test_a_provider_that_never_answers_charges_nothing(payments: Payments, database: Database) -> None:
    command = authorize("tok_timeout_always")
    for _ in range(3):
        with pytest.raises(ProviderTimeout):
            await payments.authorize(command)
    assert await holds(database, command.order_id) == [("unanswered", 900)]
    await payments.void(void(command.order_id))
    assert await events_of(database, command.order_id) == ["PaymentVoided"]


async def test_a_void_lets_go_a_hold_whose_answer_got_lost(payments: Payments, database: Database) -> None:
    command = authorize("tok_lost_answer")
    with pytest.raises(ProviderTimeout):
        await payments.authorize(command)
    assert await holds(database, command.order_id) == [("held", 900)]
    for _ in range(2):
        await payments.void(void(command.order_id))
    assert await holds(database, command.order_id) == [("voided", 900)]
    assert await events_of(database, command.order_id) == ["PaymentVoided"]


async def test_an_authorize_that_comes_after_its_void_holds_nothing(
    payments: Payments, database: Database
) -> None:
    command = authorize()
    await payments.void(void(command.order_id))
    with pytest.raises(OrderClosed):
        await payments.authorize(command)
    assert await holds(database, command.order_id) == []


async def test_a_void_that_overtakes_a_slow_authorize_leaves_nothing_held(
    payments: Payments, database: Database
) -> None:
    for _ in range(5):
        command = authorize("tok_slow")
        authorized, _ = await asyncio.gather(
            payments.authorize(command), payments.void(void(command.order_id)), return_exceptions=True
        )
        if isinstance(authorized, Unavailable):  # and is tried again, as every step
            with pytest.raises(OrderClosed):
                await payments.authorize(command)
        await payments.void(void(command.order_id))
        assert await holds(database, command.order_id) in ([], [("voided", 900)])


class LateProvider(Sandbox):
    """A provider whose answer comes after the order was voided, and which then loses some voids."""

    def __init__(self, database: Database, lost_voids: int) -> None:
        super().__init__(database, timeout=0.05)
        self._lost_voids = lost_voids
        self.before_answer: Callable[[], Awaitable[None]] | None = None

    async def authorize(
        self, order_id: UUID, token: str, amount_cents: int, currency: str, *, idempotency_key: str
    ) -> str:
        if self.before_answer:
            await self.before_answer()
        return await super().authorize(order_id, token, amount_cents, currency, idempotency_key=idempotency_key)

    async def void(self, order_id: UUID, *, idempotency_key: str) -> Taken | None:
        if self.before_answer is None and self._lost_voids > 0:
            self._lost_voids -= 1
            raise ProviderTimeout("the payment provider did not answer in time")
        return await super().void(order_id, idempotency_key=idempotency_key)


@pytest.mark.parametrize("lost_voids", [0, 1])
async def test_a_hold_that_comes_after_the_order_was_voided_is_let_go(database: Database, lost_voids: int) -> None:
    provider = LateProvider(database, lost_voids)
    payments, command = Payments(database, provider), authorize()

    async def void_first() -> None:
        await payments.void(void(command.order_id))
        provider.before_answer = None

    provider.before_answer = void_first
    for _ in range(lost_voids):
        with pytest.raises(ProviderTimeout):
            await payments.authorize(command)
    with pytest.raises(OrderClosed):
        await payments.authorize(command)
    assert await holds(database, command.order_id) == [("voided", 900)]


async def test_a_hold_is_recorded_although_somebody_else_recorded_first(
    payments: Payments, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = EventStore.append
    lost: list[int] = []

    async def lose_once(*arguments: Any) -> None:
        if not lost:
            lost.append(1)
            raise ConcurrencyConflict("somebody was first")
        await append(*arguments)

    monkeypatch.setattr(EventStore, "append", lose_once)
    command = authorize()
    await payments.authorize(command)
    assert await events_of(database, command.order_id) == ["PaymentAuthorized"]


async def test_payment_at_pickup_is_an_open_invoice_that_asks_no_provider(
    payments: Payments, database: Database
) -> None:
    command = authorize(None)
    for _ in range(2):
        await payments.authorize(command)
    assert await holds(database, command.order_id) == []
    assert await events_of(database, command.order_id) == ["PaymentAuthorized"]
    await payments.void(void(command.order_id))
    assert await events_of(database, command.order_id) == ["PaymentAuthorized", "PaymentVoided"]


async def test_the_sandbox_keeps_idempotency_keys_as_a_real_provider_does(sandbox: Sandbox) -> None:
    order_id, key = new_id(), f"key-{new_id()}"
    first = await sandbox.authorize(order_id, "tok_approved", 500, "USD", idempotency_key=key)
    assert await sandbox.authorize(order_id, "tok_approved", 500, "USD", idempotency_key=key) == first
    with pytest.raises(IdempotencyKeyReused):
        await sandbox.authorize(order_id, "tok_approved", 501, "USD", idempotency_key=key)


async def test_one_key_sent_many_times_at_once_holds_the_amount_once(sandbox: Sandbox, database: Database) -> None:
    order_id, key = new_id(), f"key-{new_id()}"
    references = await asyncio.gather(
        *(sandbox.authorize(order_id, "tok_approved", 500, "USD", idempotency_key=key) for _ in range(10))
    )
    assert len(set(references)) == 1
    assert await holds(database, order_id) == [("held", 500)]

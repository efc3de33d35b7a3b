"""Refunds: never more than was captured, each once."""

import asyncio
import random
from collections.abc import Awaitable
from typing import Any

import pytest

from domains.payments.messages import CapturePayment, RefundPayment
from domains.payments.sandbox import CARD_TOKENS, Sandbox
from domains.payments.service import Payments
from kernel.database import Database
from kernel.errors import IdempotencyKeyReused, MallError, ProviderTimeout, Refused
from kernel.ids import new_id
from tests.payments.books import (
    adjust,
    authorized,
    books,
    capture,
    cash,
    desk_card,
    events_of,
    paid,
    persist,
    refund,
    void,
)
from tests.samples import authorize


async def not_refundable(attempt: Awaitable[object]) -> None:
    with pytest.raises(Refused) as error:
        await attempt
    assert error.value.refusal.code == "not_refundable"


@pytest.mark.parametrize("offer", [None, desk_card(), cash()], ids=["card", "desk card", "cash"])
async def test_refunds_go_back_in_the_way_that_was_paid_until_nothing_is_left(
    payments: Payments, database: Database, offer: Any
) -> None:
    order_id = await authorized(payments)
    await payments.capture(capture(order_id, 1, offer))
    first, second = refund(order_id, 300), refund(order_id, 600)
    for command in (first, second, first, second):
        await payments.refund(command)
    await not_refundable(payments.refund(refund(order_id, 1)))
    found = await books(database, order_id)
    assert (found.status, found.captured_cents, found.refunded_cents) == ("captured", 900, 900)
    assert found.provider_refunded == (0 if offer == cash() else 900)
    assert found.agree
    told = await events_of(database, order_id)
    assert told[-3:] == ["PaymentCaptured", "PaymentRefunded", "PaymentRefunded"]


async def test_never_more_is_refunded_than_was_captured(payments: Payments, database: Database) -> None:
    order_id = await paid(payments)
    await not_refundable(payments.refund(refund(order_id, 901)))
    outcomes = await asyncio.gather(
        *(payments.refund(refund(order_id, 400)) for _ in range(6)), return_exceptions=True
    )
    assert sum(outcome is None for outcome in outcomes) == 2
    found = await books(database, order_id)
    assert found.refunded_cents == 800
    assert found.agree


async def test_cash_is_not_given_back_twice_either(payments: Payments, database: Database) -> None:
    order_id = await authorized(payments, None)
    await payments.capture(capture(order_id, 1, cash()))
    outcomes = await asyncio.gather(
        *(payments.refund(refund(order_id, 900)) for _ in range(5)), return_exceptions=True
    )
    assert sum(outcome is None for outcome in outcomes) == 1
    assert (await books(database, order_id)).refunded_cents == 900


async def test_one_refund_asked_for_at_once_many_times_is_done_once(
    payments: Payments, database: Database
) -> None:
    order_id = await paid(payments)
    command = refund(order_id, 200)
    await asyncio.gather(*(payments.refund(command) for _ in range(8)))
    found = await books(database, order_id)
    assert found.refunded_cents == 200
    assert found.agree


async def test_a_refund_whose_answer_got_lost_is_found_by_its_repeat(
    payments: Payments, database: Database
) -> None:
    order_id = await paid(payments, "tok_refund_lost_answer")
    command = refund(order_id, 200)
    with pytest.raises(ProviderTimeout):
        await payments.refund(command)
    await persist(lambda: payments.refund(command))
    found = await books(database, order_id)
    assert (found.refunded_cents, found.provider_refunded) == (200, 200)


async def test_a_refund_that_the_bank_declines_changes_nothing(payments: Payments, database: Database) -> None:
    order_id = await paid(payments, "tok_refund_declined")
    command = refund(order_id, 200)
    for _ in range(2):
        await not_refundable(payments.refund(command))
    assert await events_of(database, order_id) == ["PaymentAuthorized", "PaymentCaptured"]
    assert (await books(database, order_id)).agree


async def test_a_refund_is_not_another_one_under_the_same_id(payments: Payments) -> None:
    order_id = await paid(payments)
    command = refund(order_id, 200)
    await payments.refund(command)
    with pytest.raises(IdempotencyKeyReused):
        await payments.refund(refund(order_id, 201, command.refund_id))


async def test_what_was_not_captured_is_not_refunded(payments: Payments) -> None:
    held, voided = await authorized(payments), await authorized(payments)
    await payments.void(void(voided))
    for order_id in (held, voided, new_id()):
        await not_refundable(payments.refund(refund(order_id, 1)))


async def test_whatever_happens_to_orders_the_provider_has_what_our_books_say(
    sandbox: Sandbox, database: Database
) -> None:
    dice = random.Random(20_240)
    payments = Payments(database, Sandbox(database, timeout=0.002))
    ends = await asyncio.gather(*(_live_through(payments, database, dice.random()) for _ in range(30)))
    assert set(ends) == {"captured", "voided", "declined"}


async def _live_through(payments: Payments, database: Database, seed: float) -> str:
    """An order to which things happen at random, many at once, until it is paid or undone; how it ended."""
    dice = random.Random(seed)
    # Of an order whose card takes no refund, the void does not end.
    tokens = [token for token in CARD_TOKENS if token not in ("tok_timeout_always", "tok_refund_declined")]
    command = authorize(dice.choice([*tokens, None]))
    order_id = command.order_id
    attempts: list[CapturePayment] = []
    try:
        await persist(lambda: payments.authorize(command))
        for number in range(1, 5):
            for _ in range(dice.randint(1, 2)):
                offer = dice.choice([None, cash(dice.choice([0, 900, 5000])), desk_card(dice.choice(tokens))])
                attempts.append(capture(order_id, len(attempts) + 1, offer))
            refunds = [refund(order_id, dice.choice([100, 500, 900])) for _ in range(2)]
            acts: list[Awaitable[object]] = [
                payments.adjust(adjust(order_id, number, dice.choice([300, 900, 1200]))),
                *(payments.capture(one) for one in (*attempts[-2:], dice.choice(attempts))),
                *(payments.refund(one) for one in (refunds[0], refunds[0], refunds[1])),
            ]
            dice.shuffle(acts)
            for outcome in await asyncio.gather(*acts, return_exceptions=True):
                if isinstance(outcome, BaseException) and not isinstance(outcome, MallError):
                    raise outcome
            await _repeat_lost(payments, refunds)
        if dice.random() < 0.5:
            await payments.capture(capture(order_id, 99, cash(5000)))
        else:
            await persist(lambda: payments.void(void(order_id, refund_captured=True)))
    except Refused:
        assert (await books(database, order_id)).status == "declined"
    found = await books(database, order_id)
    assert found.agree, (command, found)
    assert found.held == 0
    if found.status == "voided":
        assert found.captured_cents == found.refunded_cents
    return found.status


async def _repeat_lost(payments: Payments, refunds: list[RefundPayment]) -> None:
    """A refund is repeated until it is answered, as its workflow does."""
    for command in refunds:
        try:
            await persist(lambda command=command: payments.refund(command))  # type: ignore[misc]
        except Refused:
            continue

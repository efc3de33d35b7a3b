"""Capture: an order is charged at most once, whatever is retried, lost or raced."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any
from uuid import UUID

import pytest

from domains.payments.messages import Receipt
from domains.payments.provider import Taken
from domains.payments.sandbox import Sandbox
from domains.payments.service import Payments
from kernel.database import Database
from kernel.errors import Conflict, IdempotencyKeyReused, InvalidInput, OrderClosed, ProviderTimeout, Refused
from kernel.ids import new_id
from tests.payments.books import (
    adjust,
    authorized,
    books,
    capture,
    cash,
    desk_card,
    events_of,
    holds,
    paid,
    persist,
    void,
)

BY_CARD = Receipt(method="card", amount_cents=900, currency="USD")


async def refused(attempt: Awaitable[object]) -> str:
    with pytest.raises(Refused) as error:
        await attempt
    return error.value.refusal.code


async def test_a_hold_is_captured_once_and_every_repeat_gives_the_first_receipt(
    payments: Payments, database: Database
) -> None:
    order_id = await authorized(payments)
    assert [await payments.capture(capture(order_id)) for _ in range(2)] == [BY_CARD] * 2
    assert await payments.capture(capture(order_id, 2)) == BY_CARD
    assert await holds(database, order_id) == [("captured", 900)]
    assert await events_of(database, order_id) == ["PaymentAuthorized", "PaymentCaptured"]
    assert (await books(database, order_id)).agree


async def test_what_was_really_picked_is_captured_and_the_rest_let_go(
    payments: Payments, database: Database
) -> None:
    order_id = await authorized(payments)
    for _ in range(2):
        await payments.adjust(adjust(order_id, 1, 500))
    assert await holds(database, order_id) == [("held", 500)]
    assert (await payments.capture(capture(order_id))).amount_cents == 500
    assert await events_of(database, order_id) == ["PaymentAuthorized", "PaymentAdjusted", "PaymentCaptured"]
    view = await payments.view(order_id)
    assert view is not None
    assert (view.status, view.amount_cents, view.captured_cents, view.settled_by) == ("captured", 500, 500, "card")


async def test_an_order_that_became_dearer_holds_more(payments: Payments, database: Database) -> None:
    order_id = await authorized(payments)
    await payments.adjust(adjust(order_id, 1, 1100))
    assert await holds(database, order_id) == [("held", 1100)]
    assert (await payments.capture(capture(order_id))).amount_cents == 1100


async def test_a_card_that_holds_no_more_keeps_what_it_held_and_may_hold_less_next(
    payments: Payments, database: Database
) -> None:
    order_id = await authorized(payments, "tok_no_increase")
    for _ in range(2):
        assert await refused(payments.adjust(adjust(order_id, 1, 1100))) == "payment_declined"
    assert await holds(database, order_id) == [("held", 900)]
    await payments.adjust(adjust(order_id, 2, 800))
    assert await holds(database, order_id) == [("held", 800)]


async def test_an_adjustment_that_comes_late_changes_nothing(payments: Payments, sandbox: Sandbox) -> None:
    order_id = await authorized(payments)
    await payments.adjust(adjust(order_id, 1, 500))
    await payments.adjust(adjust(order_id, 2, 400))
    await payments.adjust(adjust(order_id, 1, 500))
    await sandbox.adjust(order_id, 500, idempotency_key=f"adjust-{order_id}-1")
    assert (await payments.capture(capture(order_id))).amount_cents == 400


async def test_an_invoice_is_adjusted_without_a_provider(payments: Payments, database: Database) -> None:
    order_id = await authorized(payments, None)
    await payments.adjust(adjust(order_id, 1, 500))
    assert (await books(database, order_id)).due_cents == 500
    assert await holds(database, order_id) == []


async def test_nothing_is_adjusted_after_the_end(payments: Payments) -> None:
    captured, voided = await paid(payments), await authorized(payments)
    await payments.void(void(voided))
    for order_id in (captured, voided):
        with pytest.raises(OrderClosed):
            await payments.adjust(adjust(order_id, 1, 100))
    with pytest.raises(Conflict):
        await payments.adjust(adjust(new_id(), 1, 100))


async def test_cash_pays_an_invoice_and_what_is_too_much_is_given_back(
    payments: Payments, database: Database
) -> None:
    order_id = await authorized(payments, None)
    expected = Receipt(method="cash", amount_cents=900, currency="USD", tendered_cents=1000, change_cents=100)
    for attempt in (1, 1, 2):
        assert await payments.capture(capture(order_id, attempt, cash(1000))) == expected
    assert await events_of(database, order_id) == ["PaymentAuthorized", "PaymentCaptured"]


@pytest.mark.parametrize(
    ("offer", "field"), [(None, "payment"), (cash(899), "payment.tendered_cents")], ids=["nothing", "too little"]
)
async def test_an_invoice_is_not_paid_by(payments: Payments, offer: object, field: str) -> None:
    order_id = await authorized(payments, None)
    with pytest.raises(InvalidInput) as error:
        await payments.capture(capture(order_id, 1, offer))  # type: ignore[arg-type]
    assert error.value.field == field
    assert (await payments.capture(capture(order_id, 2, cash(900)))).change_cents == 0


@pytest.mark.parametrize("token", ["tok_approved", "tok_timeout_once", "tok_lost_answer", "tok_slow"])
async def test_a_card_at_the_desk_is_charged_once(payments: Payments, database: Database, token: str) -> None:
    order_id = await authorized(payments, None)
    command = capture(order_id, 1, desk_card(token))
    expected = Receipt(method="desk_card", amount_cents=900, currency="USD")
    assert [await persist(lambda: payments.capture(command)) for _ in range(2)] == [expected] * 2
    assert await holds(database, order_id) == [("captured", 900)]
    assert (await books(database, order_id)).agree


async def test_a_card_that_is_declined_at_the_desk_can_be_followed_by_another(
    payments: Payments, database: Database
) -> None:
    order_id = await authorized(payments, None)
    for _ in range(2):
        command = capture(order_id, 1, desk_card("tok_insufficient_funds"))
        assert await refused(payments.capture(command)) == "insufficient_funds"
    assert (await payments.capture(capture(order_id, 2, desk_card()))).method == "desk_card"
    assert await holds(database, order_id) == [("declined", 900), ("captured", 900)]


async def test_cash_instead_of_the_card_lets_the_hold_go(payments: Payments, database: Database) -> None:
    order_id = await authorized(payments)
    assert (await payments.capture(capture(order_id, 1, cash()))).method == "cash"
    assert await holds(database, order_id) == [("voided", 900)]
    assert (await books(database, order_id)).agree


async def test_cash_for_what_the_card_has_paid_is_given_back_as_a_whole(
    payments: Payments, database: Database
) -> None:
    order_id = await authorized(payments, "tok_capture_lost_answer")
    with pytest.raises(ProviderTimeout):
        await payments.capture(capture(order_id))
    returned = BY_CARD.model_copy(update={"tendered_cents": 1000, "change_cents": 1000})
    for _ in range(2):
        assert await payments.capture(capture(order_id, 2, cash(1000))) == returned
    assert await payments.capture(capture(order_id, 1)) == BY_CARD
    assert await holds(database, order_id) == [("captured", 900)]
    assert await events_of(database, order_id) == ["PaymentAuthorized", "PaymentCaptured"]
    assert (await books(database, order_id)).agree


async def test_a_capture_whose_answer_got_lost_is_found_by_its_repeat(
    payments: Payments, database: Database
) -> None:
    order_id = await authorized(payments, "tok_capture_lost_answer")
    assert await persist(lambda: payments.capture(capture(order_id))) == BY_CARD
    assert (await books(database, order_id)).agree


async def test_a_desk_card_whose_answer_got_lost_has_paid_although_cash_is_offered_next(
    payments: Payments, database: Database
) -> None:
    order_id = await authorized(payments, None)
    with pytest.raises(ProviderTimeout):
        await payments.capture(capture(order_id, 1, desk_card("tok_lost_answer")))
    receipt = await payments.capture(capture(order_id, 2, cash(1000)))
    assert (receipt.method, receipt.change_cents) == ("desk_card", 1000)
    assert (await books(database, order_id)).agree


async def test_a_desk_card_whose_request_comes_after_the_cash_is_not_charged(
    payments: Payments, sandbox: Sandbox, database: Database
) -> None:
    order_id = await authorized(payments, None)
    with pytest.raises(ProviderTimeout):
        await payments.capture(capture(order_id, 1, desk_card("tok_timeout_once")))
    assert (await payments.capture(capture(order_id, 2, cash()))).method == "cash"
    with pytest.raises(Conflict):
        await sandbox.charge(order_id, 1, "tok_timeout_once", 900, "USD", idempotency_key=f"charge-{order_id}-1")
    assert (await books(database, order_id)).agree


async def test_captures_that_never_answer_leave_cash_as_the_way(payments: Payments, database: Database) -> None:
    order_id = await authorized(payments, "tok_capture_timeout")
    for attempt in (1, 1, 2):
        with pytest.raises(ProviderTimeout):
            await payments.capture(capture(order_id, attempt))
    assert (await payments.capture(capture(order_id, 3, cash()))).method == "cash"
    assert await holds(database, order_id) == [("voided", 900)]


async def test_a_declined_capture_leaves_the_order_payable(payments: Payments, database: Database) -> None:
    order_id = await authorized(payments, "tok_capture_declined")
    for attempt in (1, 1, 2):
        assert await refused(payments.capture(capture(order_id, attempt))) == "payment_declined"
    assert (await payments.capture(capture(order_id, 3, desk_card()))).method == "desk_card"
    assert (await books(database, order_id)).agree


async def test_a_hold_that_lapsed_must_be_paid_otherwise(payments: Payments, database: Database) -> None:
    order_id = await authorized(payments, "tok_hold_lapses")
    for attempt in (1, 1, 2):
        assert await refused(payments.capture(capture(order_id, attempt))) == "hold_lapsed"
    assert (await books(database, order_id)).hold_lapsed
    assert (await payments.capture(capture(order_id, 3, cash()))).method == "cash"
    assert await events_of(database, order_id) == ["PaymentAuthorized", "PaymentHoldLapsed", "PaymentCaptured"]


async def test_an_order_whose_hold_lapsed_is_adjusted_all_the_same(payments: Payments) -> None:
    order_id = await authorized(payments, "tok_hold_lapses")
    assert await refused(payments.capture(capture(order_id))) == "hold_lapsed"
    await payments.adjust(adjust(order_id, 1, 500))
    assert (await payments.capture(capture(order_id, 2, cash(500)))).change_cents == 0


@pytest.mark.parametrize(("token", "method"), [("tok_approved", "card"), (None, "cash")])
async def test_an_order_that_costs_nothing_asks_no_provider(
    payments: Payments, database: Database, token: str | None, method: str
) -> None:
    order_id = await authorized(payments, token, cents=0)
    for _ in range(2):
        receipt = await payments.capture(capture(order_id))
        assert (receipt.method, receipt.amount_cents) == (method, 0)
    assert await holds(database, order_id) == []


async def test_what_became_free_lets_its_hold_go(payments: Payments, database: Database) -> None:
    order_id = await authorized(payments)
    await payments.adjust(adjust(order_id, 1, 0))
    assert (await payments.capture(capture(order_id))).amount_cents == 0
    assert await holds(database, order_id) == [("voided", 0)]


async def test_a_void_closes_the_door_for_captures_and_desk_cards(payments: Payments, database: Database) -> None:
    for offer in (None, cash(), desk_card()):
        order_id = await authorized(payments)
        for _ in range(2):
            await payments.void(void(order_id))
        with pytest.raises(OrderClosed):
            await payments.capture(capture(order_id, 1, offer))
        assert await holds(database, order_id) == [("voided", 900)]


async def test_what_was_paid_is_not_voided(payments: Payments, database: Database) -> None:
    order_id = await paid(payments)
    for _ in range(2):
        with pytest.raises(Conflict):
            await payments.void(void(order_id))
    assert (await payments.view(order_id)).status == "captured"  # type: ignore[union-attr]
    assert await payments.capture(capture(order_id, 2)) == BY_CARD


async def test_a_void_that_finds_a_lost_capture_records_it_and_is_refused(
    payments: Payments, database: Database
) -> None:
    order_id = await authorized(payments, "tok_capture_lost_answer")
    with pytest.raises(ProviderTimeout):
        await payments.capture(capture(order_id))
    with pytest.raises(Conflict):
        await payments.void(void(order_id))
    assert await events_of(database, order_id) == ["PaymentAuthorized", "PaymentCaptured"]
    assert (await books(database, order_id)).agree


@pytest.mark.parametrize("offer", [None, desk_card("tok_lost_answer"), cash()], ids=["hold", "desk card", "cash"])
async def test_an_undone_order_gets_back_what_was_taken_all_the_same(
    payments: Payments, database: Database, offer: object
) -> None:
    order_id = await authorized(payments, "tok_capture_lost_answer")
    try:
        await payments.capture(capture(order_id, 1, offer))  # type: ignore[arg-type]
    except ProviderTimeout:
        assert offer != cash()
    for _ in range(2):
        await payments.void(void(order_id, refund_captured=True))
    told = ["PaymentAuthorized", "PaymentCaptured", "PaymentRefunded", "PaymentVoided"]
    assert await events_of(database, order_id) == told
    found = await books(database, order_id)
    assert (found.status, found.captured_cents, found.refunded_cents) == ("voided", 900, 900)
    assert found.agree


async def test_ten_captures_at_once_take_the_money_once(payments: Payments, database: Database) -> None:
    order_id = await authorized(payments)
    receipts = await asyncio.gather(*(payments.capture(capture(order_id)) for _ in range(10)))
    assert receipts == [BY_CARD] * 10
    assert await events_of(database, order_id) == ["PaymentAuthorized", "PaymentCaptured"]
    assert (await books(database, order_id)).agree


async def test_of_two_attempts_at_once_one_pays(payments: Payments, database: Database) -> None:
    for _ in range(8):
        order_id = await authorized(payments)
        outcomes = await asyncio.gather(
            payments.capture(capture(order_id, 1, desk_card())),
            payments.capture(capture(order_id, 2, cash())),
            return_exceptions=True,
        )
        for outcome in outcomes:
            assert isinstance(outcome, Receipt | Conflict), outcome
        await payments.capture(capture(order_id, 3, cash()))
        assert (await events_of(database, order_id)).count("PaymentCaptured") == 1
        assert (await books(database, order_id)).agree


async def test_of_a_capture_and_a_void_at_once_one_happens(payments: Payments, database: Database) -> None:
    for offer in (None, desk_card(), cash()) * 4:
        order_id = await authorized(payments)
        receipt, undone = await asyncio.gather(
            payments.capture(capture(order_id, 1, offer)), payments.void(void(order_id)), return_exceptions=True
        )
        found = await books(database, order_id)
        assert found.agree
        assert found.held == 0
        if undone is None:
            assert (found.status, found.captured_cents) == ("voided", 0)
            assert not isinstance(receipt, Receipt)
        else:
            assert isinstance(undone, Conflict)
            assert found.status == "captured"


class Overtaken:
    """The sandbox, but before a call reaches it, and before its answer comes, something else happens."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self.before: Callable[[], Awaitable[object]] | None = None
        self.after: Callable[[], Awaitable[object]] | None = None

    def __getattr__(self, name: str) -> Callable[..., Awaitable[object]]:
        async def call(*arguments: object, **options: object) -> object:
            before, self.before = self.before, None
            if before is not None:
                await before()
            answer = await getattr(self._sandbox, name)(*arguments, **options)
            after, self.after = self.after, None
            if after is not None:
                await after()
            return answer

        return call


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("slow", [None, desk_card(), cash()], ids=["hold", "desk card", "cash"])
@pytest.mark.parametrize("fast", [None, desk_card(), cash()], ids=["then hold", "then desk card", "then cash"])
async def test_an_attempt_that_was_given_up_and_goes_on_takes_nothing_more(
    payments: Payments, sandbox: Sandbox, database: Database, when: str, slow: object, fast: object
) -> None:
    provider: Any = Overtaken(sandbox)
    order_id = await authorized(payments)

    async def next_attempt() -> None:
        try:
            await payments.capture(capture(order_id, 2, fast))  # type: ignore[arg-type]
        except Refused:
            assert slow
            assert fast is None

    setattr(provider, when, next_attempt)
    with suppress(Conflict, Refused):
        await Payments(database, provider).capture(capture(order_id, 1, slow))  # type: ignore[arg-type]
    await payments.capture(capture(order_id, 3, cash()))
    assert (await events_of(database, order_id)).count("PaymentCaptured") == 1
    assert (await books(database, order_id)).agree


async def test_cash_of_an_attempt_that_was_given_up_is_not_booked_beside_a_card_that_pays(
    payments: Payments, sandbox: Sandbox, database: Database
) -> None:
    order_id = await authorized(payments)
    slow: Any = Overtaken(sandbox)
    charged, booked = asyncio.Event(), asyncio.Event()

    class Charging(Sandbox):
        """Its answer to a charge comes when the cash was booked, or refused."""

        async def charge(self, *arguments: Any, **options: Any) -> Taken:
            taken = await super().charge(*arguments, **options)
            charged.set()
            await booked.wait()
            return taken

    async def next_attempt() -> None:
        fast = Payments(database, Charging(database)).capture(capture(order_id, 2, desk_card()))
        attempts.append(asyncio.create_task(fast))
        await charged.wait()

    attempts: list[asyncio.Task[Receipt]] = []
    slow.after = next_attempt
    with pytest.raises(Conflict):
        await Payments(database, slow).capture(capture(order_id, 1, cash()))
    booked.set()
    assert (await attempts[0]).method == "desk_card"
    assert (await books(database, order_id)).agree


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("offer", [None, desk_card(), cash()], ids=["hold", "desk card", "cash"])
async def test_a_void_in_the_middle_of_a_capture_leaves_nothing_taken(
    payments: Payments, sandbox: Sandbox, database: Database, when: str, offer: object
) -> None:
    provider: Any = Overtaken(sandbox)
    order_id = await authorized(payments)
    setattr(provider, when, lambda: payments.void(void(order_id, refund_captured=True)))
    with pytest.raises(OrderClosed):
        await Payments(database, provider).capture(capture(order_id, 1, offer))  # type: ignore[arg-type]
    found = await books(database, order_id)
    assert (found.status, found.held, found.charges) == ("voided", 0, 0)
    assert found.captured_cents == found.refunded_cents
    assert found.agree


async def test_a_crash_between_the_answer_and_our_record_is_healed_by_the_repeat(
    payments: Payments, sandbox: Sandbox, database: Database
) -> None:
    for offer in (None, desk_card()):
        order_id = await authorized(payments)
        provider: Any = Overtaken(sandbox)

        async def crash() -> None:
            raise RuntimeError("killed")

        async def then_crash(provider: Any = provider) -> None:
            provider.after = crash

        # The desk card lets the hold go first: that call is not the one to crash after.
        provider.after = then_crash if offer else crash
        with pytest.raises(RuntimeError):
            await Payments(database, provider).capture(capture(order_id, 1, offer))
        assert (await payments.view(order_id)).status == "authorized"  # type: ignore[union-attr]
        receipt = await payments.capture(capture(order_id, 1, offer))
        assert receipt.method == ("desk_card" if offer else "card")
        assert (await books(database, order_id)).agree


async def test_the_sandbox_keeps_the_keys_of_captures_and_adjustments(sandbox: Sandbox) -> None:
    order_id = new_id()
    await sandbox.authorize(order_id, "tok_approved", 500, "USD", idempotency_key=f"a-{order_id}")
    await sandbox.adjust(order_id, 400, idempotency_key=f"b-{order_id}")
    with pytest.raises(IdempotencyKeyReused):
        await sandbox.adjust(order_id, 300, idempotency_key=f"b-{order_id}")
    with pytest.raises(IdempotencyKeyReused):
        await sandbox.capture(order_id, 400, idempotency_key=f"b-{order_id}")
    taken: Taken = await sandbox.capture(order_id, 400, idempotency_key=f"c-{order_id}")
    assert await sandbox.capture(order_id, 400, idempotency_key=f"c-{order_id}") == taken
    assert await sandbox.void(order_id, idempotency_key=f"d-{order_id}") == taken


async def test_a_capture_of_what_was_never_authorized_is_refused(payments: Payments) -> None:
    unknown: UUID = new_id()
    with pytest.raises(Conflict):
        await payments.capture(capture(unknown, 1, cash()))
    assert await payments.view(unknown) is None

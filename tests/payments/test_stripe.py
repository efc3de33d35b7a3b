"""Stripe, over HTTP: what localstripe can do by it, the rest by recorded shapes."""

import asyncio
from collections.abc import Awaitable
from typing import Any
from uuid import UUID

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from domains.payments.messages import CardPayment, Receipt
from domains.payments.provider import Taken
from domains.payments.service import Payments
from domains.payments.stripe import Stripe
from kernel.database import Database
from kernel.errors import (
    Conflict,
    IdempotencyKeyReused,
    MallError,
    Misconfigured,
    OrderClosed,
    ProviderTimeout,
    Refused,
    Unavailable,
)
from kernel.ids import new_id
from kernel.wording import format_money
from mallbots.payment_provider import payment_provider
from mallbots.settings import Settings
from tests.payments.books import adjust, authorized, capture, cash, desk_card, events_of, refund, void
from tests.payments.recorded import RecordedStripe, error, intent, refund_list, refund_shown
from tests.samples import authorize
from tests.waiting import eventually

VISA = "pm_card_visa"
CANNOT_CHARGE = "4000000000000341"
NEEDS_CUSTOMER = "4000002500003155"
BY_CARD = Receipt(method="card", amount_cents=900, currency="USD")


async def intents_of(database: Database, stripe: Stripe, order_id: UUID) -> list[str]:
    """What each PaymentIntent of an order is at Stripe."""
    query = text(
        "SELECT intent_id FROM payments.stripe_intents WHERE order_id = :order_id ORDER BY attempt NULLS FIRST"
    )
    async with database.transaction() as connection:
        found = (await connection.execute(query, {"order_id": order_id})).scalars().all()
    return [(await stripe._read(intent_id)).status for intent_id in found]


async def card(stripe: Stripe, number: str) -> str:
    made = await stripe._client.v1.payment_methods.create_async(
        {"type": "card", "card": {"number": number, "exp_month": 12, "exp_year": 2030, "cvc": "123"}}
    )
    return made.id


async def refusal_of(code: str, payments: Payments, token: str) -> UUID:
    command = authorize(token)
    for _ in range(2):
        with pytest.raises(Refused) as refused:
            await payments.authorize(command)
        assert refused.value.refusal.code == code
    return command.order_id


# What localstripe can do


async def test_a_card_is_held_and_captured_once(by_stripe: Payments, stripe: Stripe, database: Database) -> None:
    order_id = await authorized(by_stripe, VISA)
    assert await intents_of(database, stripe, order_id) == ["requires_capture"]
    assert [await by_stripe.capture(capture(order_id, attempt)) for attempt in (1, 1, 2)] == [BY_CARD] * 3
    assert await intents_of(database, stripe, order_id) == ["succeeded"]
    view = await by_stripe.view(order_id)
    assert view is not None
    assert view.reference is not None
    assert (await stripe._read(view.reference)).metadata.order_id == str(order_id)


async def test_the_rest_of_a_hold_is_let_go(by_stripe: Payments, stripe: Stripe, database: Database) -> None:
    order_id = await authorized(by_stripe, VISA)
    await by_stripe.adjust(adjust(order_id, 1, 500))
    assert (await by_stripe.capture(capture(order_id))).amount_cents == 500
    assert await intents_of(database, stripe, order_id) == ["succeeded"]


async def test_a_card_that_can_not_be_charged_is_refused(
    by_stripe: Payments, stripe: Stripe, database: Database
) -> None:
    order_id = await refusal_of("payment_declined", by_stripe, await card(stripe, CANNOT_CHARGE))
    assert await intents_of(database, stripe, order_id) == ["requires_payment_method"]


async def test_a_card_whose_bank_asks_the_customer_is_refused(by_stripe: Payments, stripe: Stripe) -> None:
    await refusal_of("payment_declined", by_stripe, await card(stripe, NEEDS_CUSTOMER))


async def test_a_card_that_stripe_does_not_know_is_refused(by_stripe: Payments) -> None:
    await refusal_of("payment_declined", by_stripe, "pm_of_nobody")


async def test_a_voided_hold_can_not_be_captured(by_stripe: Payments, stripe: Stripe, database: Database) -> None:
    order_id = await authorized(by_stripe, VISA)
    for _ in range(2):
        await by_stripe.void(void(order_id))
    assert await intents_of(database, stripe, order_id) == ["canceled"]
    with pytest.raises(Refused) as refused:
        await stripe.capture(order_id, 900, idempotency_key="late")
    assert refused.value.refusal.code == "hold_lapsed"
    with pytest.raises(OrderClosed):
        await by_stripe.capture(capture(order_id))


async def test_a_void_finds_a_capture_that_we_did_not_hear_of(
    by_stripe: Payments, stripe: Stripe, database: Database
) -> None:
    order_id = await authorized(by_stripe, VISA)
    await stripe.capture(order_id, 900, idempotency_key=f"capture-{order_id}-1")
    receipt = await by_stripe.capture(capture(order_id, 2, cash(1000)))
    assert (receipt.method, receipt.change_cents) == ("card", 1000)
    await by_stripe.void(void(order_id, refund_captured=True))
    told = ["PaymentAuthorized", "PaymentCaptured", "PaymentRefunded", "PaymentVoided"]
    assert await events_of(database, order_id) == told


async def test_a_card_at_the_desk_pays_an_invoice_once(
    by_stripe: Payments, stripe: Stripe, database: Database
) -> None:
    order_id = await authorized(by_stripe, None)
    receipts = [await by_stripe.capture(capture(order_id, 1, desk_card(VISA))) for _ in range(2)]
    assert [receipt.method for receipt in receipts] == ["desk_card"] * 2
    assert await intents_of(database, stripe, order_id) == ["succeeded"]


async def test_a_desk_card_is_called_off_before_cash_is_taken(
    by_stripe: Payments, stripe: Stripe, database: Database
) -> None:
    order_id = await authorized(by_stripe, None)
    # The attempt got as far as writing its intent down.
    await stripe._intent(order_id, 1, VISA, 900, "USD", f"charge-{order_id}-1")
    assert (await by_stripe.capture(capture(order_id, 2, cash()))).method == "cash"
    assert await intents_of(database, stripe, order_id) == ["canceled"]
    with pytest.raises(Conflict):
        await stripe.charge(order_id, 1, VISA, 900, "USD", idempotency_key=f"charge-{order_id}-1")
    # And one that did not get as far is not charged either.
    with pytest.raises(Conflict):
        await stripe.charge(order_id, 1, VISA, 900, "USD", idempotency_key=f"another-{order_id}")
    assert await intents_of(database, stripe, order_id) == ["canceled"]


async def test_a_desk_card_that_paid_in_an_attempt_we_did_not_hear_of_is_found(
    by_stripe: Payments, stripe: Stripe
) -> None:
    order_id = await authorized(by_stripe, None)
    await stripe.charge(order_id, 1, VISA, 900, "USD", idempotency_key=f"charge-{order_id}-1")
    receipt = await by_stripe.capture(capture(order_id, 2, cash(1000)))
    assert (receipt.method, receipt.change_cents) == ("desk_card", 1000)


async def test_each_refund_is_asked_for_once(by_stripe: Payments, stripe: Stripe) -> None:
    order_id = await authorized(by_stripe, VISA)
    await by_stripe.capture(capture(order_id))
    reference = (await by_stripe.view(order_id)).reference  # type: ignore[union-attr]
    assert reference is not None
    command = refund(order_id, 300)
    key = f"refund-{command.refund_id}"
    lost = await stripe.refund(order_id, command.refund_id, reference, 300, idempotency_key=key)
    for _ in range(2):
        await by_stripe.refund(command)
    await by_stripe.refund(refund(order_id, 600))
    with pytest.raises(Refused):
        await by_stripe.refund(refund(order_id, 1))
    refunds = (await stripe._refunds.list_async({"payment_intent": reference})).data
    assert sorted(one.amount for one in refunds) == [300, 600]
    assert lost in {one.id for one in refunds}


async def test_captures_at_once_take_the_money_once(
    by_stripe: Payments, stripe: Stripe, database: Database
) -> None:
    order_id = await authorized(by_stripe, VISA)
    receipts = await asyncio.gather(*(by_stripe.capture(capture(order_id)) for _ in range(4)))
    assert receipts == [BY_CARD] * 4
    assert await events_of(database, order_id) == ["PaymentAuthorized", "PaymentCaptured"]


async def test_a_key_is_not_used_for_another_request(stripe: Stripe) -> None:
    order_id, key = new_id(), f"key-{new_id()}"
    first = await stripe.authorize(order_id, VISA, 500, "USD", idempotency_key=key)
    assert await stripe.authorize(order_id, VISA, 500, "USD", idempotency_key=key) == first
    with pytest.raises(IdempotencyKeyReused):
        await stripe.authorize(order_id, VISA, 501, "USD", idempotency_key=key)


async def test_a_stripe_that_is_away_times_out(database: Database) -> None:
    away = Stripe(database, "sk_test_away", timeout=0.5, api_url="http://127.0.0.1:1/")
    with pytest.raises(ProviderTimeout):
        await away.authorize(new_id(), VISA, 500, "USD", idempotency_key=f"key-{new_id()}")
    await away.close()


# What is recorded


@pytest.fixture
def intent_id() -> str:
    return f"pi_{new_id().hex}"


async def held(recorded: RecordedStripe, stripe: Stripe, intent_id: str) -> UUID:
    """An order with a hold; the requests for it are forgotten."""
    order_id = new_id()
    recorded.answer(200, intent("requires_confirmation", intent_id))
    recorded.answer(200, intent("requires_capture", intent_id))
    await stripe.authorize(order_id, VISA, 900, "USD", idempotency_key=f"authorize-{order_id}")
    create, confirm = recorded.calls
    assert create.form["capture_method"] == "manual"
    assert create.form["metadata[order_id]"] == str(order_id)
    assert create.form["allowed_payment_method_types[0]"] == "card"
    assert (create.key, confirm.key) == (f"authorize-{order_id}", f"confirm-authorize-{order_id}")
    recorded.calls.clear()
    return order_id


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (402, error("card_error", code="card_declined", decline_code="do_not_honor"), "payment_declined"),
        (402, error("card_error", code="card_declined", decline_code="insufficient_funds"), "insufficient_funds"),
        (429, error("invalid_request_error", code="rate_limit"), Unavailable),
        (409, error("invalid_request_error", code="lock_timeout"), Unavailable),
        (409, error("idempotency_error", code="idempotency_key_in_use"), Unavailable),
        (400, error("idempotency_error"), IdempotencyKeyReused),
        (401, error("invalid_request_error"), Misconfigured),
        (403, error("invalid_request_error"), Misconfigured),
        (500, error("api_error"), ProviderTimeout),
        (503, {}, ProviderTimeout),
        (400, error("invalid_request_error", param="currency"), Misconfigured),
        (400, error("invalid_request_error", param="payment_method"), "payment_declined"),
        (400, error("invalid_request_error", param="amount"), "payment_declined"),
        (400, error("invalid_request_error", code="amount_too_small"), "payment_declined"),
        (400, error("invalid_request_error", code="amount_too_large"), "payment_declined"),
    ],
    ids=str,
)
async def test_an_error_of_stripe_becomes_ours(
    recorded: RecordedStripe,
    recorded_stripe: Stripe,
    status: int,
    body: dict[str, Any],
    expected: str | type[MallError],
) -> None:
    recorded.answer(status, body)
    asking = recorded_stripe.authorize(new_id(), VISA, 900, "USD", idempotency_key=f"key-{new_id()}")
    with pytest.raises(MallError) as raised:
        await asking
    if isinstance(raised.value, Refused):
        assert raised.value.refusal.code == expected
    else:
        assert type(raised.value) is expected


async def test_a_stripe_that_never_answers_times_out_and_the_repeat_finds_the_hold(
    recorded: RecordedStripe, recorded_stripe: Stripe, intent_id: str
) -> None:
    order_id, key = new_id(), f"key-{new_id()}"
    recorded.answer(200, intent("requires_confirmation", intent_id))
    recorded.be_silent()
    with pytest.raises(ProviderTimeout):
        await recorded_stripe.authorize(order_id, VISA, 900, "USD", idempotency_key=key)
    recorded.answer(200, intent("requires_capture", intent_id))
    assert await recorded_stripe.authorize(order_id, VISA, 900, "USD", idempotency_key=key) == intent_id
    assert [call.method for call in recorded.calls] == ["POST", "POST", "GET"]


async def test_a_declined_card_is_refused_again_from_what_stripe_kept(
    recorded: RecordedStripe, recorded_stripe: Stripe, intent_id: str
) -> None:
    order_id, key = new_id(), f"key-{new_id()}"
    no = {"code": "card_declined", "decline_code": "insufficient_funds", "message": "Not enough"}
    recorded.answer(200, intent("requires_confirmation", intent_id))
    recorded.answer(402, error("card_error", **no))
    recorded.answer(200, intent("requires_payment_method", intent_id, last_payment_error=no))
    for _ in range(2):
        with pytest.raises(Refused) as refused:
            await recorded_stripe.authorize(order_id, VISA, 900, "USD", idempotency_key=key)
        assert refused.value.refusal.code == "insufficient_funds"


async def test_what_stripe_repeats_of_its_own_failure_is_asked_anew(
    recorded: RecordedStripe, recorded_stripe: Stripe, intent_id: str
) -> None:
    order_id = await held(recorded, recorded_stripe, intent_id)
    recorded.answer(200, intent("requires_capture", intent_id))
    recorded.answer(500, error("api_error"), idempotent_replayed="true")
    recorded.answer(200, intent("succeeded", intent_id))
    taken = await recorded_stripe.capture(order_id, 900, idempotency_key="capture")
    assert taken == Taken("card", 900, intent_id)
    keys = [call.key for call in recorded.calls]
    assert keys[1] == "capture"
    assert keys[2] is not None
    assert keys[2].startswith("capture-")


async def test_a_card_that_can_not_be_used_again_is_refused(
    recorded: RecordedStripe, recorded_stripe: Stripe, database: Database, intent_id: str
) -> None:
    command = authorize(VISA)
    recorded.answer(200, intent("requires_confirmation", intent_id))
    recorded.answer(400, error("invalid_request_error", param="payment_method"))
    recorded.answer(200, intent("requires_confirmation", intent_id))
    with pytest.raises(Refused) as refused:
        await Payments(database, recorded_stripe).authorize(command)
    assert refused.value.refusal.code == "payment_declined"
    assert await events_of(database, command.order_id) == ["PaymentDeclined"]


async def times_out(asking: Awaitable[object]) -> None:
    with pytest.raises(ProviderTimeout):
        await asking


def fail(recorded: RecordedStripe, *, repeats: int = 0) -> None:
    """A failure of Stripe, which it repeats first under so many keys."""
    for _ in range(repeats):
        recorded.answer(500, error("api_error"), idempotent_replayed="true")
    recorded.answer(500, error("api_error"))


async def test_a_failure_that_stripe_repeats_does_not_keep_a_card_from_being_held(
    recorded: RecordedStripe, recorded_stripe: Stripe, intent_id: str
) -> None:
    order_id, key = new_id(), f"key-{new_id()}"

    async def ask() -> str:
        return await recorded_stripe.authorize(order_id, VISA, 900, "USD", idempotency_key=key)

    fail(recorded)
    await times_out(ask())
    fail(recorded, repeats=1)
    await times_out(ask())
    for _ in range(2):
        recorded.answer(500, error("api_error"), idempotent_replayed="true")
    recorded.answer(200, intent("requires_confirmation", intent_id))
    recorded.answer(200, intent("requires_capture", intent_id))
    assert await ask() == intent_id
    keys = [key, key, f"{key}-1", key, f"{key}-1", f"{key}-2", f"confirm-{key}"]
    assert [call.key for call in recorded.calls] == keys


async def test_a_failure_that_stripe_repeats_does_not_keep_a_hold_from_being_raised(
    recorded: RecordedStripe, recorded_stripe: Stripe, intent_id: str
) -> None:
    order_id = await held(recorded, recorded_stripe, intent_id)
    recorded.answer(200, intent("requires_capture", intent_id))
    recorded.answer(500, error("api_error"), idempotent_replayed="true")
    recorded.answer(200, intent("requires_capture", intent_id, amount=1000))
    await recorded_stripe.adjust(order_id, 1000, idempotency_key="adjust")
    assert [call.key for call in recorded.calls[1:]] == ["adjust", "adjust-1"]


@pytest.mark.parametrize(
    ("status", "body"),
    [(500, error("api_error")), (400, error("invalid_request_error", code="balance_insufficient"))],
    ids=["failure", "no balance"],
)
async def test_what_stripe_repeats_does_not_keep_a_refund_from_being_made(
    recorded: RecordedStripe, recorded_stripe: Stripe, intent_id: str, status: int, body: dict[str, Any]
) -> None:
    order_id, refund_id = new_id(), new_id()

    async def ask() -> str:
        return await recorded_stripe.refund(order_id, refund_id, intent_id, 300, idempotency_key="refund")

    recorded.answer(200, refund_list())
    recorded.answer(status, body)
    with pytest.raises((ProviderTimeout, Misconfigured)):
        await ask()
    recorded.answer(200, refund_list())
    recorded.answer(status, body, idempotent_replayed="true")
    recorded.answer(200, refund_shown("re_1", 300, refund_id=str(refund_id)))
    assert await ask() == "re_1"
    assert [call.key for call in recorded.calls if call.method == "POST"] == ["refund", "refund", "refund-1"]


async def test_keys_come_to_an_end(recorded: RecordedStripe, recorded_stripe: Stripe) -> None:
    fail(recorded, repeats=40)
    await times_out(recorded_stripe.authorize(new_id(), VISA, 900, "USD", idempotency_key=f"key-{new_id()}"))
    assert len({call.key for call in recorded.calls}) == len(recorded.calls) == 21


async def test_a_card_is_not_used_for_a_payment_that_was_voided_meanwhile(
    recorded: RecordedStripe, recorded_stripe: Stripe, database: Database, intent_id: str
) -> None:
    payments, command = Payments(database, recorded_stripe), authorize(VISA)
    recorded.be_silent()
    asking = asyncio.create_task(payments.authorize(command))
    await eventually(lambda: bool(recorded.calls))
    await payments.void(void(command.order_id))
    with pytest.raises(ProviderTimeout):
        await asking
    # The attempt that goes on where the void did not see it: before anything was written down.
    recorded.answer(200, intent("requires_confirmation", intent_id))
    with pytest.raises(OrderClosed):
        await recorded_stripe.authorize(
            command.order_id, VISA, 900, "USD", idempotency_key=f"authorize-{command.order_id}"
        )
    assert [call.path for call in recorded.calls] == ["/v1/payment_intents"] * 2


@pytest.mark.parametrize("currency", ["UGX", "MGA", "ISK", "BHD", "JOD", "KWD", "OMR", "TND"])
def test_a_currency_that_stripe_counts_in_units_of_its_own_is_not_supported(
    database: Database, currency: str
) -> None:
    settings = Settings(payment_provider="stripe", stripe_api_key=SecretStr("sk_test_x"), currency=currency)
    with pytest.raises(Misconfigured, match=f"Stripe counts {currency} in units of its own"):
        payment_provider(settings, lambda _: database)


@pytest.mark.parametrize(
    ("currency", "shown"), [("USD", "12.34"), ("XOF", "1234"), ("TND", "1.234"), ("UYW", "0.1234")]
)
def test_an_amount_has_as_many_digits_after_the_point_as_its_currency(currency: str, shown: str) -> None:
    assert format_money(1234, currency) == f"{shown} {currency}"


async def test_a_part_is_captured_and_stripe_says_how_much(
    recorded: RecordedStripe, recorded_stripe: Stripe, intent_id: str
) -> None:
    order_id = await held(recorded, recorded_stripe, intent_id)
    recorded.answer(200, intent("requires_capture", intent_id))
    recorded.answer(200, intent("succeeded", intent_id, amount_received=500))
    taken = await recorded_stripe.capture(order_id, 500, idempotency_key="capture")
    assert taken.amount_cents == 500
    assert recorded.calls[1].form == {"amount_to_capture": "500"}
    recorded.answer(200, intent("succeeded", intent_id, amount_received=500))
    assert await recorded_stripe.void(order_id, idempotency_key="void") == taken


async def test_a_capture_that_was_overtaken_takes_what_the_other_took(
    recorded: RecordedStripe, recorded_stripe: Stripe, intent_id: str
) -> None:
    order_id = await held(recorded, recorded_stripe, intent_id)
    unexpected = error("invalid_request_error", code="payment_intent_unexpected_state")
    for status in ("succeeded", "canceled"):
        recorded.answer(200, intent("requires_capture", intent_id))
        recorded.answer(400, unexpected)
        recorded.answer(200, intent(status, intent_id))
        if status == "succeeded":
            assert (await recorded_stripe.capture(order_id, 900, idempotency_key="capture")).amount_cents == 900
            continue
        with pytest.raises(Refused) as refused:
            await recorded_stripe.capture(order_id, 900, idempotency_key="capture")
        assert refused.value.refusal.code == "hold_lapsed"


async def test_a_capture_that_the_bank_declines_is_refused(
    recorded: RecordedStripe, recorded_stripe: Stripe, intent_id: str
) -> None:
    order_id = await held(recorded, recorded_stripe, intent_id)
    recorded.answer(200, intent("requires_capture", intent_id))
    recorded.answer(402, error("card_error", code="card_declined"))
    with pytest.raises(Refused) as refused:
        await recorded_stripe.capture(order_id, 900, idempotency_key="capture")
    assert refused.value.refusal.code == "payment_declined"


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (402, error("card_error", code="card_declined")),
        (400, error("invalid_request_error", code="not_supported")),
    ],
    ids=["declined", "not supported"],
)
async def test_a_hold_that_can_not_be_raised_is_refused(
    recorded: RecordedStripe, recorded_stripe: Stripe, intent_id: str, status: int, body: dict[str, Any]
) -> None:
    order_id = await held(recorded, recorded_stripe, intent_id)
    recorded.answer(200, intent("requires_capture", intent_id))
    recorded.answer(status, body)
    with pytest.raises(Refused) as refused:
        await recorded_stripe.adjust(order_id, 1000, idempotency_key="adjust")
    assert refused.value.refusal.code == "payment_declined"


async def test_a_hold_is_raised_once_and_lowered_without_a_request(
    recorded: RecordedStripe, recorded_stripe: Stripe, intent_id: str
) -> None:
    order_id = await held(recorded, recorded_stripe, intent_id)
    recorded.answer(200, intent("requires_capture", intent_id))
    recorded.answer(200, intent("requires_capture", intent_id, amount=1000))
    await recorded_stripe.adjust(order_id, 1000, idempotency_key="adjust")
    for cents in (1000, 400):
        recorded.answer(200, intent("requires_capture", intent_id, amount=1000))
        await recorded_stripe.adjust(order_id, cents, idempotency_key="adjust")
    assert [call.form for call in recorded.calls] == [{}, {"amount": "1000"}, {}, {}]
    recorded.answer(200, intent("canceled", intent_id, cancellation_reason="expired"))
    with pytest.raises(Refused) as refused:
        await recorded_stripe.adjust(order_id, 400, idempotency_key="adjust")
    assert refused.value.refusal.code == "hold_lapsed"


async def test_a_refund_of_which_the_answer_got_lost_is_found_by_its_id(
    recorded: RecordedStripe, recorded_stripe: Stripe, intent_id: str
) -> None:
    order_id, refund_id = new_id(), new_id()

    async def ask() -> str:
        return await recorded_stripe.refund(order_id, refund_id, intent_id, 300, idempotency_key="refund")

    recorded.answer(200, refund_list())
    recorded.be_silent()
    with pytest.raises(ProviderTimeout):
        await ask()
    assert recorded.calls[1].form["metadata[refund_id]"] == str(refund_id)
    assert recorded.calls[1].key == "refund"
    recorded.answer(200, refund_list(refund_shown("re_1", 300, refund_id=str(refund_id))))
    assert await ask() == "re_1"
    recorded.answer(200, refund_list(refund_shown("re_1", 300, "failed", refund_id=str(refund_id))))
    with pytest.raises(Refused):
        await ask()


async def test_more_than_stripe_has_is_not_refundable(
    recorded: RecordedStripe, recorded_stripe: Stripe, intent_id: str
) -> None:
    for body in (
        error("invalid_request_error", code="charge_already_refunded"),
        error("invalid_request_error", param="amount"),
    ):
        recorded.answer(200, refund_list(refund_shown("re_1", 300)))
        recorded.answer(400, body)
        with pytest.raises(Refused) as refused:
            await recorded_stripe.refund(new_id(), new_id(), intent_id, 300, idempotency_key="refund")
        assert refused.value.refusal.code == "not_refundable"


async def test_the_key_is_in_no_error_and_the_token_is_kept_nowhere(
    recorded: RecordedStripe, recorded_stripe: Stripe, database: Database, intent_id: str
) -> None:
    assert CardPayment(token=VISA).token == VISA
    order_id = await held(recorded, recorded_stripe, intent_id)
    query = text("SELECT to_jsonb(stripe_intents)::text FROM payments.stripe_intents WHERE order_id = :order_id")
    async with database.transaction() as connection:
        kept = (await connection.execute(query, {"order_id": order_id})).scalar_one()
    assert VISA not in kept
    recorded.answer(401, error("invalid_request_error", "Invalid API Key provided: sk_test_****bots"))
    with pytest.raises(Misconfigured) as raised:
        await recorded_stripe.void(order_id, idempotency_key="void")
    assert "sk_test_mallbots" not in raised.value.message

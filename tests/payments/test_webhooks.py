"""What Stripe tells by its webhook: late, twice, in any order, or before its answer."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import httpx
import pytest
import stripe as stripe_library
import uvicorn
from fastapi import FastAPI
from pydantic import SecretStr
from sqlalchemy import text

from api.problems import install_problems
from api.webhooks.stripe import router
from domains.payments.messages import RefundPayment
from domains.payments.sandbox import Sandbox
from domains.payments.service import Payments
from kernel.database import Database
from kernel.errors import ProviderTimeout, Refused
from kernel.ids import new_id
from tests.payments.books import authorized, books, capture, cash, desk_card, events_of, paid, refund, void
from tests.payments.conftest import API_KEY, free_port
from tests.samples import authorize
from tests.waiting import eventually

SECRET = "whsec_" + "s" * 32


def application(payments: Payments, secret: str | None = SECRET) -> FastAPI:
    app = FastAPI()
    app.state.services = SimpleNamespace(
        payments=payments, stripe_webhook_secret=SecretStr(secret) if secret else None
    )
    install_problems(app)
    app.include_router(router)
    return app


@pytest.fixture
async def webhook(payments: Payments) -> AsyncIterator[httpx.AsyncClient]:
    """Where Stripe posts to. The payments are the sandbox's: what it is told of them is ours to say."""
    async with at(application(payments)) as client:
        yield client


def at(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://mall")


def event(kind: str, order_id: UUID, event_id: str | None = None, **subject: Any) -> dict[str, Any]:
    metadata = {"order_id": str(order_id), **subject.pop("metadata", {})}
    return {
        "id": event_id or f"evt_{new_id().hex}",
        "object": "event",
        "type": kind,
        "data": {"object": {"metadata": metadata, **subject}},
    }


async def post(
    webhook: httpx.AsyncClient, told: dict[str, Any] | str, *, secret: str = SECRET, age: int = 0
) -> int:
    body = told if isinstance(told, str) else json.dumps(told)
    signature = stripe_library.WebhookSignature.generate_signature_header(body, secret, int(time.time()) - age)
    answer = await webhook.post("/v1/webhooks/stripe", content=body, headers={"Stripe-Signature": signature})
    return answer.status_code


async def reference_of(payments: Payments, order_id: UUID) -> str:
    view = await payments.view(order_id)
    assert view is not None
    assert view.reference is not None
    return view.reference


async def test_what_stripe_did_not_sign_is_not_listened_to(
    webhook: httpx.AsyncClient, payments: Payments, database: Database
) -> None:
    order_id = await authorized(payments)
    told = event(
        "payment_intent.canceled",
        order_id,
        id=await reference_of(payments, order_id),
        cancellation_reason="expired",
    )
    assert await post(webhook, told, secret="whsec_another") == 401
    assert await post(webhook, told, age=600) == 401
    body = json.dumps(told)
    for headers in ({}, {"Stripe-Signature": "nonsense"}, {"Stripe-Signature": b"t=1,v1=\xe9"}):
        answer = await webhook.post("/v1/webhooks/stripe", content=body, headers=headers)  # type: ignore[arg-type]
        assert answer.status_code == 401
        assert answer.json()["code"] == "unauthenticated"
    assert await events_of(database, order_id) == ["PaymentAuthorized"]


async def test_without_a_secret_there_is_no_webhook(payments: Payments) -> None:
    async with at(application(payments, None)) as client:
        assert await post(client, "{}") == 404


@pytest.mark.parametrize("body", ["no json", "[]", "{}", '{"id": "evt_1", "type": "x", "data": {"object": 1}}'])
async def test_what_is_no_event_is_refused(webhook: httpx.AsyncClient, body: str) -> None:
    assert await post(webhook, body) == 422


async def test_what_does_not_matter_is_accepted_and_ignored(
    webhook: httpx.AsyncClient, payments: Payments, database: Database
) -> None:
    order_id = await authorized(payments)
    assert await post(webhook, event("payment_intent.created", order_id, id="pi_1")) == 204
    for metadata in ({}, None, {"order_id": "of another shop"}):
        subject = {"id": "pi_1", "amount": 1, "metadata": metadata}
        foreign = {"id": "evt_1", "type": "payment_intent.succeeded", "data": {"object": subject}}
        assert await post(webhook, foreign) == 204
    assert await events_of(database, order_id) == ["PaymentAuthorized"]


async def test_a_hold_that_stripe_let_go_has_lapsed_once(
    webhook: httpx.AsyncClient, payments: Payments, database: Database
) -> None:
    order_id = await authorized(payments)
    reference = await reference_of(payments, order_id)
    told = event("payment_intent.canceled", order_id, id=reference, cancellation_reason="expired")
    again = event("payment_intent.canceled", order_id, id=reference, cancellation_reason="expired")
    assert [await post(webhook, one) for one in (told, told, again)] == [204] * 3
    assert await events_of(database, order_id) == ["PaymentAuthorized", "PaymentHoldLapsed"]
    with pytest.raises(Refused) as refused:
        await payments.capture(capture(order_id))
    assert refused.value.refusal.code == "hold_lapsed"


async def test_a_hold_that_we_let_go_ourselves_has_not_lapsed(
    webhook: httpx.AsyncClient, payments: Payments, database: Database
) -> None:
    held, voided, captured = [await authorized(payments) for _ in range(3)]
    await payments.void(void(voided))
    await payments.capture(capture(captured))
    for order_id, reason in ((held, None), (voided, "expired"), (captured, "expired")):
        reference = await reference_of(payments, order_id)
        told = event("payment_intent.canceled", order_id, id=reference, cancellation_reason=reason)
        assert await post(webhook, told) == 204
        assert "PaymentHoldLapsed" not in await events_of(database, order_id)


async def test_a_capture_that_we_did_not_hear_of_is_told_by_the_webhook(
    webhook: httpx.AsyncClient, payments: Payments, database: Database
) -> None:
    order_id = await authorized(payments, "tok_capture_lost_answer")
    with pytest.raises(ProviderTimeout):
        await payments.capture(capture(order_id))
    reference = await reference_of(payments, order_id)
    told = event("payment_intent.succeeded", order_id, id=reference, amount=900, amount_received=900)
    assert [await post(webhook, told) for _ in range(2)] == [204, 204]
    receipt = await payments.capture(capture(order_id, 2, cash(1000)))
    assert (receipt.method, receipt.change_cents) == ("card", 1000)
    assert await events_of(database, order_id) == ["PaymentAuthorized", "PaymentCaptured"]
    assert (await books(database, order_id)).agree


async def test_an_answer_that_the_webhook_overtook_changes_nothing(
    webhook: httpx.AsyncClient, payments: Payments, database: Database
) -> None:
    order_id = await authorized(payments)
    reference = await reference_of(payments, order_id)
    told = event("payment_intent.succeeded", order_id, id=reference, amount=900, amount_received=900)
    outcomes = await asyncio.gather(payments.capture(capture(order_id)), *(post(webhook, told) for _ in range(5)))
    # One that met another in the middle is sent again by Stripe.
    assert set(outcomes[1:]) <= {204, 503}
    assert await post(webhook, told) == 204
    assert await events_of(database, order_id) == ["PaymentAuthorized", "PaymentCaptured"]


async def test_a_desk_card_that_we_did_not_hear_of_is_told_by_the_webhook(
    webhook: httpx.AsyncClient, payments: Payments, sandbox: Sandbox, database: Database
) -> None:
    order_id = await authorized(payments, None)
    taken = await sandbox.charge(order_id, 1, "tok_approved", 900, "USD", idempotency_key=f"c-{order_id}")
    told = event(
        "payment_intent.succeeded",
        order_id,
        id=taken.reference,
        amount=900,
        amount_received=900,
        metadata={"attempt": "1"},
    )
    assert await post(webhook, told) == 204
    assert (await payments.capture(capture(order_id, 2, desk_card()))).method == "desk_card"
    assert (await books(database, order_id)).agree


async def test_what_comes_too_early_is_to_come_again(
    webhook: httpx.AsyncClient, payments: Payments, database: Database
) -> None:
    command = authorize()
    told = event("payment_intent.succeeded", command.order_id, id="pi_1", amount=900, amount_received=900)
    assert await post(webhook, told) == 503
    await payments.authorize(command)
    assert await post(webhook, told) == 204
    assert await events_of(database, command.order_id) == ["PaymentAuthorized", "PaymentCaptured"]


async def test_a_charge_too_many_is_given_back_and_not_booked(
    webhook: httpx.AsyncClient, payments: Payments, sandbox: Sandbox, database: Database
) -> None:
    order_id = await paid(payments)
    taken = await sandbox.charge(order_id, 1, "tok_approved", 900, "USD", idempotency_key=f"c-{order_id}")
    assert not (await books(database, order_id)).agree
    told = event(
        "payment_intent.succeeded",
        order_id,
        id=taken.reference,
        amount=900,
        amount_received=900,
        metadata={"attempt": "1"},
    )
    assert [await post(webhook, told) for _ in range(2)] == [204, 204]
    found = await books(database, order_id)
    assert (found.captured_cents, found.refunded_cents, found.provider_refunded) == (900, 0, 900)
    assert found.agree


async def test_a_refund_that_we_did_not_hear_of_is_told_by_the_webhook(
    webhook: httpx.AsyncClient, payments: Payments, database: Database
) -> None:
    order_id = await paid(payments, "tok_refund_lost_answer")
    command = refund(order_id, 300)
    with pytest.raises(ProviderTimeout):
        await payments.refund(command)
    told = event(
        "refund.created",
        order_id,
        id="re_1",
        payment_intent=await reference_of(payments, order_id),
        amount=300,
        status="succeeded",
        metadata={"refund_id": str(command.refund_id)},
    )
    assert [await post(webhook, told) for _ in range(2)] == [204, 204]
    await payments.refund(command)
    found = await books(database, order_id)
    assert (found.refunded_cents, found.provider_refunded) == (300, 300)


def of_refund(kind: str, command: RefundPayment, reference: str, status: str, **more: Any) -> dict[str, Any]:
    return event(
        kind,
        command.order_id,
        id="re_1",
        payment_intent=reference,
        amount=command.amount_cents,
        status=status,
        metadata={"refund_id": str(command.refund_id)},
        **more,
    )


@pytest.mark.parametrize("kind", ["refund.failed", "refund.updated"])
async def test_a_refund_that_fails_later_is_no_longer_booked(
    webhook: httpx.AsyncClient, payments: Payments, database: Database, kind: str
) -> None:
    order_id = await paid(payments)
    reference, command = await reference_of(payments, order_id), refund(order_id, 300)
    failed = of_refund(kind, command, reference, "failed", failure_reason="expired_or_canceled_card")
    made = of_refund("refund.created", command, reference, "pending")
    # What comes before the refund is booked comes again; what was said before it failed counts no more.
    told = [await post(webhook, one) for one in (failed, made, failed, failed, made)]
    told.append(await post(webhook, of_refund("refund.updated", command, reference, "succeeded")))
    told.append(await post(webhook, of_refund("refund.failed", command, reference, "failed")))
    assert told == [503] + [204] * 6
    assert (await books(database, order_id)).refunded_cents == 0
    assert (await events_of(database, order_id))[2:] == ["PaymentRefunded", "PaymentRefundFailed"]
    with pytest.raises(Refused) as refused:
        await payments.refund(command)
    assert refused.value.refusal.code == "not_refundable"


async def test_a_failed_refund_that_is_not_ours_takes_nothing_out(
    webhook: httpx.AsyncClient, payments: Payments, database: Database
) -> None:
    order_id = await paid(payments)
    command = refund(order_id, 300)
    await payments.refund(command)
    for reference in ("pi_surplus", await reference_of(payments, order_id)):
        # The second is of the payment, but not the refund that was booked.
        assert await post(webhook, of_refund("refund.failed", command, reference, "failed")) == 204
    assert (await books(database, order_id)).refunded_cents == 300
    assert "PaymentRefundFailed" not in await events_of(database, order_id)


async def test_what_is_told_belongs_to_the_story_of_its_order(
    webhook: httpx.AsyncClient, payments: Payments, database: Database
) -> None:
    order_id = await authorized(payments)
    reference = await reference_of(payments, order_id)
    await post(
        webhook, event("payment_intent.canceled", order_id, "evt_of_mine", id=reference, cancellation_reason="x")
    )
    query = text("SELECT correlation_id, causation_id FROM payments.events WHERE stream = :stream AND version = 2")
    async with database.transaction() as connection:
        (row,) = await connection.execute(query, {"stream": f"payment-{order_id}"})
    assert tuple(row) == (order_id, "provider/evt_of_mine")


async def test_localstripe_tells_of_a_capture_over_http(
    by_stripe: Payments, localstripe: str, database: Database
) -> None:
    port = free_port()
    server = uvicorn.Server(
        uvicorn.Config(application(by_stripe), host="127.0.0.1", port=port, log_level="warning", lifespan="off")
    )
    serving = asyncio.create_task(server.serve())
    await eventually(lambda: server.started)
    url = f"http://127.0.0.1:{port}/v1/webhooks/stripe"
    async with httpx.AsyncClient(base_url=localstripe, auth=(API_KEY, "")) as client:
        (await client.post("/_config/webhooks/mall", json={"url": url, "secret": SECRET})).raise_for_status()
    order_id = await authorized(by_stripe, "pm_card_visa")
    # Captured at Stripe, as by an attempt that was killed before it wrote that down.
    await by_stripe._provider.capture(order_id, 900, idempotency_key=f"capture-{order_id}-1")

    async def is_told() -> bool:
        return (await events_of(database, order_id))[-1] == "PaymentCaptured"

    await eventually(is_told)
    server.should_exit = True
    await serving

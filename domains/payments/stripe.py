"""Stripe as the payment provider: a hold is a PaymentIntent that is captured by hand, a charge at the desk one
that is captured at once.

An intent is created without using the card, written down, and only then confirmed: so none is ever lost with an
answer, and what it has become can be looked up for longer than Stripe keeps idempotency keys (24 hours).
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from http import HTTPStatus
from typing import Any, Final, Literal, TypeVar
from uuid import UUID

import stripe
from sqlalchemy import Integer, bindparam, text
from stripe import RequestOptions
from stripe.params import PaymentIntentCreateParams, RefundCreateParams

from domains.payments.desk import Desk
from domains.payments.messages import SettlementMethod
from domains.payments.provider import ProviderEvent, Taken
from kernel.database import Database
from kernel.errors import (
    Conflict,
    IdempotencyKeyReused,
    InvalidInput,
    Misconfigured,
    ProviderTimeout,
    Refusal,
    RefusalCode,
    Refused,
    Unauthenticated,
    Unavailable,
)
from kernel.ids import new_id

_KNOWN = text(
    "SELECT intent_id, order_id, attempt, amount_cents, currency FROM payments.stripe_intents"
    " WHERE idempotency_key = :idempotency_key"
)
_KEEP = text(
    "INSERT INTO payments.stripe_intents (idempotency_key, intent_id, order_id, attempt, amount_cents, currency)"
    " VALUES (:idempotency_key, :intent_id, :order_id, :attempt, :amount_cents, :currency)"
    " ON CONFLICT (idempotency_key) DO NOTHING RETURNING intent_id"
)
_HOLD = text(
    "SELECT intent_id FROM payments.stripe_intents WHERE order_id = :order_id AND attempt IS NULL LIMIT 1"
)
_CHARGES = text(
    "SELECT intent_id FROM payments.stripe_intents"
    " WHERE order_id = :order_id AND attempt < coalesce(:before, attempt + 1) ORDER BY attempt"
).bindparams(bindparam("before", type_=Integer()))

_NO_HOLD: Final = Refusal(code="hold_lapsed", detail="nothing is held on the card any more")
_NEEDS_CUSTOMER: Final = Refusal(
    code="payment_declined", detail="the card's bank wants to ask the customer, which can not be done here"
)
_UNKNOWN_CARD: Final = Refusal(code="payment_declined", detail="the payment provider does not know this card")
_NO_AMOUNT: Final = Refusal(code="payment_declined", detail="this amount can not be paid by card")
_NO_INCREASE: Final = Refusal(code="payment_declined", detail="the hold on this card can not be raised")
_NO_REFUND: Final = Refusal(
    code="not_refundable", detail="so much is not left, or the card's bank takes no refund"
)
_BUSY: Final = ("idempotency_key_in_use", "lock_timeout")
_FINAL: Final = ("canceled", "succeeded")
_MOST_REFUNDS: Final = 100
_MOST_KEYS: Final = 20

Answer = TypeVar("Answer")
Act = Callable[[RequestOptions], Awaitable[stripe.PaymentIntent]]


class Stripe:
    """The account that `api_key` is of. `timeout` is how many seconds an answer is waited for; `api_url` is where
    Stripe is, if it is not the real one. Card tokens are ids of PaymentMethods (`pm_…`)."""

    def __init__(
        self, database: Database, api_key: str, *, timeout: float = 10.0, api_url: str | None = None
    ) -> None:
        self._database = database
        self._desk = Desk("payments")
        self._http = stripe.HTTPXClient(timeout=timeout)
        # Repeating is Temporal's part: it sees how often, and shows it.
        self._client = stripe.StripeClient(
            api_key,
            http_client=self._http,
            base_addresses={"api": api_url.rstrip("/")} if api_url else {},
            max_network_retries=0,
        )
        self._intents = self._client.v1.payment_intents
        self._refunds = self._client.v1.refunds

    async def close(self) -> None:
        """Give the connections back."""
        await self._http.close_async()  # type: ignore[no-untyped-call]

    async def authorize(
        self, order_id: UUID, token: str, amount_cents: int, currency: str, *, idempotency_key: str
    ) -> str:
        """As `PaymentProvider.authorize`."""
        intent = await self._use_card(order_id, None, token, amount_cents, currency, idempotency_key)
        return intent.id

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
        intent = await self._use_card(order_id, attempt, token, amount_cents, currency, idempotency_key)
        if intent.status != "succeeded":
            raise Conflict(f"attempt {attempt} to pay order {order_id} was called off")
        return _taken(intent, "desk_card")

    async def adjust(self, order_id: UUID, amount_cents: int, *, idempotency_key: str) -> None:
        """As `PaymentProvider.adjust`. Stripe can not hold less: it lets the rest go when it captures."""
        intent_id = await self._hold_of(order_id)
        if intent_id is None:
            raise Refused(_NO_HOLD)
        intent = await self._read(intent_id)
        if intent.status != "requires_capture":
            raise Refused(_NO_HOLD)
        if amount_cents <= intent.amount:
            return
        raise_it = partial(self._intents.increment_authorization_async, intent.id, {"amount": amount_cents})
        try:
            await _once(raise_it, idempotency_key)
        except stripe.InvalidRequestError as error:
            raise Refused(_NO_INCREASE) from error

    async def capture(self, order_id: UUID, amount_cents: int, *, idempotency_key: str) -> Taken:
        """As `PaymentProvider.capture`."""
        intent_id = await self._hold_of(order_id)
        if intent_id is None:
            raise Refused(_NO_HOLD)
        intent = await self._read(intent_id)
        if intent.status == "requires_capture":
            capture = partial(self._intents.capture_async, intent_id, {"amount_to_capture": amount_cents})
            intent = await self._change(intent, capture, idempotency_key)
        if intent.status != "succeeded":
            raise Refused(_NO_HOLD)
        return _taken(intent, "card", amount_cents)

    async def void(self, order_id: UUID, *, idempotency_key: str) -> Taken | None:
        """As `PaymentProvider.void`. An intent is canceled once, so the key is not kept."""
        intent_id = await self._hold_of(order_id)
        if intent_id is None:
            return None
        intent = await self._cancel(intent_id)
        return _taken(intent, "card") if intent.status == "succeeded" else None

    async def call_off(self, order_id: UUID, before: int | None) -> Taken | None:
        """As `PaymentProvider.call_off`."""
        async with self._database.transaction() as connection:
            if before is None:
                await self._desk.close(connection, order_id)
            else:
                await self._desk.begin(connection, order_id, before)
            charges = (
                (await connection.execute(_CHARGES, {"order_id": order_id, "before": before})).scalars().all()
            )
        for intent_id in charges:
            intent = await self._cancel(intent_id)
            if intent.status == "succeeded":
                return _taken(intent, "desk_card")
        return None

    async def refund(
        self, order_id: UUID, refund_id: UUID, reference: str, amount_cents: int, *, idempotency_key: str
    ) -> str:
        """As `PaymentProvider.refund`."""
        known = await _answer(self._refunds.list_async({"payment_intent": reference, "limit": _MOST_REFUNDS}))
        refund = next((one for one in known.data if _is_of(one, refund_id)), None)
        if refund is None:
            wanted: RefundCreateParams = {
                "payment_intent": reference,
                "amount": amount_cents,
                "metadata": {"order_id": str(order_id), "refund_id": str(refund_id)},
            }
            try:
                # What was not possible then, as for want of balance, may be now.
                refund = await _once(partial(self._refunds.create_async, wanted), idempotency_key, anew=True)
            except stripe.InvalidRequestError as error:
                if error.code == "charge_already_refunded" or error.param == "amount":
                    raise Refused(_NO_REFUND) from error
                raise _our_fault(error) from error
        if refund.amount != amount_cents:
            raise IdempotencyKeyReused(f"refund {refund_id} came before with another amount")
        if refund.status in ("failed", "canceled"):
            raise Refused(_NO_REFUND)
        return refund.id

    async def _use_card(
        self, order_id: UUID, attempt: int | None, token: str, amount_cents: int, currency: str, key: str
    ) -> stripe.PaymentIntent:
        """The intent after its card was used: held, captured, or canceled by somebody else."""
        intent = await self._intent(order_id, attempt, token, amount_cents, currency, key)
        if intent.status == "requires_confirmation":
            confirm = partial(self._intents.confirm_async, intent.id, {})
            intent = await self._change(intent, confirm, f"confirm-{key}")
        if intent.status == "requires_action":
            raise Refused(_NEEDS_CUSTOMER)
        if intent.status == "requires_payment_method":
            raise Refused(_refusal(intent.last_payment_error))
        if intent.status not in ("requires_capture", "succeeded", "canceled"):
            raise ProviderTimeout(f"Stripe is still working: {intent.id} is {intent.status}")
        return intent

    async def _intent(
        self, order_id: UUID, attempt: int | None, token: str, amount_cents: int, currency: str, key: str
    ) -> stripe.PaymentIntent:
        """The intent that is known by this key, or a new one that has not used the card yet."""
        asked = {"order_id": order_id, "attempt": attempt, "amount_cents": amount_cents, "currency": currency}
        async with self._database.transaction() as connection:
            known = (await connection.execute(_KNOWN, {"idempotency_key": key})).one_or_none()
        if known is not None:
            if {name: getattr(known, name) for name in asked} != asked:
                raise IdempotencyKeyReused(f"{key} came before with another request")
            return await self._read(known.intent_id)
        wanted: PaymentIntentCreateParams = {
            "amount": amount_cents,
            "currency": currency.lower(),
            "payment_method": token,
            "allowed_payment_method_types": ["card"],
            "capture_method": "manual" if attempt is None else "automatic",
            "metadata": {"order_id": str(order_id)} | ({} if attempt is None else {"attempt": str(attempt)}),
        }
        if attempt is None:
            wanted["payment_method_options"] = {"card": {"request_incremental_authorization": "if_available"}}
        try:
            intent = await _once(partial(self._intents.create_async, wanted), key)
        except stripe.InvalidRequestError as error:
            if error.http_status == HTTPStatus.NOT_FOUND:
                raise Refused(_UNKNOWN_CARD) from error
            raise _not_usable(error) from error
        async with self._database.transaction() as connection:
            # Also for a hold: one that is voided already finds the door shut.
            await self._desk.begin(connection, order_id, attempt or 0)
            row = {"idempotency_key": key, "intent_id": intent.id, **asked}
            kept = (await connection.execute(_KEEP, row)).first()
        if kept is None:
            # Somebody else was first with the same key: theirs counts.
            return await self._intent(order_id, attempt, token, amount_cents, currency, key)
        return intent

    async def _hold_of(self, order_id: UUID) -> str | None:
        async with self._database.transaction() as connection:
            found: str | None = (await connection.execute(_HOLD, {"order_id": order_id})).scalar()
        return found

    async def _read(self, intent_id: str) -> stripe.PaymentIntent:
        try:
            return await _answer(self._intents.retrieve_async(intent_id))
        except stripe.InvalidRequestError as error:
            raise _our_fault(error) from error

    async def _cancel(self, intent_id: str) -> stripe.PaymentIntent:
        """The intent once it can not take money any more: canceled, or succeeded before."""
        intent = await self._read(intent_id)
        if intent.status not in _FINAL:
            cancel = partial(self._intents.cancel_async, intent_id, {})
            intent = await self._change(intent, cancel, f"cancel-{intent_id}")
        if intent.status not in _FINAL:
            raise ProviderTimeout(f"Stripe is still working: {intent_id} is {intent.status}")
        return intent

    async def _change(self, intent: stripe.PaymentIntent, act: Act, key: str) -> stripe.PaymentIntent:
        """The intent after this act, or as somebody else has changed it first."""
        try:
            return await _answer(act({"idempotency_key": key}))
        except stripe.InvalidRequestError as error:
            changed = await self._read(intent.id)
            if changed.status == intent.status:
                raise _not_usable(error) from error
            return changed
        except ProviderTimeout as error:
            if not _is_repeated(error.__cause__):
                raise
            # Stripe repeats a failure of its own under the same key for a day. An intent changes only once.
            return await _answer(act({"idempotency_key": f"{key}-{new_id()}"}))


async def _once(act: Callable[[RequestOptions], Awaitable[Answer]], key: str, *, anew: bool = False) -> Answer:
    """What Stripe answers, but for a failure of its own that it only repeats: it does so under the same key for a
    day. The next key is made of the first, so that attempts at the same time still have one effect. With `anew`
    what Stripe repeats of its refusals is asked for anew as well."""
    number = 0
    while True:
        try:
            return await _answer(act({"idempotency_key": f"{key}-{number}" if number else key}))
        except ProviderTimeout as error:
            if not _is_repeated(error.__cause__) or number == _MOST_KEYS:
                raise
        except stripe.InvalidRequestError as error:
            if not (anew and _is_repeated(error)) or number == _MOST_KEYS:
                raise
        number += 1


async def _answer(asking: Awaitable[Answer]) -> Answer:
    """What Stripe answers; its errors as ours, but for `InvalidRequestError`, which depends on what was asked."""
    try:
        return await asking
    except stripe.CardError as error:
        raise Refused(_refusal(error.error)) from error
    except stripe.RateLimitError as error:
        raise Unavailable("Stripe has too much to do") from error
    except (stripe.AuthenticationError, stripe.PermissionError) as error:
        raise Misconfigured(f"Stripe does not accept the key: {error.user_message}") from error
    except (stripe.IdempotencyError, stripe.InvalidRequestError, stripe.APIError) as error:
        if error.code in _BUSY or error.http_status == HTTPStatus.CONFLICT:
            raise Unavailable("Stripe is busy with the same payment") from error
        if isinstance(error, stripe.IdempotencyError):
            raise IdempotencyKeyReused(f"Stripe: {error.user_message}") from error
        if isinstance(error, stripe.APIError):
            raise ProviderTimeout("Stripe failed, perhaps after the effect") from error
        raise
    except stripe.APIConnectionError as error:
        raise ProviderTimeout("Stripe did not answer in time") from error


def read_event(payload: bytes, signature: str | None, secret: str) -> ProviderEvent | None:
    """What a webhook of Stripe tells, or None if it does not matter here. `signature` is its header
    `Stripe-Signature`, `secret` that of the webhook.

    Raises `Unauthenticated` if it is not from Stripe or older than five minutes (Stripe signs each delivery anew),
    `InvalidInput` if it is no event.
    """
    try:
        if not (signature or "").isascii():
            raise Unauthenticated("the signature is not Stripe's")
        stripe.WebhookSignature.verify_header(payload, signature, secret, stripe.Webhook.DEFAULT_TOLERANCE)
        event = json.loads(payload)
        return _as_event(event["id"], event["type"], event["data"]["object"])
    except stripe.SignatureVerificationError as error:
        raise Unauthenticated("the signature is not Stripe's") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise InvalidInput("this is no event of Stripe") from error


def _as_event(event_id: str, kind: str, subject: Mapping[str, Any]) -> ProviderEvent | None:
    metadata = subject.get("metadata") or {}
    try:
        order_id, at_desk = UUID(metadata["order_id"]), "attempt" in metadata
    except (LookupError, ValueError):
        # The account may have payments that are not the mall's.
        return None
    match kind:
        case "payment_intent.succeeded":
            amount_cents = subject.get("amount_received", subject["amount"])
            took: Literal["charged", "captured"] = "charged" if at_desk else "captured"
            return ProviderEvent(event_id, took, order_id, subject["id"], amount_cents)
        case "payment_intent.canceled" if subject.get("cancellation_reason") and not at_desk:
            # Without a reason it was canceled by us.
            return ProviderEvent(
                event_id, "lapsed", order_id, subject["id"], reason=subject["cancellation_reason"]
            )
        case "refund.created" | "refund.updated" if (
            subject["status"] in ("succeeded", "pending") and "refund_id" in metadata
        ):
            return ProviderEvent(
                event_id,
                "refunded",
                order_id,
                subject["payment_intent"],
                subject["amount"],
                refund_id=UUID(metadata["refund_id"]),
                refund_reference=subject["id"],
            )
        case "refund.failed" | "refund.updated" if (
            subject["status"] in ("failed", "canceled") and "refund_id" in metadata
        ):
            return ProviderEvent(
                event_id,
                "refund_failed",
                order_id,
                subject["payment_intent"],
                subject["amount"],
                reason=subject.get("failure_reason") or subject["status"],
                refund_id=UUID(metadata["refund_id"]),
                refund_reference=subject["id"],
            )
    return None


def _is_of(refund: stripe.Refund, refund_id: UUID) -> bool:
    return getattr(refund.metadata, "refund_id", None) == str(refund_id)


def _taken(intent: stripe.PaymentIntent, method: SettlementMethod, asked_cents: int | None = None) -> Taken:
    received = getattr(intent, "amount_received", None)
    return Taken(method, received or asked_cents or intent.amount, intent.id)


def _refusal(error: object) -> Refusal:
    code: RefusalCode = "payment_declined"
    if getattr(error, "decline_code", None) == "insufficient_funds":
        code = "insufficient_funds"
    return Refusal(code=code, detail=getattr(error, "message", None) or "the card was declined")


def _our_fault(error: stripe.InvalidRequestError) -> Misconfigured:
    return Misconfigured(f"Stripe does not take the request: {error.user_message}")


def _not_usable(error: stripe.InvalidRequestError) -> Refused | Misconfigured:
    """Why a card can not be used for this: what another card or amount may help with is no fault of ours."""
    if error.param == "payment_method":
        return Refused(_UNKNOWN_CARD)
    if error.param == "amount" or error.code in ("amount_too_small", "amount_too_large"):
        return Refused(_NO_AMOUNT)
    return _our_fault(error)


def _is_repeated(error: BaseException | None) -> bool:
    return isinstance(error, stripe.StripeError) and (error.headers or {}).get("idempotent-replayed") == "true"

"""What Payments can be asked to do. The provider is asked outside any transaction, under an idempotency key
made of the order's id, so that a repeat after any crash finds the first hold, capture or refund."""

import logging
from collections.abc import Callable
from uuid import UUID, uuid5

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domains.payments.desk import Desk
from domains.payments.messages import (
    EVENTS,
    AdjustPayment,
    AuthorizePayment,
    CapturePayment,
    CardPayment,
    DeskCardPayment,
    PaymentView,
    Receipt,
    RefundPayment,
    VoidPayment,
)
from domains.payments.model import Payment
from domains.payments.provider import PaymentProvider, ProviderEvent, Taken
from events.store import Causation, EventStore, caused_by
from kernel.database import Database
from kernel.errors import ConcurrencyConflict, Conflict, OrderClosed, Refusal, Refused

_PUT = text(
    "INSERT INTO payments.payments (order_id, status, method, authorized_cents, currency, hold_lapsed,"
    "  captured_cents, settled_by, refunded_cents, version)"
    " VALUES (:order_id, :status, :method, :authorized_cents, :currency, :hold_lapsed,"
    "  :captured_cents, :settled_by, :refunded_cents, :version)"
    " ON CONFLICT (order_id) DO UPDATE SET status = excluded.status, method = excluded.method,"
    "  authorized_cents = excluded.authorized_cents, currency = excluded.currency,"
    "  hold_lapsed = excluded.hold_lapsed, captured_cents = excluded.captured_cents,"
    "  settled_by = excluded.settled_by, refunded_cents = excluded.refunded_cents, version = excluded.version"
)
_NOTE = text("INSERT INTO payments.provider_events (id) VALUES (:id) ON CONFLICT (id) DO NOTHING RETURNING id")
_LAPSED = Refusal(code="hold_lapsed", detail="nothing is held on the card any more: the order must be paid here")
_NOTHING_TO_RAISE = Refusal(code="payment_declined", detail="nothing is held on the card that could be raised")

_log = logging.getLogger(__name__)


class Payments:
    """The Payments domain on its database. Every command may be repeated: the effect is that of the first."""

    def __init__(self, database: Database, provider: PaymentProvider) -> None:
        self._database = database
        self._provider = provider
        self._store = EventStore("payments", EVENTS)
        self._desk = Desk("payments")

    async def authorize(self, command: AuthorizePayment) -> None:
        """Hold the amount on the card, or open an invoice for the desk.

        Raises `Refused` (`payment_declined`, `insufficient_funds`), `ProviderTimeout`, or `OrderClosed` if the
        payment was voided before or meanwhile (nothing stays held then).
        """
        order_id = command.order_id
        try:
            if (await self._read(order_id)).is_settled(order_id):
                return
            try:
                reference = await self._hold(command)
            except Refused as refused:
                refusal = refused.refusal
                await self._record(order_id, lambda payment: payment.decline(order_id, refusal))
                raise
            await self._record(order_id, lambda payment: payment.authorize(command, reference))
        except OrderClosed:
            # Also where it was closed at the start: an earlier attempt may have come too late, and failed here.
            await self._provider.void(order_id, idempotency_key=f"void-{order_id}")
            raise

    async def adjust(self, command: AdjustPayment) -> None:
        """Hold another amount, or have another amount due; each round once. If the hold has lapsed, the amount is
        due at the desk.

        Raises `Refused` (`payment_declined`, `insufficient_funds`) if more can not be held, `ProviderTimeout`,
        `OrderClosed` if the payment was captured or voided.
        """
        order_id = command.order_id
        payment = await self._read(order_id)
        payment.is_due(order_id)
        if command.round <= payment.round:
            return
        if payment.has_hold:
            key = f"adjust-{order_id}-{command.round}"
            try:
                await self._provider.adjust(order_id, command.amount_cents, idempotency_key=key)
            except Refused as refused:
                if refused.refusal.code != "hold_lapsed":
                    raise
                detail = refused.refusal.detail
                await self._record(order_id, lambda payment: payment.lapse(order_id, detail))
        elif payment.is_nothing_held and command.amount_cents > 0:
            raise Refused(_NOTHING_TO_RAISE)
        await self._record(order_id, lambda payment: payment.adjust(command))

    async def capture(self, command: CapturePayment) -> Receipt:
        """Take what the order costs: from the hold, or what is offered at the desk. Money is taken once, whatever
        is tried: if it turns out that an earlier attempt took it, the receipt says so. The hold is let go before
        anything else is taken.

        Raises `InvalidInput` (`payment`, `payment.tendered_cents`), `Refused` (`payment_declined`,
        `insufficient_funds`, `hold_lapsed`), `ProviderTimeout`, `Conflict` if a later attempt has begun,
        `OrderClosed` if the payment is voided.
        """
        order_id = command.order_id
        async with self._database.transaction() as connection:
            payment = await self._load(connection, order_id)
            if payment.captured is not None:
                return payment.receipt(command)
            payment.check_offer(command)
            await self._desk.begin(connection, order_id, command.attempt)
        taken = await self._take(command, payment)
        if taken is not None:
            payment = await self._record(order_id, lambda payment: payment.capture(order_id, taken))
        else:
            payment = await self._record(order_id, lambda payment: payment.settle(command), command.attempt)
        return payment.receipt(command)

    async def void(self, command: VoidPayment) -> None:
        """Let go the hold or the invoice. If there is none yet, an authorize that comes later is refused.

        Raises `Conflict` if the order turns out to be paid, unless the command says to refund that; and
        `ProviderTimeout`.
        """
        order_id = command.order_id
        async with self._database.transaction() as connection:
            payment = await self._load(connection, order_id)
            if payment.status == "voided":
                return
            was_at_desk = await self._desk.close(connection, order_id)
        if payment.captured is None:
            # Also with no hold on record: the provider may hold the amount of an answer that never came.
            taken = await self._provider.void(order_id, idempotency_key=f"void-{order_id}")
            if taken is None and was_at_desk:
                taken = await self._provider.call_off(order_id, None)
            if taken is not None:
                found = taken
                payment = await self._record(order_id, lambda payment: payment.capture(order_id, found))
        if command.refund_captured and payment.refundable_cents:
            await self._refund_rest(command, payment.refundable_cents)
        await self._record(order_id, lambda payment: payment.void(command))

    async def refund(self, command: RefundPayment) -> None:
        """Give back a part of what was captured, in the way that it was paid; cash only on record.

        Raises `Refused` (`not_refundable`) if so much is not left of what was captured, or the bank takes nothing
        back; `ProviderTimeout`; `IdempotencyKeyReused`.
        """
        order_id, reference = command.order_id, None
        payment = await self._read(order_id)
        if payment.check_refund(command):
            return
        assert payment.captured is not None
        if payment.captured.reference is not None and command.amount_cents:
            reference = await self._provider.refund(
                order_id,
                command.refund_id,
                payment.captured.reference,
                command.amount_cents,
                idempotency_key=f"refund-{command.refund_id}",
            )
        await self._record(order_id, lambda payment: payment.refund(command, reference))

    async def note_provider_event(self, event: ProviderEvent) -> None:
        """What the provider says by itself, each event once. A charge that is not the order's one is given back.

        Raises `Unavailable` if it comes too early to be understood: it may come again.
        """
        with caused_by(Causation(event.order_id, f"provider/{event.id}")):
            if (await self._read(event.order_id)).is_surplus(event):
                await self._give_back(event)
            await self._note(event)

    async def view(self, order_id: UUID) -> PaymentView | None:
        """The payment of an order as it is now, or None."""
        return (await self._read(order_id)).view

    async def _hold(self, command: AuthorizePayment) -> str | None:
        if not isinstance(command.payment, CardPayment) or not command.amount_cents:
            return None
        return await self._provider.authorize(
            command.order_id,
            command.payment.token,
            command.amount_cents,
            command.currency,
            idempotency_key=f"authorize-{command.order_id}",
        )

    async def _take(self, command: CapturePayment, payment: Payment) -> Taken | None:
        """The money that the provider took, now or in an earlier attempt; None if it has taken none, and what is
        due is paid without it."""
        order_id, offer, due_cents = command.order_id, command.payment, payment.due_cents
        if command.attempt > 1:
            # An earlier attempt's card may have paid, and its answer got lost.
            taken = await self._provider.call_off(order_id, command.attempt)
            if taken is not None:
                return taken
        if offer is None and due_cents:
            return await self._take_hold(command, payment)
        if payment.has_hold:
            taken = await self._provider.void(order_id, idempotency_key=f"void-{order_id}")
            if taken is not None:
                return taken
        if isinstance(offer, DeskCardPayment) and due_cents:
            assert payment.authorized is not None
            return await self._provider.charge(
                order_id,
                command.attempt,
                offer.token,
                due_cents,
                payment.authorized.currency,
                idempotency_key=f"charge-{order_id}-{command.attempt}",
            )
        return None

    async def _take_hold(self, command: CapturePayment, payment: Payment) -> Taken | None:
        """What was held. None if meanwhile the order was paid otherwise."""
        order_id = command.order_id
        if not payment.has_hold:
            raise Refused(_LAPSED)
        key = f"capture-{order_id}-{command.attempt}"
        try:
            return await self._provider.capture(order_id, payment.due_cents, idempotency_key=key)
        except Refused as refused:
            if refused.refusal.code != "hold_lapsed":
                raise
            detail = refused.refusal.detail
            payment = await self._record(order_id, lambda payment: payment.lapse(order_id, detail))
            if payment.captured is not None:
                return None
            payment.is_due(order_id)
            raise Refused(_LAPSED) from refused

    async def _refund_rest(self, command: VoidPayment, amount_cents: int) -> None:
        """The refund has the order's id: there is one such."""
        refund = RefundPayment(
            order_id=command.order_id,
            refund_id=command.order_id,
            amount_cents=amount_cents,
            reason=command.reason,
        )
        try:
            await self.refund(refund)
        except Refused as refused:
            raise Conflict(
                f"order {command.order_id} is paid, and can not be refunded: {refused.message}"
            ) from refused

    async def _give_back(self, event: ProviderEvent) -> None:
        _log.error("order %s was charged once too often by %s: refunded", event.order_id, event.reference)
        await self._provider.refund(
            event.order_id,
            uuid5(event.order_id, event.reference),
            event.reference,
            event.amount_cents,
            idempotency_key=f"surplus-{event.reference}",
        )

    async def _note(self, event: ProviderEvent) -> None:
        async with self._database.transaction() as connection:
            if (await connection.execute(_NOTE, {"id": event.id})).first() is not None:
                payment = await self._load(connection, event.order_id)
                payment.note(event)
                await self._save(connection, event.order_id, payment)

    async def _record(
        self, order_id: UUID, decide: Callable[[Payment], None], attempt: int | None = None
    ) -> Payment:
        """Decide on the payment and save that; it as it is then. Not left to a later attempt if somebody else is
        first: this one may be the last, and only it knows what the provider said.

        With an attempt at the desk: only if that is still the latest.
        """
        while True:
            try:
                async with self._database.transaction() as connection:
                    payment = await self._load(connection, order_id)
                    if attempt is not None and payment.captured is None:
                        await self._desk.begin(connection, order_id, attempt)
                    decide(payment)
                    await self._save(connection, order_id, payment)
                return payment
            except ConcurrencyConflict:
                continue

    async def _read(self, order_id: UUID) -> Payment:
        async with self._database.transaction() as connection:
            return await self._load(connection, order_id)

    async def _load(self, connection: AsyncConnection, order_id: UUID) -> Payment:
        return Payment.fold(await self._store.load(connection, _stream(order_id)))

    async def _save(self, connection: AsyncConnection, order_id: UUID, payment: Payment) -> None:
        """Append what the payment recorded, and write its row."""
        if not payment.changes:
            return
        await self._store.append(connection, _stream(order_id), payment.version, payment.changes)
        held, captured = payment.authorized, payment.captured
        await connection.execute(
            _PUT,
            {
                "order_id": order_id,
                "status": payment.status,
                "method": held.method if held else None,
                "authorized_cents": payment.due_cents if held else None,
                "currency": held.currency if held else None,
                "hold_lapsed": payment.lapsed,
                "captured_cents": captured.amount_cents if captured else 0,
                "settled_by": captured.method if captured else None,
                "refunded_cents": payment.refunded_cents,
                "version": payment.version + len(payment.changes),
            },
        )


def _stream(order_id: UUID) -> str:
    return f"payment-{order_id}"

"""What Payments can be asked to do. The provider is asked outside any transaction, under an idempotency key
made of the order's id, so that a repeat after any crash finds the first hold."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domains.payments.messages import EVENTS, AuthorizePayment, CardPayment, VoidPayment
from domains.payments.model import Payment
from domains.payments.provider import PaymentProvider
from events.store import EventStore
from kernel.database import Database
from kernel.errors import ConcurrencyConflict, OrderClosed, Refused

_PUT = text(
    "INSERT INTO payments.payments (order_id, status, method, authorized_cents, currency, version)"
    " VALUES (:order_id, :status, :method, :authorized_cents, :currency, :version)"
    " ON CONFLICT (order_id) DO UPDATE SET status = excluded.status, method = excluded.method,"
    " authorized_cents = excluded.authorized_cents, currency = excluded.currency, version = excluded.version"
)


class Payments:
    """The Payments domain on its database. Every command may be repeated: the effect is that of the first."""

    def __init__(self, database: Database, provider: PaymentProvider) -> None:
        self._database = database
        self._provider = provider
        self._store = EventStore("payments", EVENTS)

    async def authorize(self, command: AuthorizePayment) -> None:
        """Hold the amount on the card, or open an invoice for the desk.

        Raises `Refused` (`payment_declined`, `insufficient_funds`), `ProviderTimeout`, or `OrderClosed` if the
        payment was voided before or meanwhile (nothing stays held then).
        """
        order_id = command.order_id
        try:
            async with self._database.transaction() as connection:
                if (await self._load(connection, order_id)).is_settled(order_id):
                    return
            try:
                reference = await self._hold(command)
            except Refused as refused:
                async with self._payment(order_id) as payment:
                    payment.decline(order_id, refused.refusal)
                raise
            await self._record_hold(command, reference)
        except OrderClosed:
            # Also where it was closed at the start: an earlier attempt may have come too late, and failed here.
            await self._provider.void(order_id, idempotency_key=f"void-{order_id}")
            raise

    async def void(self, command: VoidPayment) -> None:
        """Let go the hold or the invoice. If there is none yet, an authorize that comes later is refused.

        Raises `ProviderTimeout`.
        """
        async with self._database.transaction() as connection:
            if (await self._load(connection, command.order_id)).status == "voided":
                return
        # Also with no hold on record: the provider may hold the amount of an answer that never came.
        await self._provider.void(command.order_id, idempotency_key=f"void-{command.order_id}")
        async with self._payment(command.order_id) as payment:
            payment.void(command.order_id, command.reason)

    async def _record_hold(self, command: AuthorizePayment, reference: str | None) -> None:
        """Not left to a later attempt: this one may be the last, and only it knows of the hold."""
        while True:
            try:
                async with self._payment(command.order_id) as payment:
                    payment.authorize(command, reference)
                return
            except ConcurrencyConflict:
                continue

    async def _hold(self, command: AuthorizePayment) -> str | None:
        if not isinstance(command.payment, CardPayment):
            return None
        return await self._provider.authorize(
            command.order_id,
            command.payment.token,
            command.amount_cents,
            command.currency,
            idempotency_key=f"authorize-{command.order_id}",
        )

    async def _load(self, connection: AsyncConnection, order_id: UUID) -> Payment:
        return Payment.fold(await self._store.load(connection, _stream(order_id)))

    @asynccontextmanager
    async def _payment(self, order_id: UUID) -> AsyncIterator[Payment]:
        """The payment to decide on; what it records is saved at the end, with its row."""
        async with self._database.transaction() as connection:
            payment = await self._load(connection, order_id)
            yield payment
            if payment.changes:
                await self._store.append(connection, _stream(order_id), payment.version, payment.changes)
                held = payment.authorized
                await connection.execute(
                    _PUT,
                    {
                        "order_id": order_id,
                        "status": payment.status,
                        "method": held.method if held else None,
                        "authorized_cents": held.amount_cents if held else None,
                        "currency": held.currency if held else None,
                        "version": payment.version + len(payment.changes),
                    },
                )


def _stream(order_id: UUID) -> str:
    return f"payment-{order_id}"

"""What tests of payments say and look at."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar
from uuid import UUID

from sqlalchemy import text

from domains.payments.messages import (
    AdjustPayment,
    CapturePayment,
    CashPayment,
    DeskCardPayment,
    DeskPayment,
    RefundPayment,
    VoidPayment,
)
from domains.payments.service import Payments
from kernel.database import Database
from kernel.errors import ProviderTimeout
from kernel.ids import new_id
from tests.samples import authorize

Answer = TypeVar("Answer")

_EVENTS = text("SELECT type FROM payments.events WHERE stream = :stream ORDER BY version")
_OURS = text(
    "SELECT status, captured_cents, refunded_cents, settled_by, hold_lapsed, authorized_cents"
    " FROM payments.payments WHERE order_id = :order_id"
)
_THEIRS = text(
    "SELECT count(*) FILTER (WHERE status = 'held') AS held,"
    " count(*) FILTER (WHERE captured_cents > refunded_cents) AS charges,"
    " coalesce(sum(captured_cents), 0)::bigint AS captured_cents,"
    " coalesce(sum(refunded_cents), 0)::bigint AS refunded_cents"
    " FROM sandbox.holds WHERE order_id = :order_id"
)
_HOLDS = text("SELECT status, amount_cents FROM sandbox.holds WHERE order_id = :order_id ORDER BY id")


def adjust(order_id: UUID, round: int, cents: int) -> AdjustPayment:
    return AdjustPayment(order_id=order_id, round=round, amount_cents=cents)


def capture(order_id: UUID, attempt: int = 1, payment: DeskPayment | None = None) -> CapturePayment:
    return CapturePayment(order_id=order_id, attempt=attempt, payment=payment)


def cash(cents: int = 1000) -> CashPayment:
    return CashPayment(tendered_cents=cents)


def desk_card(token: str = "tok_approved") -> DeskCardPayment:  # noqa: S107
    return DeskCardPayment(token=token)


def void(order_id: UUID, *, refund_captured: bool = False) -> VoidPayment:
    return VoidPayment(order_id=order_id, reason="order_cancelled", refund_captured=refund_captured)


def refund(order_id: UUID, cents: int, refund_id: UUID | None = None) -> RefundPayment:
    return RefundPayment(order_id=order_id, refund_id=refund_id or new_id(), amount_cents=cents, reason="broken")


async def authorized(payments: Payments, token: str | None = "tok_approved", cents: int = 900) -> UUID:  # noqa: S107
    """A new order of which so much is held or due; its id."""
    command = authorize(token, cents=cents)
    await payments.authorize(command)
    return command.order_id


async def paid(payments: Payments, token: str = "tok_approved", cents: int = 900) -> UUID:  # noqa: S107
    """A new order whose hold was captured; its id."""
    order_id = await authorized(payments, token, cents)
    await payments.capture(capture(order_id))
    return order_id


async def persist(act: Callable[[], Awaitable[Answer]]) -> Answer:
    """Repeat it as Temporal does until the provider answers."""
    for _ in range(4):
        try:
            return await act()
        except ProviderTimeout:
            continue
    raise AssertionError("never answered")


@dataclass(frozen=True)
class Books:
    """An order's money, in our books and in the provider's. `charges` is how often money is still taken there."""

    status: str
    captured_cents: int
    refunded_cents: int
    settled_by: str | None
    hold_lapsed: bool
    due_cents: int | None
    held: int
    charges: int
    provider_captured: int
    provider_refunded: int

    @property
    def agree(self) -> bool:
        """Whether both say the same was paid; cash is not in the provider's."""
        by_card = self.captured_cents - self.refunded_cents if self.settled_by != "cash" else 0
        return self.provider_captured - self.provider_refunded == by_card and self.charges <= 1


async def books(database: Database, order_id: UUID) -> Books:
    async with database.transaction() as connection:
        ours = (await connection.execute(_OURS, {"order_id": order_id})).one()
        theirs = (await connection.execute(_THEIRS, {"order_id": order_id})).one()
    return Books(*ours, *theirs)


async def holds(database: Database, order_id: UUID) -> list[tuple[str, int]]:
    async with database.transaction() as connection:
        return [(row.status, row.amount_cents) for row in await connection.execute(_HOLDS, {"order_id": order_id})]


async def events_of(database: Database, order_id: UUID) -> list[str]:
    async with database.transaction() as connection:
        return [row.type for row in await connection.execute(_EVENTS, {"stream": f"payment-{order_id}"})]

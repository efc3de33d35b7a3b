"""What brings an order and its workflow together again, where a restored database and a restored Temporal tell
different stories.

Every step of the saga may be done again, and finds in the domains what was done before. So a workflow that is
gone is begun anew, one that is ahead of the database does all its steps once more, and one that has not heard of
the end of its order comes to the same end. What a saga that is lost was already ending can not begin again: that
is brought to its end in the domains, by the steps or the undos that were left.
"""

from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Literal
from uuid import UUID

from temporalio.client import Client

from domains.depot.messages import CancelShopping
from domains.depot.service import Depot
from domains.orders.messages import CancelOrder, CompleteOrder, OrderView, PlaceOrder
from domains.orders.service import Orders
from domains.payments.messages import CardPayment, CashPayment, PickupPayment, RefundPayment, VoidPayment
from domains.payments.service import Payments
from domains.stores.messages import ConsumeStock, ReleaseStock
from domains.stores.service import Stores
from kernel.database import Database
from kernel.errors import MallError, Unavailable
from kernel.messages import Cancellation, OrderLine
from mallbots.audit import MONEY, ORDER_OF_WORKFLOW, WORKFLOW_OF_ORDER, audit, broken_by
from mallbots.audit_look import Order, look_at
from mallbots.payment_provider import payment_provider
from mallbots.settings import DatabaseName, Settings
from mallbots.temporal import connect
from workflows.client import OrderSagas
from workflows.mending import repeat_from_start, status_of, until_approved
from workflows.messages import HandOver, OrderRequest, PickupRules

BY: Final = "mallbots mend"

Act = Literal[
    "begin",
    "repeat",
    "begin_and_cancel",
    "repeat_and_cancel",
    "cancel",
    "hand_over",
    "complete",
    "undo",
    "refund",
    "nothing",
]
"""What is done for an order: its workflow is begun anew, or does all its steps again; and then, or only, the order
is cancelled, or handed over for the record. Or, without a workflow, it is completed, undone, or refunded."""

ACTS: Final[dict[Act, str]] = {
    "begin": "its workflow was lost: it is begun anew",
    "repeat": "its workflow is ahead of Orders: it does all steps again",
    "begin_and_cancel": "its workflow was lost while items were missing: it is begun anew, to cancel the order",
    "repeat_and_cancel": "its workflow ended, and Orders has forgotten it: the order is cancelled again",
    "cancel": "it has ended, and its workflow has not heard of it: it is ended, too",
    "hand_over": "it was handed over, and its workflow has not heard of it: it is completed",
    "complete": "it was paid, and its workflow was lost: it is completed",
    "undo": "it was half undone, and its workflow was lost: all of it is undone",
    "refund": "its refund was not paid yet, and the workflow of that was lost: it is paid",
    "nothing": "it has ended, and Orders has forgotten it: look at its workflow, and book by hand what it says",
}

_APART: Final = (WORKFLOW_OF_ORDER, ORDER_OF_WORKFLOW)
_MENDED: Final = Cancellation(by="operator", reason="mended after a restore", name=BY)
_WITHIN: Final = timedelta(seconds=10)


@dataclass(frozen=True)
class Mended:
    """What was done for an order, or would be; `trouble` says why it could not be."""

    order_id: UUID
    act: Act
    trouble: str | None = None


async def mend(settings: Settings, *, only_say: bool, told: Callable[[Mended], None]) -> Counter[bool]:
    """Bring every order that the audit finds apart from its workflow together with it again, pay the refunds that
    lost theirs, and tell of each; how many went well (True) and how many did not. With `only_say` nothing is done.

    Run it again for what did not go well: nothing is done twice. Raises `Unavailable`, `Misconfigured`.
    """
    report = await audit(settings)
    found = {one.subject for one in report.findings if one.promise in (*_APART, MONEY)}
    client = await connect(settings)
    outcomes: Counter[bool] = Counter()
    orders = (await look_at(settings, client)).orders if found else {}
    async with AsyncExitStack() as stack:

        def database(name: DatabaseName) -> Database:
            opened = Database(name, settings.database_url(name), pool_size=2)
            stack.push_async_callback(opened.close)
            return opened

        mender = _Mender(settings, client, database)
        for order_id, order in orders.items():
            act = act_for(order)
            if act is None or str(order_id) not in found:
                continue
            mended = Mended(order_id, act)
            if not only_say:
                mended = await mender.mend(mended, order)
            outcomes[mended.trouble is None and mended.act != "nothing"] += 1
            told(mended)
    return outcomes


def act_for(order: Order) -> Act | None:
    """What brings an order together with its workflow; None if they are."""
    if order.status == "completed" and order.owes_refund:
        return "refund"
    if not any(promise in _APART for promise, _ in broken_by(order, provider_read=False)):
        return None
    live = order.status in ("pending", "approved", "ready")
    running = order.workflow is not None and order.workflow.name == "RUNNING"
    if live and not running:
        was_paid = order.payment == "captured" and (order.workflow is None or order.told == "completed")
        if was_paid or order.reservation == "consumed":
            return "complete"
        if order.status != "pending" and _is_half_undone(order):
            return "undo"
    if live and order.workflow is None:
        # The rounds of what was missing are counted by the workflow, and it would begin again with the first.
        unclear = "OrderAdjusted" in order.story and order.shopping_list != "completed"
        return "begin_and_cancel" if unclear else "begin"
    if running:
        if order.status == "completed":
            return "hand_over"
        return "repeat" if live or order.status is None else "cancel"
    if live:
        assert order.workflow is not None
        return "repeat" if order.told == "completed" else "repeat_and_cancel"
    return "nothing"


class _Mender:
    def __init__(self, settings: Settings, client: Client, database: Callable[[DatabaseName], Database]) -> None:
        self._settings = settings
        self._client = client
        self._sagas = OrderSagas(client)
        self._orders = Orders(database("orders"))
        self._stores = Stores(database("stores"))
        self._depot = Depot(database("depot"))
        self._payments = Payments(database("payments"), payment_provider(settings, database))

    async def mend(self, mended: Mended, order: Order) -> Mended:
        try:
            await self._do(mended, order)
        except MallError as error:
            return Mended(mended.order_id, mended.act, error.message)
        return mended

    async def _do(self, mended: Mended, order: Order) -> None:
        order_id = mended.order_id
        view = await self._orders.view(order_id)
        if mended.act == "refund":
            await self._refund(order_id)
            return
        # Temporal's list is a moment behind, and since we looked a kiosk may have sent its order again.
        if await status_of(self._client, order_id) != order.workflow:
            raise Unavailable("its workflow is not as it was when we looked: run it again")
        if mended.act in ("begin", "begin_and_cancel"):
            assert view is not None
            await self._begin(view)
        elif mended.act in ("repeat", "repeat_and_cancel"):
            await repeat_from_start(self._client, order_id, reason=f"by {BY}")
        elif mended.act == "hand_over":
            assert view is not None
            await self._hand_over(view, order)
        elif mended.act == "complete":
            assert view is not None
            await self._complete(view, order)
        elif mended.act == "undo":
            assert view is not None
            await self._undo(view)
        if mended.act in ("begin_and_cancel", "repeat_and_cancel", "cancel"):
            await self._cancel(order_id, begins=mended.act != "cancel")

    async def _begin(self, view: OrderView) -> None:
        if view.payment_method == "card" and await self._payments.view(view.order_id) is None:
            # Its card is on record nowhere: nothing is held, and the order is rejected.
            await self._payments.void(VoidPayment(order_id=view.order_id, reason=BY))
        request = _request(view, self._settings)
        await self._sagas.answer(request, summary=f"begun anew by {BY}, {view.kiosk}", timeout=_WITHIN)

    async def _hand_over(self, view: OrderView, order: Order) -> None:
        _must_be_paid(order)
        # What is paid already is not taken again, whatever is offered.
        offer = CashPayment(tendered_cents=view.total_cents or 0) if view.payment_method == "at_pickup" else None
        request = HandOver(pickup_code=view.pickup_code or "", payment=offer, by=view.completed_by or BY)
        done = await self._sagas.hand_over(view.order_id, request, attempt="mend", timeout=_WITHIN)
        if done is None:
            raise Unavailable("its workflow takes longer: run it again")

    async def _complete(self, view: OrderView, order: Order) -> None:
        _must_be_paid(order)
        await self._stores.consume(ConsumeStock(order_id=view.order_id))
        await self._orders.complete(CompleteOrder(order_id=view.order_id, by=BY))

    async def _undo(self, view: OrderView) -> None:
        """What the saga would do, in its order."""
        order_id = view.order_id
        dropped = await self._depot.cancel(CancelShopping(order_id=order_id, reason=BY))
        await self._payments.void(VoidPayment(order_id=order_id, reason=BY, refund_captured=True))
        await self._stores.release(ReleaseStock(order_id=order_id, reason=BY, carried=dropped.carried))
        await self._orders.cancel(CancelOrder(order=_placing(view), cancellation=_MENDED))

    async def _refund(self, order_id: UUID) -> None:
        for refund in await self._orders.refunds(order_id):
            command = RefundPayment(
                order_id=order_id,
                refund_id=refund.refund_id,
                amount_cents=refund.amount_cents,
                reason=refund.reason,
            )
            await self._payments.refund(command)

    async def _cancel(self, order_id: UUID, *, begins: bool) -> None:
        if begins and not await until_approved(self._client, order_id, timeout=_WITHIN):
            raise Unavailable("its workflow takes longer: cancel the order when it is approved")
        if not await self._sagas.cancel(order_id, _MENDED, timeout=_WITHIN):
            raise Unavailable("it takes longer until all is undone: run it again")


def _is_half_undone(order: Order) -> bool:
    undone = (order.shopping_list == "cancelled", order.payment == "voided", order.reservation == "released")
    return any(undone)


def _must_be_paid(order: Order) -> None:
    if order.payment != "captured":
        raise Unavailable(f"Payments says that it is {order.payment}, not captured: look at its payment first")


def _placing(view: OrderView) -> PlaceOrder:
    """The order as it was placed."""
    names = {"order_id", "kiosk", "customer", "payment_method", "currency"}
    return PlaceOrder(lines=_lines(view), **view.model_dump(include=names))


def _lines(view: OrderView) -> list[OrderLine]:
    return [OrderLine.model_validate(line.model_dump(exclude={"name"})) for line in view.lines]


def _request(view: OrderView, settings: Settings) -> OrderRequest:
    """The order as the kiosk sent it. The token of a card is not known, and not needed where it was used."""
    card = CardPayment(token="unknown")  # noqa: S106
    return OrderRequest(
        order_id=view.order_id,
        kiosk=view.kiosk,
        customer=view.customer,
        lines=_lines(view),
        payment=card if view.payment_method == "card" else PickupPayment(),
        currency=view.currency,
        pickup=PickupRules(
            window=timedelta(hours=settings.pickup_window_hours),
            reminders=[timedelta(hours=hours) for hours in settings.pickup_reminder_hours],
        ),
        silence=timedelta(seconds=settings.robot_silence),
    )

"""What brings an order and its workflow together again, where a restored database and a restored Temporal tell
different stories.

Every step of the saga may be done again, and finds in the domains what was done before. So a workflow that is
gone is begun anew, one that is ahead of the database does all its steps once more, and one that has not heard of
the end of its order comes to the same end.
"""

from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Literal
from uuid import UUID

from temporalio.client import Client

from domains.orders.messages import OrderView
from domains.orders.service import Orders
from domains.payments.messages import CardPayment, CashPayment, PickupPayment, VoidPayment
from domains.payments.service import Payments
from kernel.database import Database
from kernel.errors import MallError, Unavailable
from kernel.messages import Cancellation, OrderLine
from mallbots.audit import ORDER_OF_WORKFLOW, WORKFLOW_OF_ORDER, audit
from mallbots.audit_look import Order, look_at
from mallbots.payment_provider import payment_provider
from mallbots.settings import DatabaseName, Settings
from mallbots.temporal import connect
from workflows.client import OrderSagas
from workflows.mending import repeat_from_start, until_approved
from workflows.messages import HandOver, OrderRequest, PickupRules

BY: Final = "mallbots mend"

Act = Literal["begin", "repeat", "begin_and_cancel", "repeat_and_cancel", "cancel", "hand_over", "nothing"]
"""What is done for an order: its workflow is begun anew, or does all its steps again; and then, or only, the order
is cancelled, or handed over for the record."""

ACTS: Final[dict[Act, str]] = {
    "begin": "its workflow was lost: it is begun anew",
    "repeat": "its workflow is ahead of Orders: it does all steps again",
    "begin_and_cancel": "its workflow was lost while items were missing: it is begun anew, to cancel the order",
    "repeat_and_cancel": "its workflow ended, and Orders has forgotten it: the order is cancelled again",
    "cancel": "it has ended, and its workflow has not heard of it: it is ended, too",
    "hand_over": "it was handed over, and its workflow has not heard of it: it is completed",
    "nothing": "it has ended, and Orders has forgotten it: look at its workflow, and book by hand what it says",
}

_WITHIN: Final = timedelta(seconds=10)


@dataclass(frozen=True)
class Mended:
    """What was done for an order, or would be; `trouble` says why it could not be."""

    order_id: UUID
    act: Act
    trouble: str | None = None


async def mend(settings: Settings, *, only_say: bool, told: Callable[[Mended], None]) -> Counter[bool]:
    """Bring every order that the audit finds apart from its workflow together with it again, and tell of each; how
    many went well (True) and how many did not. With `only_say` nothing is done.

    Run it again for what did not go well: nothing is done twice. Raises `Unavailable`, `Misconfigured`.
    """
    report = await audit(settings)
    apart = {one.subject for one in report.findings if one.promise in (WORKFLOW_OF_ORDER, ORDER_OF_WORKFLOW)}
    client = await connect(settings)
    outcomes: Counter[bool] = Counter()
    orders = (await look_at(settings, client)).orders if apart else {}
    async with AsyncExitStack() as stack:

        def database(name: DatabaseName) -> Database:
            opened = Database(name, settings.database_url(name), pool_size=2)
            stack.push_async_callback(opened.close)
            return opened

        mender = _Mender(settings, client, database)
        for order_id, order in orders.items():
            if str(order_id) not in apart:
                continue
            mended = Mended(order_id, act_for(order))
            if not only_say:
                mended = await mender.mend(mended, order)
            outcomes[mended.trouble is None and mended.act != "nothing"] += 1
            told(mended)
    return outcomes


def act_for(order: Order) -> Act:
    """What brings an order together with its workflow."""
    live = order.status in ("pending", "approved", "ready")
    running = order.workflow is not None and order.workflow.name == "RUNNING"
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
        if mended.act in ("begin", "begin_and_cancel"):
            assert view is not None
            await self._begin(view, order)
        elif mended.act in ("repeat", "repeat_and_cancel"):
            await repeat_from_start(self._client, order_id, reason=f"by {BY}")
        elif mended.act == "hand_over":
            assert view is not None
            await self._hand_over(view, order)
        if mended.act in ("begin_and_cancel", "repeat_and_cancel", "cancel"):
            await self._cancel(order_id, begins=mended.act != "cancel")

    async def _begin(self, view: OrderView, order: Order) -> None:
        if view.payment_method == "card" and order.payment is None:
            # Its card is on record nowhere: nothing is held, and the order is rejected.
            await self._payments.void(VoidPayment(order_id=view.order_id, reason=BY))
        request = _request(view, self._settings)
        await self._sagas.answer(request, summary=f"begun anew by {BY}, {view.kiosk}", timeout=_WITHIN)

    async def _hand_over(self, view: OrderView, order: Order) -> None:
        if order.payment != "captured":
            raise Unavailable(f"Payments says that it is {order.payment}, not captured: look at its payment first")
        # What is paid already is not taken again, whatever is offered.
        offer = CashPayment(tendered_cents=view.total_cents or 0) if view.payment_method == "at_pickup" else None
        request = HandOver(pickup_code=view.pickup_code or "", payment=offer, by=view.completed_by or BY)
        done = await self._sagas.hand_over(view.order_id, request, attempt="mend", timeout=_WITHIN)
        if done is None:
            raise Unavailable("its workflow takes longer: run it again")

    async def _cancel(self, order_id: UUID, *, begins: bool) -> None:
        cancellation = Cancellation(by="operator", reason="mended after a restore", name=BY)
        if begins and not await until_approved(self._client, order_id, timeout=_WITHIN):
            raise Unavailable("its workflow takes longer: cancel the order when it is approved")
        if not await self._sagas.cancel(order_id, cancellation, timeout=_WITHIN):
            raise Unavailable("it takes longer until all is undone: run it again")


def _request(view: OrderView, settings: Settings) -> OrderRequest:
    """The order as the kiosk sent it. The token of a card is not known, and not needed where it was used."""
    card = CardPayment(token="unknown")  # noqa: S106
    return OrderRequest(
        order_id=view.order_id,
        kiosk=view.kiosk,
        customer=view.customer,
        lines=[OrderLine.model_validate(line.model_dump(exclude={"name"})) for line in view.lines],
        payment=card if view.payment_method == "card" else PickupPayment(),
        currency=view.currency,
        pickup=PickupRules(
            window=timedelta(hours=settings.pickup_window_hours),
            reminders=[timedelta(hours=hours) for hours in settings.pickup_reminder_hours],
        ),
        silence=timedelta(seconds=settings.robot_silence),
    )

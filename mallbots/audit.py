"""The audit: what every domain, the payment provider and Temporal say of each order, held against each other.

It only reads. What is under way looks different from one database to the next, so a finding counts only if it is
still there on a second and a third look.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from temporalio.client import Client, WorkflowExecutionStatus

from mallbots.audit_look import Look, Order, look_at
from mallbots.settings import Settings
from mallbots.temporal import connect
from workflows.steps import PLACE

LOOKS: Final = 3
BETWEEN_LOOKS: Final = 1.0

ONE_STORY: Final = "every order has one story, with one end"
WORKFLOW_OF_ORDER: Final = "every live order has its running workflow"
ORDER_OF_WORKFLOW: Final = "every workflow has its order, and ends with it"
ONE_CHARGE: Final = "an order is charged at most once"
MONEY: Final = "what is held or was taken is what the order costs"
STOCK: Final = "reserved stock is the sum of live orders"
SHELVES: Final = "stock on hand is what was received, less what left"
LISTS: Final = "only live orders have a shopping list"
EVENTS: Final = "every stream of events is without gap"
PUBLISHED: Final = "every event is published once, in order"
LOGS: Final = "every log goes on behind what was read of it"
PROMISES: Final = (
    ONE_STORY,
    WORKFLOW_OF_ORDER,
    ORDER_OF_WORKFLOW,
    ONE_CHARGE,
    MONEY,
    STOCK,
    SHELVES,
    LISTS,
    EVENTS,
    PUBLISHED,
    LOGS,
)

_SIGNS: Final = {
    "OrderPlaced": "P",
    "OrderApproved": "A",
    "OrderAdjusted": "J",
    "OrderReadied": "R",
    "PickupReminded": "M",
    "OrderCompleted": "C",
    "OrderRejected": "X",
    "OrderCancelled": "K",
    "OrderExpired": "E",
    "OrderRefunded": "F",
    "OrderRefundWithdrawn": "W",
}
STORIES: Final = {
    "pending": "P",
    "approved": "PAJ*",
    "ready": "PAJ*RM*",
    "completed": "PAJ*RM*C[FW]*",
    "rejected": "PX",
    "cancelled": "P(AJ*(RM*)?)?K",
    "expired": "PAJ*RM*E",
}
"""For each status of an order the events that lead to it, each type a sign, as a regular expression."""

_LIVE: Final = ("pending", "approved", "ready")
_REACHED: Final = {"pending": 0, "approved": 1, "shopping": 1, "ready": 2}
"""How far a live order is, by what Orders or its workflow calls that."""
_NEVER_HELD: Final = ("unanswered", "declined")
_BEING_SHOPPED: Final = ("scheduled", "released", "assigned", "collected", "completed")


@dataclass(frozen=True)
class Finding:
    """A promise that is broken, for whom (an order's id, a sku, a stream), and how."""

    promise: str
    subject: str
    detail: str


@dataclass
class AuditReport:
    """How many subjects were held against each promise, and the findings. `under_way` counts running workflows;
    `stuck` those of them that need a person."""

    checked: Counter[str]
    findings: list[Finding]
    under_way: int
    stuck: int

    @property
    def clean(self) -> bool:
        return not self.findings


async def audit(settings: Settings) -> AuditReport:
    """Hold every promise that data can show against the data of all domains, the provider and Temporal.

    Raises `Unavailable` if any of them does not answer, `Misconfigured` if one has no URL.
    """
    client = await connect(settings)
    report, found = await _look_once(settings, client)
    for _ in range(1, LOOKS):
        if not found:
            break
        await asyncio.sleep(BETWEEN_LOOKS)
        report, again = await _look_once(settings, client)
        found = {key: finding for key, finding in again.items() if key in found}
    report.findings = list(found.values())
    return report


async def _look_once(settings: Settings, client: Client) -> tuple[AuditReport, dict[tuple[str, str], Finding]]:
    look = await look_at(settings, client)
    others = {STOCK: len(look.stock), SHELVES: len(look.stock), EVENTS: look.streams, PUBLISHED: look.published}
    others[LOGS] = look.logs
    checked = Counter(dict.fromkeys(PROMISES, len(look.orders)) | others)
    under_way = sum(order.workflow == WorkflowExecutionStatus.RUNNING for order in look.orders.values())
    report = AuditReport(checked, [], under_way, look.stuck)
    return report, {(finding.promise, finding.subject): finding for finding in _findings(look)}


def _findings(look: Look) -> Iterator[Finding]:
    for order_id, order in look.orders.items():
        for promise, detail in broken_by(order, look.provider_read):
            yield Finding(promise, str(order_id), detail)
    for workflow_id in look.strangers:
        yield Finding(ORDER_OF_WORKFLOW, workflow_id, "its id names no order")
    for stock in look.stock:
        if stock.reserved != stock.held or not 0 <= stock.reserved <= stock.on_hand:
            detail = f"{stock.reserved} reserved of {stock.on_hand}, but orders hold {stock.held}"
            yield Finding(STOCK, f"sku {stock.sku}", detail)
        if stock.on_hand != stock.recorded:
            detail = f"{stock.on_hand} on hand, but {stock.recorded} by what was received, counted and consumed"
            yield Finding(SHELVES, f"sku {stock.sku}", detail)
    for domain, streams in look.gaps.items():
        for stream in streams:
            yield Finding(EVENTS, f"{domain} {stream}", "a version is missing")
    for subject, detail in look.unpublished:
        yield Finding(PUBLISHED, subject, detail)
    for log, detail in look.passed:
        yield Finding(LOGS, log, f"{detail}: `mallbots doctor` says how to mend it")


def broken_by(order: Order, provider_read: bool) -> Iterator[tuple[str, str]]:
    """The promises that are broken for one order, and how. What the provider has is held against our books only if
    its own were read."""
    running = order.workflow == WorkflowExecutionStatus.RUNNING
    live = order.status in _LIVE
    if order.status is not None or order.story:
        signs = "".join(_SIGNS.get(event, "?") for event in order.story)
        if not re.fullmatch(STORIES.get(order.status or "", "$^"), signs):
            yield ONE_STORY, f"{' → '.join(order.story)}, but its row says {order.status}"
    if live and not running:
        yield WORKFLOW_OF_ORDER, f"{order.status}, but its workflow is {_name(order.workflow)}"
    if order.workflow is not None and not running and (order.status is None or live):
        yield ORDER_OF_WORKFLOW, f"its workflow is {_name(order.workflow)}, the order is {order.status}"
    elif order.status is not None and not live and running:
        yield ORDER_OF_WORKFLOW, f"the order is {order.status}, but its workflow still runs"
    elif running and is_ahead(order):
        yield ORDER_OF_WORKFLOW, f"its workflow says {order.told}, and Orders says {order.status or 'nothing'}"
    elif order.status is None and order.has_traces:
        yield ORDER_OF_WORKFLOW, f"its workflow is {_name(order.workflow)}, and Orders does not know the order"
    yield from _charged_twice(order)
    if order.status is None and not running:
        yield from _left_over(order, "no order")
    elif order.status == "completed":
        yield from _unsettled(order, provider_read)
    elif order.status is not None and not live:
        yield from _left_over(order, f"{order.status} order")
    elif order.status in ("approved", "ready"):
        yield from _missing(order, provider_read)


def is_ahead(order: Order) -> bool:
    """Whether its running workflow has gone on from a step that Orders does not know. A step is in the database
    before its workflow hears of it, so the database is older than Temporal."""
    if order.status is None and order.stuck_at not in (None, PLACE.activity, *PLACE.undos):
        return True
    return _REACHED.get(order.told or "", 0) > _REACHED.get(order.status or "pending", max(_REACHED.values()))


def _charged_twice(order: Order) -> Iterator[tuple[str, str]]:
    holds = sum(charge.attempt is None and charge.status not in _NEVER_HELD for charge in order.charges)
    taken = sum(charge.captured_cents > charge.refunded_cents for charge in order.charges)
    if max(holds, order.authorizations) > 1:
        yield ONE_CHARGE, f"{holds} holds at the provider, {order.authorizations} authorizations"
    if max(taken, order.captures) > 1:
        yield ONE_CHARGE, f"charged {taken} times at the provider, {order.captures} captures"


def _left_over(order: Order, of: str) -> Iterator[tuple[str, str]]:
    if order.payment == "authorized" or any(charge.status == "held" for charge in order.charges):
        yield MONEY, f"still held for {of}"
    taken = order.captured_cents - order.refunded_cents
    at_provider = sum(charge.captured_cents - charge.refunded_cents for charge in order.charges)
    if taken or at_provider:
        yield MONEY, f"{taken} taken for {of}, {at_provider} by the provider"
    if order.reservation in ("held", "consumed"):
        yield STOCK, f"still {order.reservation} for {of}"
    if order.shopping_list not in (None, "cancelled"):
        yield LISTS, f"still {order.shopping_list} for {of}"


def _unsettled(order: Order, provider_read: bool) -> Iterator[tuple[str, str]]:
    """What is wrong with an order that was handed over: captured − refunded is its total less its refunds."""
    if (order.payment, order.captured_cents) != ("captured", order.total_cents):
        yield MONEY, f"total {order.total_cents}, payment {order.payment} of {order.captured_cents}"
    if order.refunded_cents != order.given_back_cents and not order.is_refunding:
        yield MONEY, f"{order.given_back_cents} to give back, {order.refunded_cents} refunded"
    ours = 0 if order.settled_by == "cash" else order.captured_cents - order.refunded_cents
    taken = sum(charge.captured_cents - charge.refunded_cents for charge in order.charges)
    if provider_read and not order.is_refunding and taken != ours:
        yield MONEY, f"{ours} taken from a card in our books, {taken} in the provider's"
    if any(charge.status == "held" for charge in order.charges):
        yield MONEY, "still held for completed order"
    if (order.reservation, order.reserved_cents) != ("consumed", order.total_cents):
        yield STOCK, f"total {order.total_cents}, reservation {order.reservation} of {order.reserved_cents}"
    if order.shopping_list != "completed":
        yield LISTS, f"completed, but its list is {order.shopping_list}"


def _missing(order: Order, provider_read: bool) -> Iterator[tuple[str, str]]:
    """What an order lacks that was promised to a customer."""
    if (order.payment, order.authorized_cents) != ("authorized", order.total_cents):
        yield MONEY, f"total {order.total_cents}, payment {order.payment} of {order.authorized_cents}"
    held = [charge.amount_cents for charge in order.charges if charge.status == "held"]
    # Before a card at the desk is tried, the hold is let go.
    let_go = order.hold_lapsed or any(charge.attempt is not None for charge in order.charges)
    should_hold = [order.total_cents] if order.total_cents and not let_go else []
    if order.method == "card" and provider_read and held != should_hold:
        yield MONEY, f"total {order.total_cents}, but the provider holds {held}"
    if (order.reservation, order.reserved_cents) != ("held", order.total_cents):
        yield STOCK, f"total {order.total_cents}, reservation {order.reservation} of {order.reserved_cents}"
    if order.shopping_list not in (_BEING_SHOPPED if order.status == "approved" else ("completed",)):
        yield LISTS, f"{order.status}, but its list is {order.shopping_list}"


def _name(status: WorkflowExecutionStatus | None) -> str:
    return status.name.lower() if status else "missing"

"""The audit: what every domain, the payment provider and Temporal say of each order, held against each other.

It only reads. What is under way looks different from one database to the next, so a finding counts only if it is
still there on a second and a third look.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError

from events.consumer import DOMAINS
from events.recorded import START, LogPosition, RecordedEvent
from events.stream import connected, follow, last_sequence
from kernel.database import Database
from kernel.errors import Unavailable
from kernel.messages import DomainName
from mallbots.settings import DatabaseName, Settings
from mallbots.temporal import connect

LOOKS: Final = 3
BETWEEN_LOOKS: Final = 1.0

ONE_STORY: Final = "every order has one story, with one end"
WORKFLOW_OF_ORDER: Final = "every live order has its running workflow"
ORDER_OF_WORKFLOW: Final = "every workflow has its order, and ends with it"
ONE_CHARGE: Final = "an order is charged at most once"
MONEY: Final = "what is held is the total of a live order"
STOCK: Final = "reserved stock is the sum of live orders"
LISTS: Final = "only live orders have a shopping list"
EVENTS: Final = "every stream of events is without gap"
PUBLISHED: Final = "every event is published once, in order"
PROMISES: Final = (
    ONE_STORY,
    WORKFLOW_OF_ORDER,
    ORDER_OF_WORKFLOW,
    ONE_CHARGE,
    MONEY,
    STOCK,
    LISTS,
    EVENTS,
    PUBLISHED,
)

STORIES: Final = {
    ("OrderPlaced",): "pending",
    ("OrderPlaced", "OrderApproved"): "approved",
    ("OrderPlaced", "OrderRejected"): "rejected",
    ("OrderPlaced", "OrderCancelled"): "cancelled",
    ("OrderPlaced", "OrderApproved", "OrderCancelled"): "cancelled",
}
"""Every story that an order can have, and the status that it leaves the order in."""

_LIVE: Final = ("pending", "approved")


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


@dataclass
class _Order:
    """All that is known of one order."""

    story: tuple[str, ...] = ()
    status: str | None = None
    total_cents: int | None = None
    workflow: WorkflowExecutionStatus | None = None
    authorizations: int = 0
    payment: str | None = None
    method: str | None = None
    authorized_cents: int | None = None
    holds: list[tuple[str, int]] = field(default_factory=list)
    reservation: str | None = None
    reserved_cents: int = 0
    shopping_list: str | None = None

    @property
    def has_traces(self) -> bool:
        """Whether any domain but Orders, or the provider, knows of it. They are told after Orders."""
        return bool(self.reservation or self.payment or self.holds or self.shopping_list)


@dataclass
class _Look:
    """Everything, read once."""

    orders: defaultdict[UUID, _Order] = field(default_factory=lambda: defaultdict(_Order))
    stock: list[tuple[str, int, int, int]] = field(default_factory=list)
    gaps: dict[DomainName, list[str]] = field(default_factory=dict)
    strangers: list[str] = field(default_factory=list)
    streams: int = 0
    stuck: int = 0
    published: int = 0
    unpublished: list[tuple[str, str]] = field(default_factory=list)


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
    look = _Look()
    await _read_workflows(client, look)
    for read in (_read_orders, _read_stores, _read_payments, _read_sandbox, _read_depot, _read_stream):
        await read(settings, look)
    others = {STOCK: len(look.stock), EVENTS: look.streams, PUBLISHED: look.published}
    checked = Counter(dict.fromkeys(PROMISES, len(look.orders)) | others)
    under_way = sum(order.workflow == WorkflowExecutionStatus.RUNNING for order in look.orders.values())
    report = AuditReport(checked, [], under_way, look.stuck)
    return report, {(finding.promise, finding.subject): finding for finding in _findings(look)}


def _findings(look: _Look) -> Iterator[Finding]:
    for order_id, order in look.orders.items():
        for promise, detail in _broken_by(order):
            yield Finding(promise, str(order_id), detail)
    for workflow_id in look.strangers:
        yield Finding(ORDER_OF_WORKFLOW, workflow_id, "its id names no order")
    for sku, on_hand, reserved, held in look.stock:
        if reserved != held or not 0 <= reserved <= on_hand:
            yield Finding(STOCK, f"sku {sku}", f"{reserved} reserved of {on_hand}, but orders hold {held}")
    for domain, streams in look.gaps.items():
        for stream in streams:
            yield Finding(EVENTS, f"{domain} {stream}", "a version is missing")
    for subject, detail in look.unpublished:
        yield Finding(PUBLISHED, subject, detail)


def _broken_by(order: _Order) -> Iterator[tuple[str, str]]:
    """The promises that are broken for one order, and how."""
    running = order.workflow == WorkflowExecutionStatus.RUNNING
    live = order.status in _LIVE
    if STORIES.get(order.story) != order.status:
        yield ONE_STORY, f"{' → '.join(order.story)}, but its row says {order.status}"
    if live and not running:
        yield WORKFLOW_OF_ORDER, f"{order.status}, but its workflow is {_name(order.workflow)}"
    if order.workflow is not None and not running and (order.status is None or live):
        yield ORDER_OF_WORKFLOW, f"its workflow is {_name(order.workflow)}, the order is {order.status}"
    elif order.status is not None and not live and running:
        yield ORDER_OF_WORKFLOW, f"the order is {order.status}, but its workflow still runs"
    elif order.status is None and order.has_traces:
        yield ORDER_OF_WORKFLOW, f"its workflow is {_name(order.workflow)}, and Orders does not know the order"
    charges = sum(status in {"held", "voided"} for status, _ in order.holds)
    if charges > 1 or order.authorizations > 1:
        yield ONE_CHARGE, f"{charges} holds at the provider, {order.authorizations} authorizations"
    if order.status is None and not running:
        yield from _left_over(order, "no order")
    elif order.status is not None and not live:
        yield from _left_over(order, f"{order.status} order")
    elif order.status == "approved":
        yield from _missing(order)


def _left_over(order: _Order, of: str) -> Iterator[tuple[str, str]]:
    if order.payment == "authorized" or any(status == "held" for status, _ in order.holds):
        yield MONEY, f"still held for {of}"
    if order.reservation == "held":
        yield STOCK, f"still reserved for {of}"
    if order.shopping_list == "scheduled":
        yield LISTS, f"still scheduled for {of}"


def _missing(order: _Order) -> Iterator[tuple[str, str]]:
    if (order.payment, order.authorized_cents) != ("authorized", order.total_cents):
        yield MONEY, f"total {order.total_cents}, payment {order.payment} of {order.authorized_cents}"
    held = [amount for status, amount in order.holds if status == "held"]
    if order.method == "card" and held != [order.total_cents]:
        yield MONEY, f"total {order.total_cents}, but the provider holds {held}"
    if (order.reservation, order.reserved_cents) != ("held", order.total_cents):
        yield STOCK, f"total {order.total_cents}, reservation {order.reservation} of {order.reserved_cents}"
    if order.shopping_list != "scheduled":
        yield LISTS, f"approved, but its list is {order.shopping_list}"


def _name(status: WorkflowExecutionStatus | None) -> str:
    return status.name.lower() if status else "missing"


async def _read_workflows(client: Client, look: _Look) -> None:
    try:
        async for workflow in client.list_workflows("WorkflowType = 'Order'"):
            try:
                order = look.orders[_id_in(workflow.id)]
            except ValueError:
                look.strangers.append(workflow.id)
                continue
            # A workflow that was reset has a run that was terminated, too.
            if order.workflow != WorkflowExecutionStatus.RUNNING:
                order.workflow = workflow.status
        count = await client.count_workflows("WorkflowType = 'Order' AND Stuck IS NOT NULL")
        look.stuck = count.count
    except RPCError as error:
        raise Unavailable(f"Temporal does not answer: {error.message}") from error


async def _read_orders(settings: Settings, look: _Look) -> None:
    async with _reading(settings, "orders") as read:
        for row in await read("SELECT id, status, total_cents FROM orders.orders"):
            look.orders[row.id].status, look.orders[row.id].total_cents = row.status, row.total_cents
        stories = "SELECT stream, array_agg(type ORDER BY version) AS story FROM orders.events GROUP BY stream"
        for row in await read(stories):
            look.orders[_id_in(row.stream)].story = tuple(row.story)
        await _read_gaps("orders", read, look)


async def _read_stores(settings: Settings, look: _Look) -> None:
    async with _reading(settings, "stores") as read:
        reservations = (
            "SELECT order_id, status, sum(quantity * unit_price_cents)::bigint AS cents"
            " FROM stores.reservations LEFT JOIN stores.reservation_lines USING (order_id) GROUP BY order_id"
        )
        for row in await read(reservations):
            order = look.orders[row.order_id]
            order.reservation, order.reserved_cents = row.status, row.cents or 0
        stock = (
            "SELECT sku, on_hand, reserved, coalesce(held.pieces, 0) AS held FROM stores.stock LEFT JOIN ("
            "  SELECT sku, sum(quantity)::int AS pieces FROM stores.reservation_lines"
            "  JOIN stores.reservations USING (order_id) WHERE status = 'held' GROUP BY sku"
            ") AS held USING (sku)"
        )
        look.stock = [(row.sku, row.on_hand, row.reserved, row.held) for row in await read(stock)]
        await _read_gaps("stores", read, look)


async def _read_payments(settings: Settings, look: _Look) -> None:
    async with _reading(settings, "payments") as read:
        for row in await read("SELECT order_id, status, method, authorized_cents FROM payments.payments"):
            order = look.orders[row.order_id]
            order.payment, order.method, order.authorized_cents = row.status, row.method, row.authorized_cents
        authorizations = (
            "SELECT stream, count(*) AS number FROM payments.events"
            " WHERE type = 'PaymentAuthorized' GROUP BY stream"
        )
        for row in await read(authorizations):
            look.orders[_id_in(row.stream)].authorizations = row.number
        await _read_gaps("payments", read, look)


async def _read_sandbox(settings: Settings, look: _Look) -> None:
    async with _reading(settings, "sandbox") as read:
        for row in await read("SELECT order_id, status, amount_cents FROM sandbox.holds"):
            look.orders[row.order_id].holds.append((row.status, row.amount_cents))


async def _read_depot(settings: Settings, look: _Look) -> None:
    async with _reading(settings, "depot") as read:
        for row in await read("SELECT order_id, status FROM depot.shopping_lists"):
            look.orders[row.order_id].shopping_list = row.status
        await _read_gaps("depot", read, look)


async def _read_stream(settings: Settings, look: _Look) -> None:
    """Hold the stream against the domains' tables, as far back as it reaches. Without NATS nothing is checked."""
    if settings.nats_url is None:
        return
    published = await whole_stream(settings.nats_address())
    for domain in DOMAINS:
        found = [event for event in published if event.domain == domain]
        recorded = await _recorded_since(settings, domain, found[0].position if found else START)
        look.published += len(found)
        look.unpublished += [(f"{domain} {event_id}", detail) for event_id, detail in _compare(found, recorded)]


def _compare(published: list[RecordedEvent], recorded: list[UUID]) -> Iterator[tuple[UUID, str]]:
    times = Counter(event.id for event in published)
    yield from ((event_id, f"published {number} times") for event_id, number in times.items() if number > 1)
    yield from ((event_id, "not published") for event_id in recorded if event_id not in times)
    known = set(recorded)
    yield from ((event_id, "published, but not recorded") for event_id in times if event_id not in known)
    for before, after in pairwise(published):
        if after.position < before.position:
            yield after.id, f"published behind {before.id}, which was recorded later"


async def whole_stream(nats_url: str) -> list[RecordedEvent]:
    """Every event that is in the stream now, in its order. Raises `Unavailable`."""
    events: list[RecordedEvent] = []
    async with connected(nats_url, "audit") as nats:
        last = await last_sequence(nats.jetstream)
        async with aclosing(follow(nats, 0)) as batches:
            async for batch in batches:
                events += batch
                if not batch or (events[-1].sequence or 0) >= last:
                    return [event for event in events if (event.sequence or 0) <= last]
    return events


async def _recorded_since(settings: Settings, domain: DomainName, position: LogPosition) -> list[UUID]:
    async with _reading(settings, domain) as read:
        since = f"({position.transaction_id}, {position.number})"
        rows = await read(f"SELECT id FROM {domain}.events WHERE (transaction_id, position) >= {since}")
        return [row.id for row in rows]


async def _read_gaps(domain: DomainName, read: Any, look: _Look) -> None:
    streams = f"SELECT stream, max(version) <> count(*) AS has_gap FROM {domain}.events GROUP BY stream"
    rows = await read(streams)
    look.streams += len(rows)
    look.gaps[domain] = [row.stream for row in rows if row.has_gap]


@asynccontextmanager
async def _reading(settings: Settings, name: DatabaseName) -> AsyncIterator[Any]:
    """A function that runs queries, all on one snapshot of one database."""
    database = Database(name, settings.database_url(name), pool_size=1, statement_timeout=60)
    try:
        async with database.transaction() as connection:
            await connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))

            async def read(query: str) -> Any:
                return (await connection.execute(text(query))).all()

            yield read
    finally:
        await database.close()


def _id_in(stream: str) -> UUID:
    return UUID(stream.partition("-")[2])

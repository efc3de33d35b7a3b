"""Everything that the audit holds against each other, read once: of each order, and of what belongs to none."""

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
from mallbots.event_views import log_numbering
from mallbots.settings import DatabaseName, Settings
from workflows.attributes import ORDER_STATUS, STUCK


@dataclass(frozen=True)
class Charge:
    """What the provider has of an order: a hold on its card, or what was taken from a card at the desk (`attempt`
    says in which attempt)."""

    status: str
    attempt: int | None
    amount_cents: int
    captured_cents: int
    refunded_cents: int


@dataclass
class Order:
    """All that is known of one order. `given_back_cents` is what Orders says of refunds; `told` and `stuck_at` are
    the status that its running workflow told last, and the activity that it is stuck at."""

    story: tuple[str, ...] = ()
    status: str | None = None
    total_cents: int | None = None
    given_back_cents: int = 0
    is_refunding: bool = False
    workflow: WorkflowExecutionStatus | None = None
    told: str | None = None
    stuck_at: str | None = None
    authorizations: int = 0
    captures: int = 0
    payment: str | None = None
    method: str | None = None
    settled_by: str | None = None
    authorized_cents: int | None = None
    captured_cents: int = 0
    refunded_cents: int = 0
    hold_lapsed: bool = False
    charges: list[Charge] = field(default_factory=list)
    reservation: str | None = None
    reserved_cents: int = 0
    shopping_list: str | None = None

    @property
    def owes_refund(self) -> bool:
        """Whether Orders says that more is given back than Payments has paid, and nobody is at it."""
        return self.given_back_cents > self.refunded_cents and not self.is_refunding

    @property
    def has_traces(self) -> bool:
        """Whether any domain but Orders, or the provider, knows of it. They are told after Orders."""
        return bool(self.reservation or self.payment or self.charges or self.shopping_list)


@dataclass(frozen=True)
class Stock:
    """The pieces of a product: on the shelf and reserved as the row says, held for orders or carried back by
    robots, and what its events add up to: received, corrected by, and consumed."""

    sku: str
    on_hand: int
    reserved: int
    held: int
    recorded: int


@dataclass
class Look:
    """Everything, read once. `strangers` are workflows whose id names no order, `refunding` the refunds that are
    under way, `provider_read` whether the provider's own books were read, `passed` the logs whose new events would
    stand before what was read of them."""

    orders: defaultdict[UUID, Order] = field(default_factory=lambda: defaultdict(Order))
    provider_read: bool = False
    refunding: set[UUID] = field(default_factory=set)
    stock: list[Stock] = field(default_factory=list)
    gaps: dict[DomainName, list[str]] = field(default_factory=dict)
    strangers: list[str] = field(default_factory=list)
    streams: int = 0
    stuck: int = 0
    published: int = 0
    unpublished: list[tuple[str, str]] = field(default_factory=list)
    logs: int = 0
    passed: list[tuple[str, str]] = field(default_factory=list)


_STOCK: Final = """
SELECT sku, on_hand, reserved, coalesce(held.pieces, 0) + coalesce(carried.pieces, 0) AS held,
    coalesce(recorded.pieces, 0) - coalesce(consumed.pieces, 0) AS recorded
FROM stores.stock
LEFT JOIN (
    SELECT sku, sum(quantity)::int AS pieces FROM stores.reservation_lines
    JOIN stores.reservations USING (order_id) WHERE status = 'held' GROUP BY sku
) AS held USING (sku)
LEFT JOIN (
    SELECT sku, sum(quantity - returned)::int AS pieces FROM stores.carried WHERE quantity > returned GROUP BY sku
) AS carried USING (sku)
LEFT JOIN (
    SELECT data->>'sku' AS sku, sum(coalesce(data->>'difference', data->>'quantity')::int)::int AS pieces
    FROM stores.all_events WHERE type IN ('StockReceived', 'StockCorrected') GROUP BY 1
) AS recorded USING (sku)
LEFT JOIN (
    SELECT line->>'sku' AS sku, sum((line->>'quantity')::int)::int AS pieces
    FROM stores.all_events, jsonb_array_elements(data->'lines') AS line WHERE type = 'StockConsumed' GROUP BY 1
) AS consumed USING (sku)
"""


async def look_at(settings: Settings, client: Client) -> Look:
    """Read everything once. Raises `Unavailable` if a part does not answer, `Misconfigured` if one has no URL."""
    look = Look()
    await _read_workflows(client, look)
    for read in (_read_orders, _read_stores, _read_payments, _read_sandbox, _read_depot, _read_logs, _read_stream):
        await read(settings, look)
    return look


async def _read_workflows(client: Client, look: Look) -> None:
    try:
        async for workflow in client.list_workflows("WorkflowType = 'Order'"):
            try:
                order = look.orders[_id_in(workflow.id)]
            except ValueError:
                look.strangers.append(workflow.id)
                continue
            # A workflow that was reset has older runs, too: they are listed behind it.
            if order.workflow is None or workflow.status == WorkflowExecutionStatus.RUNNING:
                order.workflow = workflow.status
                order.told = workflow.typed_search_attributes.get(ORDER_STATUS)
                order.stuck_at = workflow.typed_search_attributes.get(STUCK)
        async for workflow in client.list_workflows("WorkflowType = 'Refund' AND ExecutionStatus = 'Running'"):
            look.refunding.add(_id_in(workflow.id))
        count = await client.count_workflows("WorkflowType = 'Order' AND Stuck IS NOT NULL")
        look.stuck = count.count
    except RPCError as error:
        raise Unavailable(f"Temporal does not answer: {error.message}") from error


async def _read_orders(settings: Settings, look: Look) -> None:
    async with _reading(settings, "orders") as read:
        for row in await read("SELECT id, status, total_cents FROM orders.orders"):
            look.orders[row.id].status, look.orders[row.id].total_cents = row.status, row.total_cents
        stories = "SELECT stream, array_agg(type ORDER BY version) AS story FROM orders.all_events GROUP BY stream"
        for row in await read(stories):
            look.orders[_id_in(row.stream)].story = tuple(row.story)
        refunds = (
            "SELECT stream, (data->>'refund_id')::uuid AS refund_id, (data->>'amount_cents')::bigint AS cents"
            " FROM orders.all_events AS refunded"
            " WHERE type = 'OrderRefunded' AND NOT EXISTS (SELECT 1 FROM orders.all_events AS withdrawn"
            "  WHERE withdrawn.type = 'OrderRefundWithdrawn' AND withdrawn.stream = refunded.stream"
            "  AND withdrawn.data->>'refund_id' = refunded.data->>'refund_id')"
        )
        for row in await read(refunds):
            order = look.orders[_id_in(row.stream)]
            order.given_back_cents += row.cents
            order.is_refunding |= row.refund_id in look.refunding
        await _read_gaps("orders", read, look)


async def _read_stores(settings: Settings, look: Look) -> None:
    async with _reading(settings, "stores") as read:
        reservations = (
            "SELECT order_id, status, sum(quantity * unit_price_cents)::bigint AS cents"
            " FROM stores.reservations LEFT JOIN stores.reservation_lines USING (order_id) GROUP BY order_id"
        )
        for row in await read(reservations):
            order = look.orders[row.order_id]
            order.reservation, order.reserved_cents = row.status, row.cents or 0
        look.stock = [Stock(**row._mapping) for row in await read(_STOCK)]
        await _read_gaps("stores", read, look)


async def _read_payments(settings: Settings, look: Look) -> None:
    async with _reading(settings, "payments") as read:
        columns = "method, settled_by, authorized_cents, captured_cents, refunded_cents, hold_lapsed"
        for row in await read(f"SELECT order_id, status, {columns} FROM payments.payments"):
            order = look.orders[row.order_id]
            order.payment = row.status
            for column in columns.split(", "):
                setattr(order, column, getattr(row, column))
        numbers = (
            "SELECT stream, count(*) FILTER (WHERE type = 'PaymentAuthorized') AS authorizations,"
            " count(*) FILTER (WHERE type = 'PaymentCaptured') AS captures"
            " FROM payments.all_events GROUP BY stream"
        )
        for row in await read(numbers):
            order = look.orders[_id_in(row.stream)]
            order.authorizations, order.captures = row.authorizations, row.captures
        await _read_gaps("payments", read, look)


async def _read_sandbox(settings: Settings, look: Look) -> None:
    """The provider's own books; those of another provider are not ours to read."""
    if settings.payment_provider != "sandbox":
        return
    look.provider_read = True
    async with _reading(settings, "sandbox") as read:
        columns = "status, attempt, amount_cents, captured_cents, refunded_cents"
        for row in await read(f"SELECT order_id, {columns} FROM sandbox.holds"):
            charge = {name: value for name, value in row._mapping.items() if name != "order_id"}
            look.orders[row.order_id].charges.append(Charge(**charge))


async def _read_depot(settings: Settings, look: Look) -> None:
    async with _reading(settings, "depot") as read:
        for row in await read("SELECT order_id, status FROM depot.shopping_lists"):
            look.orders[row.order_id].shopping_list = row.status
        await _read_gaps("depot", read, look)


async def _read_logs(settings: Settings, look: Look) -> None:
    """Hold the numbers of each log and of its readers against those that its server gives next."""
    for domain, numbers in (await log_numbering(settings)).items():
        look.logs += 1
        if numbers.is_behind:
            look.passed.append((domain, f"read up to transaction {numbers.last}, but the next is {numbers.next}"))


async def _read_stream(settings: Settings, look: Look) -> None:
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
        rows = await read(f"SELECT id FROM {domain}.all_events WHERE (transaction_id, position) >= {since}")
        return [row.id for row in rows]


async def _read_gaps(domain: DomainName, read: Any, look: Look) -> None:
    streams = f"SELECT stream, max(version) <> count(*) AS has_gap FROM {domain}.all_events GROUP BY stream"
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

"""What was ever written is still understood: every event, at every schema version, from the table and from NATS.

`tests/data/events.jsonl` holds events as the code of their day wrote them. A new schema version adds lines to it;
none is ever changed.
"""

import builtins
import json
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID

import pytest
from pydantic import BaseModel, ValidationError
from sqlalchemy import text

from domains.orders.messages import EVENTS, OrderApproved, OrderPlaced, OrderRejected, OrderView
from domains.orders.service import Orders
from domains.published import PUBLISHED
from events.event import Event, renamed
from events.log import EventLog
from events.recorded import START, RecordedEvent
from events.store import EventStore
from kernel.database import Database
from kernel.errors import Refusal
from kernel.ids import new_id
from kernel.messages import DomainName, OrderLine
from mallbots.event_docs.examples import example_of, headers_of
from tests.samples import priced

FILE = Path(__file__).parents[1] / "data" / "events.jsonl"


class Written(BaseModel):
    """A line of the file: an event as it was written."""

    domain: DomainName
    type: str
    schema_version: int
    data: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.type}-{self.schema_version}"

    @property
    def kind(self) -> builtins.type[Event]:
        """Today's class of the event."""
        return next(kind for kind in PUBLISHED[self.domain].events if kind.__name__ == self.type)


LINES = [Written.model_validate_json(line) for line in FILE.read_text().splitlines()]
NEWEST = [line for line in LINES if line.schema_version == line.kind.schema_version]


def keeps(now: Any, then: Any) -> bool:
    """Whether all that was written then is written now; fields may have come since."""
    match now, then:
        case dict(), dict():
            return all(name in now and keeps(now[name], value) for name, value in then.items())
        case list(), list():
            return len(now) == len(then) and all(map(keeps, now, then))
        case _:
            return type(now) is type(then) and bool(now == then)


def with_news(data: Any) -> Any:
    """The data as newer code might write it: with a field that is not known yet in every object."""
    match data:
        case dict():
            return {name: with_news(value) for name, value in data.items()} | {"news": "not known yet"}
        case list():
            return [with_news(one) for one in data]
        case _:
            return data


@pytest.mark.parametrize("line", LINES, ids=str)
def test_every_event_that_was_ever_written_is_still_read(line: Written) -> None:
    assert isinstance(line.kind.read(line.schema_version, line.data), line.kind)


def test_the_file_has_every_event_at_every_schema_version_that_there_ever_was() -> None:
    every = {
        (domain, kind.__name__, version)
        for domain, published in PUBLISHED.items()
        for kind in published.events
        for version in range(1, kind.schema_version + 1)
    }
    assert {(line.domain, line.type, line.schema_version) for line in LINES} == every


@pytest.mark.parametrize("line", NEWEST, ids=str)
def test_todays_code_writes_what_the_newest_version_has(line: Written) -> None:
    event = line.kind.read(line.schema_version, line.data)
    assert keeps(json.loads(event.model_dump_json()), line.data), event


@pytest.mark.parametrize("line", LINES, ids=str)
def test_what_newer_code_adds_is_passed_over(line: Written) -> None:
    event = line.kind.read(line.schema_version, line.data)
    assert line.kind.read(line.schema_version, with_news(line.data)) == event


class AnotherName(Event):
    """`refusal` got another name, and a default."""

    order_id: UUID
    why: Refusal | None = None


class AnotherType(Event):
    """`refusal` became a text."""

    order_id: UUID
    refusal: str


class OneMore(Event):
    """A field came without a default."""

    order_id: UUID
    refusal: Refusal
    kiosk: str


class Gone(Event):
    """A field went."""

    order_id: UUID


@pytest.mark.parametrize("changed", [AnotherName, AnotherType, OneMore, Gone])
def test_a_change_that_old_data_does_not_fit_does_not_go_unnoticed(changed: type[Event]) -> None:
    line = next(line for line in NEWEST if line.kind is OrderRejected)
    try:
        event = changed.read(1, line.data)
    except ValidationError:
        return
    assert not keeps(json.loads(event.model_dump_json()), line.data)


def test_a_new_field_with_a_default_fits() -> None:
    class WithTill(Event):
        """A field came with a default."""

        order_id: UUID
        refusal: Refusal
        till: int = 1

    line = next(line for line in NEWEST if line.kind is OrderRejected)
    event = WithTill.read(1, line.data)
    assert event.till == 1
    assert keeps(json.loads(event.model_dump_json()), line.data)


def test_old_data_is_upcast_version_by_version() -> None:
    def in_cents(data: dict[str, Any]) -> dict[str, Any]:
        """`price` is in cents now."""
        return {**data, "price": data["price"] * 100}

    class Sold(Event):
        """Something was sold."""

        schema_version: ClassVar[int] = 3
        upcasters: ClassVar = {1: renamed("cost", "price"), 2: in_cents}

        price: int

    assert Sold.read(1, {"cost": 3}) == Sold.read(2, {"price": 3}) == Sold.read(3, {"price": 300})


@pytest.mark.parametrize(
    ("version", "upcasters", "has"),
    [
        (2, {}, "none"),
        (3, {1: renamed("a", "b")}, "[1]"),
        (3, {2: renamed("a", "b")}, "[2]"),
        (1, {1: renamed("a", "b")}, "[1]"),
    ],
    ids=["none at all", "the last is missing", "the first is missing", "the version was not raised"],
)
def test_an_event_whose_upcasters_do_not_lead_to_its_version_is_refused(
    version: int, upcasters: dict[int, Any], has: str
) -> None:
    members = {"__module__": __name__, "schema_version": version, "upcasters": upcasters}
    with pytest.raises(TypeError) as refused:
        type("Changed", (Event,), members)
    assert str(refused.value) == (
        f"Changed is at schema version {version}: it needs an upcaster from each version before that and from no "
        f"other, and has them from {has}"
    )


OLD_APPROVAL = next(line for line in LINES if line.kind is OrderApproved and line.schema_version == 1)


async def _write_old_approval(database: Database) -> tuple[OrderPlaced, OrderApproved]:
    """An order that was approved when `OrderApproved` was at version 1; returns what happened, as of today."""
    order_id = new_id()
    placed = OrderPlaced(
        order_id=order_id,
        kiosk="kiosk-1",
        customer="ada",
        lines=[OrderLine(sku="kettle-dawn-50", quantity=2), OrderLine(sku="43020", quantity=1)],
        payment_method="card",
        currency="USD",
        placed_at="2026-03-09T16:20:11.302917Z",
    )
    data = {**OLD_APPROVAL.data, "order_id": str(order_id)}
    async with database.transaction() as connection:
        await EventStore("orders", EVENTS).append(connection, f"order-{order_id}", 0, [placed])
        await connection.execute(
            text(
                "INSERT INTO orders.events (id, stream, version, type, schema_version, data)"
                " VALUES (:id, :stream, 2, 'OrderApproved', 1, CAST(:data AS jsonb))"
            ),
            {"id": new_id(), "stream": f"order-{order_id}", "data": json.dumps(data)},
        )
    approved = OrderApproved(
        order_id=order_id,
        lines=[
            priced("kettle-dawn-50", 2, 649, "Copper Kettle", "Dawn Shift Black Tea, 50 bags"),
            priced("43020", 1, 275, "Grocery", "Fluid Milk White Only 1 Ga"),
        ],
        total_cents=1573,
        pickup_code="C275TC",
    )
    return placed, approved


async def test_the_store_and_the_log_give_todays_event_of_an_old_row(fresh_database: Database) -> None:
    placed, approved = await _write_old_approval(fresh_database)
    async with fresh_database.transaction() as connection:
        stored = await EventStore("orders", EVENTS).load(connection, f"order-{placed.order_id}")
        logged = (await EventLog("orders").after(connection, START)).events
    assert stored == [placed, approved]
    assert [event.read_one_of(EVENTS) for event in logged] == [placed, approved]
    assert [event.schema_version for event in logged] == [1, 1]


def test_an_old_message_gives_todays_event() -> None:
    example = example_of("orders", OrderApproved)
    message = {**headers_of(example), "Mallbots-Schema-Version": "1"}
    data = json.dumps(OLD_APPROVAL.data).encode()
    event = RecordedEvent.from_message(example.subject, message, data, sequence=1).read(OrderApproved)
    assert event == OrderApproved.read(1, OLD_APPROVAL.data)
    assert [line.sku for line in event.lines] == ["kettle-dawn-50", "43020"]


async def test_an_order_that_was_approved_in_old_times_is_seen_and_answered_as_then(
    fresh_database: Database,
) -> None:
    placed, approved = await _write_old_approval(fresh_database)
    orders = Orders(fresh_database)
    assert await orders.view(placed.order_id) == OrderView(
        **placed.model_dump(),
        status="approved",
        items=approved.lines,
        total_cents=1573,
        pickup_code="C275TC",
    )
    answer = await orders.answer(placed.order_id)
    assert answer is not None
    assert (answer.items, answer.total_cents, answer.pickup_code) == (approved.lines, 1573, "C275TC")

"""Events on the real stack: the audit trail, the commands that look at events, a poison event and its way back."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text

from events.consumer import DOMAINS
from kernel.ids import new_id
from mallbots.embedded import free_port
from mallbots.settings import Settings
from tests.end_to_end.conftest import Databases
from tests.mall import Mall
from tests.waiting import eventually, wait_until

ORDER = {
    "items": [{"sku": "kettle-dawn-50", "quantity": 2}],
    "payment": {"method": "at_pickup"},
    "customer": "ada",
}


@pytest.fixture(scope="module")
async def staff(mall: Mall, settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """The API as a member of staff speaks to it."""
    key = mall.ask("keys", "create", "bea", "--service", "--role", "manager").stdout.strip()
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=settings.api_url, headers=headers, trust_env=False) as client:
        yield client


@pytest.fixture
async def order_id(kiosk: httpx.AsyncClient) -> str:
    """An order that was approved, and then cancelled by its customer."""
    placed = await kiosk.post("/v1/orders", json=ORDER, headers={"Idempotency-Key": str(new_id())})
    assert placed.status_code == httpx.codes.CREATED, placed.text
    cancelled = await kiosk.post(placed.json()["links"]["cancel"], json={"reason": "changed my mind"})
    assert cancelled.json()["status"] == "cancelled"
    return str(placed.json()["id"])


async def test_staff_read_who_did_what_to_an_order(staff: httpx.AsyncClient, order_id: str) -> None:
    async def whole() -> list[dict[str, str]]:
        found = await staff.get(f"/v1/staff/orders/{order_id}/trail")
        entries: list[dict[str, str]] = found.json().get("entries", [])
        return entries if any(entry["event"] == "OrderCancelled" for entry in entries) else []

    entries = await eventually(whole)
    assert (entries[0]["who"], entries[0]["what"]) == ("kiosk kiosk-1", "placed the order for ada: 2 items")
    assert ("the customer", "cancelled the order: changed my mind") in [(e["who"], e["what"]) for e in entries]
    assert {entry["domain"] for entry in entries} == {"orders", "stores", "payments", "depot"}


async def test_every_event_of_an_order_carries_the_trace_that_its_request_came_with(
    kiosk: httpx.AsyncClient, databases: Databases
) -> None:
    trace_id = new_id().hex
    headers = {"Idempotency-Key": str(new_id()), "traceparent": f"00-{trace_id}-00f067aa0ba902b7-01"}
    placed = await kiosk.post("/v1/orders", json=ORDER, headers=headers)
    for domain in DOMAINS:
        async with databases(domain).transaction() as connection:
            contexts = f"SELECT trace_context->>'traceparent' FROM {domain}.events WHERE correlation_id = :id"
            found = (await connection.execute(text(contexts), {"id": placed.json()["id"]})).scalars().all()
        assert {context.split("-")[1] for context in found} == {trace_id}, domain


async def test_the_trail_is_for_staff_only(
    staff: httpx.AsyncClient, kiosk: httpx.AsyncClient, order_id: str
) -> None:
    path = f"/v1/staff/orders/{order_id}/trail"
    assert (await kiosk.get(path)).json()["code"] == "unauthenticated"
    unknown = await staff.get(f"/v1/staff/orders/{new_id()}/trail")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "not_found")


def test_a_stream_is_shown_with_its_fold_at_any_version(mall: Mall, order_id: str) -> None:
    whole = mall.ask("events", "show", f"order-{order_id}")
    assert whole.returncode == 0, whole.stderr
    assert [name in whole.stdout for name in ("OrderPlaced", "OrderApproved", "OrderCancelled")] == [True] * 3
    assert '"status": "cancelled"' in whole.stdout
    approved = mall.ask("events", "show", f"order-{order_id}", "--version", "2")
    assert "OrderCancelled" not in approved.stdout
    assert '"status": "approved"' in approved.stdout
    payment = mall.ask("events", "show", f"payment-{order_id}", "--version", "1")
    assert '"status": "authorized"' in payment.stdout
    assert "at version" not in mall.ask("events", "show", f"reservation-{order_id}").stdout


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["show", "kiosk-1"], "kiosk-1 is not the name of a stream: they are order-…"),
        (["show", f"order-{UUID(int=0)}"], "there is no stream order-0000"),
        (["tail", "--type", "OrderLost"], "there is no event OrderLost, only "),
        (["tail", "--after", "999999999"], "position 999999999 lies in the future: the last one is "),
        (["retry", "--consumer", "nobody"], "there is no consumer nobody, only "),
        (["retry", "--event", str(UUID(int=0))], "there is no such dead letter"),
    ],
)
def test_what_there_is_not_is_told_in_one_line(mall: Mall, arguments: list[str], complaint: str) -> None:
    refused = mall.ask("events", *arguments)
    assert refused.returncode == 1
    (line,) = refused.stderr.splitlines()
    assert line.startswith(complaint)


def test_the_tail_of_an_order_begins_with_its_first_event(mall: Mall, order_id: str) -> None:
    with running(mall, "events", "tail", "--order", order_id) as tail:
        assert tail.stdout is not None
        told = [tail.stdout.readline() for _ in range(9)]
        tail.send_signal(signal.SIGINT)
        assert tail.wait(timeout=10) == 0
    assert " orders OrderPlaced " in told[0]
    assert {order_id in line for line in told} == {True}
    positions = [int(line.split()[0]) for line in told]
    assert positions == sorted(set(positions))


async def test_a_poison_event_is_listed_and_can_be_sent_again(mall: Mall, databases: Databases) -> None:
    store_id, event_id = new_id(), new_id()
    poison = text(
        "INSERT INTO stores.events (id, stream, version, type, schema_version, data)"
        " VALUES (:id, :stream, 1, 'StoreOpened', 1, '{}')"
    )
    async with databases("stores").transaction() as connection:
        await connection.execute(poison, {"id": event_id, "stream": f"store-{store_id}"})
        await connection.execute(text("SELECT pg_notify('stores_events', '')"))

    async def letters() -> int | None:
        async with databases("depot").transaction() as connection:
            found = "SELECT count(*) FROM depot.dead_letters WHERE event_id = :id"
            number: int | None = await connection.scalar(text(found), {"id": event_id})
            return number

    await eventually(letters)
    listed = mall.ask("events", "dead-letters").stdout
    assert str(event_id) in listed
    assert "ValidationError" in listed
    assert "depot-copies" in mall.ask("events", "status").stdout

    doctor = mall.ask("doctor")
    assert doctor.returncode == 1
    assert "1 dead letter: depot-copies could not handle" in doctor.stdout

    again = mall.ask("events", "retry", "--event", str(event_id))
    assert again.returncode == 1
    assert "0 handled, 1 failed again, 0 not taken up" in again.stdout

    whole = json.dumps({"store_id": str(store_id), "name": "Mended"})
    async with databases("depot").transaction() as connection:
        mend = "UPDATE depot.dead_letters SET data = CAST(:data AS jsonb) WHERE event_id = :id"
        await connection.execute(text(mend), {"data": whole, "id": event_id})
    mended = mall.ask("events", "retry", "--consumer", "depot-copies")
    assert mended.returncode == 0, mended.stdout
    assert "1 handled, 0 failed again" in mended.stdout
    assert not await letters()
    async with databases("depot").transaction() as connection:
        name = "SELECT name FROM depot.stores WHERE store_id = :id"
        assert await connection.scalar(text(name), {"id": store_id}) == "Mended"


def test_a_second_relay_says_that_it_stands_by_and_tells_its_metrics(mall: Mall) -> None:
    port = str(free_port())
    with running(mall, "relay", "--domain", "orders", MALLBOTS_METRICS_PORT=port) as relay:
        assert relay.stdout is not None
        assert "relay of orders: another one is active; this one stands by" in relay.stdout.readline()
        metrics = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
        (leading,) = [line for line in metrics.splitlines() if line.startswith("mallbots_relay_leading{")]
        assert 'domain="orders"' in leading
        assert leading.endswith(" 0.0")
        relay.terminate()
        assert relay.wait(timeout=10) == 0


def test_an_unknown_consumer_is_refused(mall: Mall) -> None:
    refused = mall.ask("consumers", "--name", "nobody")
    assert refused.returncode == 2
    assert "there is no consumer nobody, only depot-copies" in refused.stderr


@contextmanager
def running(mall: Mall, *arguments: str, **variables: str) -> "Iterator[subprocess.Popen[str]]":
    """A command of `mallbots` at work; what it says is on its `stdout`. It is ended with the block."""
    process = subprocess.Popen(
        (sys.executable, "-m", "mallbots", *arguments),
        env=mall.environment | variables | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
        process.wait()
        wait_until(lambda: process.poll() is not None)

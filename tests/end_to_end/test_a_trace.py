"""An order's trace, as it is exported: from the kiosk's request to whatever it led to, in every process.

The mall keeps no trace that its caller does not ask for. It runs early in this folder, before other tests leave
orders that nobody shops.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from grpc import aio

from api.keys import ApiKeys
from clients.desk import hand_over_ready
from kernel.ids import new_id
from mallbots.settings import Settings
from tests.collector import Collector, Exported
from tests.end_to_end.conftest import Databases
from tests.mall import Mall
from tests.robots.conftest import Robot
from tests.waiting import eventually

CALLER = "00f067aa0ba902b7"
CUSTOMER = "ada-lovelace"
CARD = "tok_approved"


class Trace:
    """A trace that a test asks for."""

    def __init__(self, collector: Collector) -> None:
        self.id = new_id().hex
        self.headers = {"traceparent": f"00-{self.id}-{CALLER}-01"}
        self._collector = collector

    @property
    def spans(self) -> list[Exported]:
        return self._collector.trace(self.id)

    def named(self, name: str) -> list[Exported]:
        return [span for span in self.spans if span.name == name]

    async def until(self, *names: str) -> None:
        """Wait until spans of these names were exported."""
        await eventually(lambda: {span.name for span in self.spans} >= set(names), timeout=20)

    def way_to(self, name: str) -> list[str]:
        """The names of the spans from the caller's down to one of this name."""
        by_id = {span.span_id: span for span in self.spans}
        way, at = [name], self.named(name)[0].parent_id
        while at != CALLER:
            way.insert(0, by_id[at].name)
            at = by_id[at].parent_id
        return way


@pytest.fixture
def trace(collector: Collector) -> Trace:
    return Trace(collector)


@asynccontextmanager
async def a_robot(settings: Settings, databases: Databases) -> AsyncIterator[Robot]:
    """A robot that is there."""
    token = await ApiKeys(databases("robots"), "robots").issue("traced-robot")
    async with aio.insecure_channel(settings.grpc_address) as channel, Robot(channel, token) as robot:
        yield robot


async def place(kiosk: httpx.AsyncClient, card: str = CARD, **headers: str) -> httpx.Response:
    body = {
        "items": [{"sku": "kettle-dawn-50", "quantity": 1}],
        "payment": {"method": "card", "token": card},
        "customer": CUSTOMER,
    }
    return await kiosk.post("/v1/orders", json=body, headers={"Idempotency-Key": str(new_id()), **headers})


async def until(kiosk: httpx.AsyncClient, order_id: str, status: str) -> dict[str, Any]:
    async def order() -> dict[str, Any] | None:
        answer: dict[str, Any] = (await kiosk.get(f"/v1/orders/{order_id}")).json()
        return answer if answer["status"] == status else None

    return dict(await eventually(order, timeout=20) or {})


async def test_one_trace_tells_an_order_from_the_kiosk_to_the_robot_and_to_each_consumer(
    kiosk: httpx.AsyncClient, settings: Settings, databases: Databases, trace: Trace, collector: Collector
) -> None:
    for path in ("/healthz", "/healthz/ready"):
        await kiosk.get(path, headers=trace.headers)
    silent = await place(kiosk)
    await kiosk.post(silent.json()["links"]["cancel"], json={"reason": "mistaken"})
    placed = await place(kiosk, **trace.headers)
    order_id = placed.json()["id"]
    await until(kiosk, order_id, "approved")
    async with a_robot(settings, databases) as robot:
        await robot.ready()
        shopping = await robot.hear("list")
        await robot.shop(shopping)
    order = await until(kiosk, order_id, "ready")
    await hand_over_ready(settings)
    async with kiosk.stream("GET", f"/v1/orders/{order_id}/events", headers=trace.headers) as events:
        await events.aread()
    ended = "mallbots.orders.OrderCompleted"
    await trace.until(
        "RunWorkflow:Order", f"analytics process {ended}", f"trail process {ended}", "process work.notifications"
    )

    to_workflow = ["POST /v1/orders", "StartUpdateWithStartWorkflow:Order", "RunWorkflow:Order"]

    def step(name: str) -> list[str]:
        return [*to_workflow, f"StartActivity:{name}", f"RunActivity:{name}"]

    event = "mallbots.orders.OrderPlaced"
    published = [*step("orders.place"), f"publish {event}"]
    assert trace.way_to(f"analytics process {event}") == [*published, f"analytics process {event}"]
    assert trace.way_to(f"trail process {event}") == [*published, f"trail process {event}"]
    taken = trace.way_to(f"analytics process {event}")
    assert trace.way_to("INSERT analytics.orders") == [*taken, "INSERT analytics.orders"]
    assert trace.way_to("INSERT payments.events") == [*step("payments.authorize"), "INSERT payments.events"]
    assert trace.way_to("tell robot pick") == [*step("depot.schedule"), "tell robot pick"]
    picked = "mallbots.depot.ItemPicked"
    assert trace.way_to(f"trail process {picked}") == [
        *step("depot.schedule"),
        "hear robot item",
        f"publish {picked}",
        f"trail process {picked}",
    ]
    told_by = {f"notifications process mallbots.orders.{kind}" for kind in ("OrderApproved", "OrderReadied")}
    assert told_by & set(trace.way_to("process work.notifications"))

    (told,) = trace.named("tell robot pick")
    assert shopping.traceparent == f"00-{trace.id}-{told.span_id}-01"
    (request,) = trace.named("POST /v1/orders")
    assert placed.headers["traceresponse"] == f"00-{trace.id}-{request.span_id}-01"
    assert (request.kind, request.attributes["http.response.status_code"]) == ("SERVER", placed.status_code)

    assert len({span.span_id for span in trace.spans}) == len(trace.spans)
    assert not [span for span in trace.spans if span.is_error]
    services = {"api", "worker", "relay", "consumers", "analytics", "grpc"}
    assert {span.service for span in trace.spans} == {f"mallbots-{name}" for name in services}
    without_order = {span.name for span in trace.spans if span.attributes.get("mallbots.order_id") != order_id}
    assert without_order == {
        "SELECT kiosks.api_keys",
        "INSERT kiosks.idempotency_keys",
        "UPDATE notifications.notifications",
    }
    told_of = json.dumps([span.attributes for span in trace.spans])
    assert not [secret for secret in (CUSTOMER, CARD, order["pickup_code"]) if secret in told_of]
    assert silent.json()["id"] not in json.dumps([span.attributes for span in collector.spans])


async def test_a_refusal_is_no_error_of_the_trace(kiosk: httpx.AsyncClient, trace: Trace) -> None:
    refused = await place(kiosk, card="tok_declined", **trace.headers)
    assert refused.status_code in (httpx.codes.UNPROCESSABLE_ENTITY, httpx.codes.ACCEPTED), refused.text
    await trace.until("RunActivity:payments.authorize", "POST /v1/orders", "RunWorkflow:Order")
    assert not [span.name for span in trace.spans if span.is_error]


async def test_a_call_of_a_service_is_in_its_trace_and_only_faults_are_errors(
    settings: Settings, databases: Databases, trace: Trace
) -> None:
    from api.generated.mallbots.orders.v1.orders_pb2 import GetOrderRequest
    from api.generated.mallbots.orders.v1.orders_pb2_grpc import OrdersStub

    key = await ApiKeys(databases("staff"), "staff").issue("traced-service", ["manager"])
    metadata = (("authorization", f"Bearer {key}"), ("traceparent", trace.headers["traceparent"]))
    async with aio.insecure_channel(settings.grpc_address) as channel:
        with pytest.raises(aio.AioRpcError):
            await OrdersStub(channel).GetOrder(GetOrderRequest(order_id=str(new_id())), metadata=metadata)
    await trace.until("mallbots.orders.v1.Orders/GetOrder")
    (call,) = trace.named("mallbots.orders.v1.Orders/GetOrder")
    assert (call.parent_id, call.attributes["rpc.response.status_code"]) == (CALLER, "NOT_FOUND")
    assert not call.is_error


async def test_a_line_of_the_log_names_the_order_and_its_trace(
    kiosk: httpx.AsyncClient, mall: Mall, trace: Trace
) -> None:
    placed = await place(kiosk, **trace.headers)
    order_id = placed.json()["id"]

    def lines() -> list[dict[str, Any]]:
        written = (mall.data_dir / "logs" / "consumers.log").read_text().splitlines()
        return [line for line in map(json.loads, written) if line.get("order_id") == order_id]

    (line,) = await eventually(lines)
    assert line["trace_id"] == trace.id
    assert line["event"].startswith(f"to {CUSTOMER}: Thank you for your order.")
    assert (line["level"], line["logger"]) == ("info", "consumers.notifications.log")
    await kiosk.post(placed.json()["links"]["cancel"], json={"reason": "enough"})

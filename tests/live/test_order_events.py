"""A kiosk hears what happens to its order, event by event, and is told when nothing more will."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text

from api.kiosk.idempotency import IdempotencyKeys
from api.kiosk.schemas import ItemToOrder, OrderToPlace, PayAtPickup
from domains.orders.messages import EVENTS, ApproveOrder, CancelOrder, OrderCompleted, OrderReadied, RefundOrder
from domains.orders.service import stream_of
from events.store import EventStore
from kernel.database import Database
from kernel.errors import Unavailable
from kernel.ids import new_id
from kernel.messages import Cancellation
from tests.live.serving import Api, an_api
from tests.nats import NatsServer
from tests.samples import place, priced
from tests.waiting import eventually

BASKET = OrderToPlace(items=[ItemToOrder(sku="tea", quantity=2)], payment=PayAtPickup(method="at_pickup"))


class Following:
    """An open stream of a kiosk."""

    def __init__(self, response: httpx.Response) -> None:
        self._lines = response.aiter_lines()

    async def block(self) -> dict[str, str]:
        """The next lines up to an empty one, by their names; a comment has none. None at the end of the stream."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(10):
            async for line in self._lines:
                if not line:
                    break
                name, _, value = line.partition(": ")
                fields[name] = value
        return fields

    async def events(self, number: int) -> list[tuple[str, str]]:
        """The next so many events: id and type of each."""
        blocks = [await self.block() for _ in range(number)]
        for block in blocks:
            data = json.loads(block["data"])
            assert (str(data["version"]), data["type"]) == (block["id"], block["event"])
        return [(block["id"], block["event"]) for block in blocks]


@asynccontextmanager
async def following(api: Api, order_id: UUID, last: str | None = None) -> AsyncIterator[Following]:
    """The stream of an order's events behind `last`, after its hint when to reconnect."""
    headers = {"Last-Event-ID": last} if last is not None else {}
    url = f"/v1/orders/{order_id}/events"
    async with api.kiosk() as kiosk, kiosk.stream("GET", url, headers=headers) as response:
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert response.headers["cache-control"] == "no-store"
        stream = Following(response)
        assert await stream.block() == {"retry": "1000"}
        yield stream


async def get(api: Api, order_id: UUID, last: str | None = None) -> httpx.Response:
    headers = {"Last-Event-ID": last} if last is not None else {}
    async with api.kiosk() as kiosk:
        return await kiosk.get(f"/v1/orders/{order_id}/events", headers=headers)


async def ordered(api: Api, kiosk: str = "kiosk-1") -> UUID:
    """An order that a kiosk has sent, and that is not recorded yet."""
    return (await IdempotencyKeys(api.database).claim(kiosk, str(new_id()), BASKET)).order_id


async def approve(api: Api, order_id: UUID) -> None:
    await api.orders.approve(ApproveOrder(order_id=order_id, lines=[priced()], total_cents=900))


async def approved(api: Api) -> UUID:
    order_id = await ordered(api)
    await api.orders.place(place(order_id))
    await approve(api, order_id)
    return order_id


async def cancel(api: Api, order_id: UUID) -> None:
    await api.orders.cancel(CancelOrder(order=place(order_id), cancellation=Cancellation(by="customer")))


async def test_a_kiosk_hears_of_its_order_from_the_first_event_to_the_last(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.kiosk.events._POLL", 600.0)
    order_id = await ordered(api)
    async with following(api, order_id) as stream:
        await api.orders.place(place(order_id))
        placed = await stream.block()
        await approve(api, order_id)
        assert await stream.events(1) == [("2", "OrderApproved")]
        await cancel(api, order_id)
        assert await stream.events(1) == [("3", "OrderCancelled")]
        assert await stream.block() == {}, "the stream goes on behind the order's last event"
    first, *_ = await api.orders.events_after(order_id, 0)
    assert (placed["id"], placed["event"]) == ("1", "OrderPlaced")
    assert json.loads(placed["data"]) == {
        "version": 1,
        "type": "OrderPlaced",
        "recorded_at": first.recorded_at.isoformat().replace("+00:00", "Z"),
        "data": first.fields(),
    }


async def test_a_kiosk_that_reconnects_goes_on_behind_the_last_event_that_it_heard_of(api: Api) -> None:
    order_id = await approved(api)
    async with following(api, order_id, last="1") as stream:
        assert await stream.events(1) == [("2", "OrderApproved")]
    async with following(api, order_id, last="0") as stream:
        assert await stream.events(2) == [("1", "OrderPlaced"), ("2", "OrderApproved")]
    async with following(api, order_id, last="2") as stream:
        await cancel(api, order_id)
        assert await stream.events(1) == [("3", "OrderCancelled")]


async def test_a_kiosk_that_has_heard_of_the_end_is_told_not_to_reconnect(api: Api) -> None:
    order_id = await approved(api)
    store = EventStore("orders", EVENTS)
    async with api.database.transaction() as connection:
        rest = [OrderReadied(order_id=order_id), OrderCompleted(order_id=order_id)]
        await store.append(connection, stream_of(order_id), 2, rest)
    async with following(api, order_id, last="2") as stream:
        assert await stream.events(2) == [("3", "OrderReadied"), ("4", "OrderCompleted")]
        assert await stream.block() == {}
    response = await get(api, order_id, last="4")
    assert (response.status_code, response.content) == (204, b"")
    # A refund follows the end, and is no news for a kiosk.
    await api.orders.refund(RefundOrder(order_id=order_id, refund_id=new_id(), lines=None, by="bea"))
    for last in ("4", "5"):
        assert (await get(api, order_id, last=last)).status_code == 204


@pytest.mark.parametrize("last", ["", "-1", "1.5", "two", "+1", "1 2", "9" * 5000])
async def test_a_last_event_id_that_is_none_is_told(api: Api, last: str) -> None:
    response = await get(api, await approved(api), last)
    rule = "Last-Event-ID is the id of the last event that came, a whole number from 0"
    assert_invalid(response, rule)


async def test_a_last_event_id_of_the_future_is_told(api: Api) -> None:
    rule = "Last-Event-ID is in the future: the order's last event has the id {}"
    for future in ("3", "9" * 18):
        assert_invalid(await get(api, await approved(api), future), rule.format(2))
    assert_invalid(await get(api, await ordered(api), "1"), rule.format(0))


def assert_invalid(response: httpx.Response, rule: str) -> None:
    problem = response.json()
    assert (response.status_code, problem["code"]) == (422, "invalid_input")
    assert problem["errors"] == [{"field": "Last-Event-ID", "rule": rule}]


async def test_a_kiosk_follows_no_orders_but_its_own(api: Api) -> None:
    for order_id in (await ordered(api, kiosk="kiosk-2"), new_id()):
        response = await get(api, order_id)
        assert (response.status_code, response.json()["code"]) == (404, "not_found")
    async with api.kiosk() as kiosk:
        kiosk.headers["Authorization"] = f"Bearer {api.staff_key}"
        assert (await kiosk.get(f"/v1/orders/{await approved(api)}/events")).status_code == 401


async def test_events_of_an_older_schema_are_told_in_today_s(api: Api) -> None:
    order_id = await approved(api)
    older = (
        "UPDATE orders.events SET schema_version = 1, data = (data - 'lines') ||"
        " jsonb_build_object('items', data->'lines') WHERE stream = :stream AND version = 2"
    )
    async with api.database.transaction() as connection:
        await connection.execute(text(older), {"stream": stream_of(order_id)})
    async with following(api, order_id, last="1") as stream:
        data = json.loads((await stream.block())["data"])["data"]
    assert data.keys() == {"order_id", "lines", "total_cents", "pickup_code"}
    assert data["lines"] == [priced().model_dump()]


async def test_silence_is_broken_by_comments(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.kiosk.events.HEARTBEAT", 0.1)
    order_id = await approved(api)
    async with following(api, order_id, last="2") as stream:
        assert [await stream.block() for _ in range(3)] == [{"": "still here"}] * 3
        await cancel(api, order_id)
        heard: dict[str, Any] = {}
        while "id" not in heard:
            heard = await stream.block()
        assert heard["id"] == "3"


async def test_a_kiosk_goes_on_hearing_of_its_order_when_nats_goes_away(
    fresh_database: Database, own_nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.kiosk.events._POLL", 600.0)
    monkeypatch.setattr("api.kiosk.events._POLL_WHILE_NATS_IS_AWAY", 0.1)
    async with an_api(fresh_database, own_nats.url) as api:
        order_id = await approved(api)
        async with following(api, order_id) as stream:
            assert len(await stream.events(2)) == 2
            await eventually(lambda: api.hub.ring.position == 2)
            own_nats.kill()
            await eventually(lambda: not api.hub.live)
            await cancel(api, order_id)
            assert await stream.events(1) == [("3", "OrderCancelled")]


async def test_a_kiosk_hears_of_its_order_while_nats_is_away(
    live_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.kiosk.events._POLL", 600.0)
    monkeypatch.setattr("api.kiosk.events._POLL_WHILE_NATS_IS_AWAY", 0.1)
    async with an_api(live_database, "nats://127.0.0.1:1", relayed=False) as alone:
        order_id = await approved(alone)
        async with following(alone, order_id) as stream:
            assert await stream.events(2) == [("1", "OrderPlaced"), ("2", "OrderApproved")]
            await cancel(alone, order_id)
            assert await stream.events(1) == [("3", "OrderCancelled")]


async def test_a_stream_goes_on_when_its_database_was_away_for_a_moment(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("api.kiosk.events._POLL", 0.05)
    order_id = await approved(api)
    async with following(api, order_id) as stream:
        assert len(await stream.events(2)) == 2
        with monkeypatch.context() as outage:
            outage.setattr("domains.orders.service.Orders.events_after", _unavailable)
            await eventually(lambda: f"order {order_id}: the orders database does not answer" in caplog.text)
        await cancel(api, order_id)
        assert await stream.events(1) == [("3", "OrderCancelled")]


async def _unavailable(*_: Any) -> None:
    raise Unavailable("the orders database does not answer")


async def test_a_kiosk_that_goes_away_leaves_nothing_behind(api: Api) -> None:
    order_id = await approved(api)
    async with following(api, order_id) as stream:
        assert len(await stream.events(2)) == 2
        assert stream_of(order_id) in api.hub._watchers
    await eventually(lambda: stream_of(order_id) not in api.hub._watchers)


async def test_a_server_that_stops_does_not_wait_for_those_who_follow(live_database: Database, api: Api) -> None:
    async with an_api(live_database, api.nats_url, relayed=False) as own:
        order_id = await approved(own)
        async with following(own, order_id) as stream:
            assert len(await stream.events(2)) == 2
            own.server.should_exit = True
            began = time.monotonic()
            assert await stream.block() == {}
        await eventually(lambda: own.connections == 0)
        assert time.monotonic() - began < 1.5, "it waited for more than its own clock to tick"

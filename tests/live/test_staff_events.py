"""Staff hear of every event as it happens: in order, once, without a gap, however often they are cut off."""

import asyncio
import json
import random
import re
import resource
import socket
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest
from websockets.asyncio.client import ClientConnection, connect

from api.closing import LONGEST_REASON, CloseCode
from api.live.hub import Gone, Hub, TooSlow
from domains.orders.messages import ApproveOrder
from events.consumer import DOMAINS
from events.recorded import START
from events.stream import Connection, connected, follow, last_sequence
from kernel.database import Database
from kernel.ids import new_id
from tests.events.log import published, running, write
from tests.live.serving import Api, an_api, close_of, hello, positions, take, take_until
from tests.nats import NatsServer
from tests.samples import place, priced
from tests.waiting import eventually


async def last_position(api: Api) -> int:
    """That of the last event in the stream."""
    async with connected(api.nats_url, "test") as nats:
        return await last_sequence(nats.jetstream)


async def test_staff_hear_of_events_as_they_were_recorded_after_a_hello(api: Api) -> None:
    order = place()
    async with api.follow() as staff:
        begins = json.loads(await staff.recv())
        await api.orders.place(order)
        await api.orders.approve(ApproveOrder(order_id=order.order_id, lines=[priced()], total_cents=900))
        placed, approved = await take(staff, 2)
    assert begins == {"type": "hello", "position": placed["position"] - 1, "topics": list(DOMAINS)}
    first, _ = recorded = await api.orders.events_after(order.order_id, 0)
    assert placed == {
        "type": "event",
        "position": placed["position"],
        "id": str(first.id),
        "domain": "orders",
        "event": "OrderPlaced",
        "stream": f"order-{order.order_id}",
        "version": 1,
        "schema_version": 1,
        "data": first.fields(),
        "correlation_id": str(order.order_id),
        "causation_id": None,
        "recorded_at": first.recorded_at.isoformat().replace("+00:00", "Z"),
    }
    assert (approved["version"], approved["position"]) == (2, placed["position"] + 1)
    assert [approved["id"], approved["schema_version"]] == [str(recorded[1].id), 2]


async def test_staff_who_are_cut_off_again_and_again_miss_nothing_and_hear_nothing_twice(api: Api) -> None:
    dice = random.Random(10)
    heard: list[dict[str, Any]] = []
    async with api.follow() as staff:
        begin = seen = await hello(staff)

    async def all_day() -> None:
        for _ in range(8):
            await asyncio.gather(*(api.place(4) for _ in range(5)))

    async with running(all_day()):
        for _ in range(10):
            async with api.follow(after=seen) as staff:
                assert await hello(staff) == seen
                heard += await take(staff, dice.randrange(1, 15))
                seen = heard[-1]["position"]
                staff.transport.abort()
        async with api.follow(after=seen) as staff:
            await hello(staff)
            heard += await take_until(staff, begin + 160)
    assert positions(heard) == list(range(begin + 1, begin + 161))
    assert [message["id"] for message in heard] == [
        str(event.id) for event in await published(api.nats_url) if (event.sequence or 0) > begin
    ]


async def test_staff_hear_of_the_topics_that_they_ask_for_and_up_to_where_there_was_nothing_else(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.staff.events.HEARTBEAT", 0.2)
    async with api.follow(topics="depot,stores") as staff:
        begins = json.loads(await staff.recv())
        assert begins["topics"] == ["stores", "depot"]
        begin = begins["position"]
        await write(api.database, new_id(), "first")
        (first,) = await take(staff, 1)
        assert (first["domain"], first["data"]["reason"]) == ("depot", "first")
        await api.place(3)
        heard = await take_until(staff, begin + 4)
        assert {message["type"] for message in heard} == {"position"}
        await write(api.database, new_id(), "second")
        second = (await take_until(staff, begin + 5))[-1]
        assert (second["type"], second["data"]["reason"]) == ("event", "second")
    async with api.follow(topics="depot", after=heard[-1]["position"]) as staff:
        assert await hello(staff) == begin + 4
        assert await take(staff, 1) == [second]


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("topics=orders,robots", "there is no topic 'robots', only orders, stores, payments, depot"),
        ("topics=", "there is no topic '', only orders, stores, payments, depot"),
        ("topics=" + "%F0%9F%A4%96" * 200, "there is no topic '🤖"),
        ("topic=orders", "there is no parameter 'topic', only topics and after"),
        ("after=-1", "after is a position, a whole number from 0, and not '-1'"),
        ("after=last", "after is a position, a whole number from 0, and not 'last'"),
        ("after=%D9%A1", "after is a position, a whole number from 0, and not '١'"),
        ("after=" + "9" * 5000, "after is a position, a whole number from 0, and not '99999"),
        ("after=999999999999999999", "after=999999999999999999 is in the future: the last position is {last}"),
    ],
)
async def test_a_parameter_that_breaks_a_rule_is_told(api: Api, query: str, reason: str) -> None:
    headers = {"Authorization": f"Bearer {api.staff_key}"}
    async with connect(f"{api.events_url()}{query}", additional_headers=headers, proxy=None) as staff:
        messages, close = await close_of(staff)
    assert (messages, close.code) == ([], CloseCode.INVALID_INPUT)
    assert close.reason.startswith(reason.format(last=await last_position(api)))
    assert len(close.reason.encode()) <= LONGEST_REASON


async def test_only_staff_are_let_in(api: Api) -> None:
    for key in ("mbs_unknown", api.kiosk_key):
        async with api.follow(key=key) as connection:
            messages, close = await close_of(connection)
        assert (messages, close.code) == ([], CloseCode.UNAUTHENTICATED)
        assert close.reason == "this key is not known, or was revoked"
    async with connect(api.events_url(), proxy=None) as connection:
        _, close = await close_of(connection)
    assert close.code == CloseCode.UNAUTHENTICATED
    assert close.reason == "sign in at /sign-in, or send a service's key as `Authorization: Bearer KEY`"


async def test_what_clients_say_is_ignored_unless_it_is_long(api: Api) -> None:
    async with api.follow() as staff:
        await hello(staff)
        for _ in range(50):
            await staff.send("ping")
        await api.place()
        assert (await take(staff, 1))[0]["event"] == "OrderPlaced"
        await staff.send("x" * 2000)
        _, close = await close_of(staff)
    assert close.code == 1009


async def test_an_error_that_nobody_foresaw_is_told_as_an_incident(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: Any) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr("api.live.hub.Hub.reader", fail)
    async with api.follow() as staff:
        _, close = await close_of(staff)
    incident = re.fullmatch(r"this is our fault; incident ([0-9a-f-]{36}) is in our log", close.reason)
    assert close.code == CloseCode.INTERNAL
    assert incident is not None
    assert f"incident {incident[1]}: WebSocket '/v1/staff/events'" in caplog.text
    assert "a secret" in caplog.text


async def test_five_hundred_clients_hear_the_same(api: Api) -> None:
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(files, min(most, 4096)), most))
    opening = asyncio.Semaphore(50)
    ready = asyncio.Semaphore(0)

    async def listen() -> list[int]:
        async with opening:
            staff = await api.follow(topics="orders")
        async with staff:
            begin = await hello(staff)
            ready.release()
            heard = positions(await take(staff, 12))
            return [position - begin for position in heard]

    clients = [asyncio.create_task(listen()) for _ in range(500)]
    for _ in clients:
        await ready.acquire()
    for _ in range(3):
        await asyncio.gather(*(api.place() for _ in range(4)))
    assert await asyncio.gather(*clients) == [list(range(1, 13))] * 500


async def test_what_is_older_than_the_ring_comes_from_the_stream_without_gap_or_repeat(
    live_database: Database, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("events.stream._PULL", 25)
    monkeypatch.setattr("api.live.hub.PAGE_SIZE", 25)
    async with an_api(live_database, api.nats_url, ring_size=60, relayed=False) as small:
        await eventually(lambda: small.hub.live)
        begin = small.hub.ring.position
        list_id = new_id()
        await _write_both(small, list_id, 70)
        await eventually(lambda: small.hub.ring.position == begin + 140)
        assert small.hub.ring.floor > begin + 50
        async with (
            small.follow(after=begin) as all_topics,
            small.follow(after=begin, topics="depot") as depot,
            running(_write_both(small, list_id, 20)),
        ):
            assert (await hello(all_topics), await hello(depot)) == (begin, begin)
            heard, of_depot = await asyncio.gather(take_until(all_topics, begin + 180), take(depot, 90))
        assert positions(heard) == list(range(begin + 1, begin + 181))
        assert of_depot == [message for message in heard if message["domain"] == "depot"]
        nothing = await small.hub.reader(("payments",), after=begin)
        assert (await nothing.next(0.01), nothing.position) == ((), begin + 180)


async def _write_both(api: Api, list_id: UUID, number: int) -> None:
    for _ in range(number):
        await asyncio.gather(api.place(), write(api.database, list_id, "one"))


async def test_what_the_stream_has_dropped_is_gone(fresh_database: Database, own_nats: NatsServer) -> None:
    async with an_api(fresh_database, own_nats.url, ring_size=4) as api:
        await api.place(20)
        await eventually(lambda: api.hub.ring.position == 20)
        async with connected(own_nats.url, "test") as nats:
            await nats.jetstream.purge_stream("MALLBOTS", seq=11)
        async with api.follow(after=9) as staff:
            messages, close = await close_of(staff)
        assert (messages, close.code) == ([], CloseCode.GONE)
        assert close.reason == "what follows position 9 is gone: take a fresh snapshot, connect without after"
        async with api.follow(after=10) as staff:
            assert await hello(staff) == 10
            assert positions(await take(staff, 10)) == list(range(11, 21))


async def test_what_the_stream_drops_while_it_is_read_is_gone(
    fresh_database: Database, own_nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def follow_too_late(nats: Connection, after: int, patterns: Sequence[str]) -> Any:
        await nats.jetstream.purge_stream("MALLBOTS", seq=after + 3)
        async for events in follow(nats, after, patterns):
            yield events

    async with an_api(fresh_database, own_nats.url, ring_size=4) as api:
        await api.place(20)
        await eventually(lambda: api.hub.ring.position == 20)
        monkeypatch.setattr("api.live.hub.follow", follow_too_late)
        async with api.follow(after=3) as staff:
            messages, close = await close_of(staff)
    assert (messages, close.code) == ([], CloseCode.GONE)


async def test_what_was_dropped_while_the_hub_was_away_is_gone(
    fresh_database: Database, own_nats: NatsServer
) -> None:
    async with an_api(fresh_database, own_nats.url) as api:
        hub = Hub(own_nats.url, patience=30)
        async with running(hub.run()):
            await api.place(2)
            await eventually(lambda: hub.ring.position == 2)
            reader = await hub.reader(DOMAINS)
        await api.place(4)
        await eventually(lambda: api.hub.ring.position == 6)
        async with connected(own_nats.url, "test") as nats:
            await nats.jetstream.purge_stream("MALLBOTS")
        async with running(hub.run()):
            await eventually(lambda: hub.ring.position == 6)
            with pytest.raises(Gone):
                await reader.next(1)


async def test_what_is_no_event_is_passed_over(fresh_database: Database, own_nats: NatsServer) -> None:
    async def junk() -> None:
        async with connected(own_nats.url, "test") as nats:
            await nats.jetstream.publish("mallbots.junk", b"junk")

    async with an_api(fresh_database, own_nats.url) as api:
        async with api.follow() as staff:
            await hello(staff)
            await api.place()
            assert positions(await take(staff, 1)) == [1]
            await junk()
            await api.place()
            assert positions(await take(staff, 1)) == [3]
        await junk()
        async with an_api(fresh_database, own_nats.url, relayed=False) as other:
            await eventually(lambda: other.hub.live)
            assert other.hub.ring.position == 3
            async with other.follow(after=0) as staff:
                assert (await hello(staff), positions(await take(staff, 2))) == (0, [1, 3])
                await api.place()
                assert positions(await take(staff, 1)) == [5]


async def test_an_event_that_can_not_be_told_is_passed_over(
    fresh_database: Database, own_nats: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with an_api(fresh_database, own_nats.url) as api:
        await api.place()
        await eventually(lambda: api.hub.ring.position == 1)
        (placed,) = await published(own_nats.url)
        async with api.follow() as staff, connected(own_nats.url, "test") as nats:
            await hello(staff)
            for subject, data in (("mallbots.loyalty.PointsEarned.card-1", b"{}"), ("mallbots.orders.X.y", b"[]")):
                headers = placed.headers(placed.previous or START) | {"Nats-Msg-Id": str(new_id())}
                await nats.jetstream.publish(subject, data, headers=headers)
            await api.place()
            assert positions(await take(staff, 1)) == [4]
        hub = Hub(own_nats.url, size=1)
        async with running(hub.run()):
            await eventually(lambda: hub.live)
            reader = await hub.reader(DOMAINS, after=0)
            assert [entry.position for entry in await reader.next(5)] == [1, 4]
    assert "(mallbots.loyalty.PointsEarned.card-1) can not be told, and is passed over" in caplog.text


async def test_a_position_that_only_another_process_has_seen_yet_is_not_of_the_future(api: Api) -> None:
    hub = Hub(api.nats_url)
    async with running(hub.run()):
        await eventually(lambda: hub.live)
    begin = hub.ring.position
    await api.place(3)
    await eventually(lambda: api.hub.ring.position == begin + 3)
    reader = await hub.reader(DOMAINS, after=begin + 2)
    assert await reader.next(0.01) == ()
    async with running(hub.run()):
        assert [entry.position for entry in await reader.next(10)] == [begin + 3]


async def test_positions_of_a_stream_that_was_lost_are_gone(
    fresh_database: Database, own_nats: NatsServer
) -> None:
    async with an_api(fresh_database, own_nats.url) as api:
        await api.place(3)
        async with api.follow() as staff:
            await hello(staff)
            async with connected(own_nats.url, "test") as nats:
                await nats.jetstream.delete_stream("MALLBOTS")
            await api.place()
            _, close = await close_of(staff)
        assert close.code == CloseCode.GONE
        await eventually(lambda: api.hub.live and api.hub.ring.position == 4)
        async with api.follow(after=0) as staff:
            assert positions((await take(staff, 5))[1:]) == [1, 2, 3, 4]


async def test_who_does_not_read_is_cut_off_and_holds_up_nobody(
    live_database: Database, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.staff.events._SEND_TIMEOUT", 0.3)
    monkeypatch.setattr("mallbots.serving._CLOSE_TIMEOUT", 1.0)
    async with an_api(live_database, api.nats_url, relayed=False) as own:
        async with own.follow() as reads, own.follow() as reads_late:
            begin = await hello(reads)
            await hello(reads_late)
            never_reads = _raw_client(own)
            await eventually(lambda: own.connections == 3)
            async with running(_write_much(own, 30)):
                assert positions(await take_until(reads, begin + 30)) == list(range(begin + 1, begin + 31))
            await eventually(lambda: own.closing == 2)
            messages, close = await close_of(reads_late)
            last = begin + len(messages)
            assert (close.code, close.reason) == (4408, f"too slow: connect again with after={last}")
            assert begin < last < begin + 30
            assert positions(messages) == list(range(begin + 1, last + 1))
            await eventually(lambda: own.connections == 1)
            never_reads.close()
        async with own.follow(after=last) as reads_late:
            await hello(reads_late)
            assert positions(await take_until(reads_late, begin + 30)) == list(range(last + 1, begin + 31))


async def _write_much(api: Api, events: int) -> None:
    for _ in range(events):
        await write(api.database, new_id(), "x" * 500_000)


def _raw_client(api: Api) -> socket.socket:
    """A client that says what it wants and never reads an answer."""
    client = socket.create_connection(("127.0.0.1", api.port))
    client.sendall(
        b"GET /v1/staff/events HTTP/1.1\r\nHost: mall\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        b"Authorization: Bearer " + api.staff_key.encode() + b"\r\n\r\n"
    )
    return client


async def test_a_reader_that_falls_out_of_the_ring_is_too_slow(api: Api) -> None:
    hub = Hub(api.nats_url, size=8)
    async with running(hub.run()):
        await eventually(lambda: hub.live)
        reader = await hub.reader(DOMAINS)
        begin = reader.position
        await api.place(2)
        await eventually(lambda: hub.ring.position == begin + 2)
        assert [entry.position for entry in await reader.next(1)] == [begin + 1, begin + 2]
        await api.place(20)
        await eventually(lambda: hub.ring.position == begin + 22)
        with pytest.raises(TooSlow, match=f"after={begin + 2}$"):
            await reader.next(1)


async def test_a_short_outage_of_nats_is_not_noticed(fresh_database: Database, own_nats: NatsServer) -> None:
    async with an_api(fresh_database, own_nats.url, patience=30) as api, api.follow() as staff:
        await hello(staff)
        await api.place(2)
        assert positions(await take(staff, 2)) == [1, 2]
        own_nats.kill()
        await api.place(2)
        await own_nats.start()
        assert positions(await take(staff, 2)) == [3, 4]


async def test_while_nats_is_away_staff_are_sent_away_and_resume_when_it_is_back(
    fresh_database: Database, own_nats: NatsServer
) -> None:
    async with an_api(fresh_database, own_nats.url, patience=0.1) as api:
        async with api.follow() as staff:
            await hello(staff)
            await api.place(3)
            assert positions(await take(staff, 3)) == [1, 2, 3]
            own_nats.kill()
            messages, close = await close_of(staff)
        told = (CloseCode.TRY_AGAIN_LATER, "no events come in at the moment: try again later")
        assert (messages, (close.code, close.reason)) == ([], told)
        async with api.follow(after=3) as staff:
            assert await close_of(staff) == ([], close)
        await api.place(3)
        await own_nats.start()
        await eventually(lambda: api.hub.live)
        async with api.follow(after=2) as staff:
            assert await hello(staff) == 2
            assert positions(await take_until(staff, 6)) == [3, 4, 5, 6]


async def test_the_api_starts_while_nats_is_away(fresh_database: Database, own_nats: NatsServer) -> None:
    own_nats.kill()
    async with an_api(fresh_database, own_nats.url, patience=0.1, relayed=False) as api:
        async with api.follow() as staff:
            _, close = await close_of(staff)
        assert close.code == CloseCode.TRY_AGAIN_LATER


async def test_a_server_that_stops_says_so(live_database: Database, api: Api) -> None:
    async with an_api(live_database, api.nats_url, relayed=False) as own:
        await eventually(lambda: own.hub.live)
        staff: ClientConnection = await own.follow()
        await hello(staff)
    _, close = await close_of(staff)
    assert close.code == CloseCode.SERVICE_RESTART

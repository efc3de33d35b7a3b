"""The relay: every event of a domain's table gets into the stream, once, in order, whatever dies on the way."""

import asyncio
import logging
import os
import random
import subprocess
import sys
from datetime import timedelta

import pytest
from nats.js.api import RetentionPolicy, StoreCompression, StreamConfig
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, use_span
from sqlalchemy import text

from consumers.watch import Watch
from events.log import EventLog
from events.recorded import START, LogPosition
from events.relay import Relay
from events.store import Causation, caused_by
from events.stream import Limits, connected, ensure_stream, event_stream
from kernel.database import Database
from kernel.errors import ConcurrencyConflict, Misconfigured
from kernel.ids import new_id, now
from kernel.locks import lock_key
from tests.events.log import (
    STREAM_CONFIG,
    all_published,
    append,
    assert_once_and_in_order,
    published,
    recorded,
    relay,
    running,
    write,
    write_many,
)
from tests.nats import NatsServer, a_nats_server
from tests.waiting import eventually


async def test_an_event_whose_transaction_commits_late_is_not_skipped(
    fresh_database: Database, own_nats: NatsServer
) -> None:
    early, late = new_id(), new_id()
    async with running(relay(fresh_database, own_nats.url)):
        async with fresh_database.transaction() as slow:
            await append(slow, late, "written first, committed last")
            await write(fresh_database, early, "written last, committed first")
            async with fresh_database.transaction() as reader:
                page = await EventLog("depot").after(reader, START)
            assert (page.events, page.held_back) == ([], True)
        found = await all_published(fresh_database, own_nats.url)
    assert [event.stream for event in found] == [f"list-{late}", f"list-{early}"]
    assert_once_and_in_order(found, await recorded(fresh_database))


async def test_a_number_drawn_late_by_a_transaction_that_began_early_is_not_skipped(
    fresh_database: Database, own_nats: NatsServer
) -> None:
    early, late = new_id(), new_id()
    async with running(relay(fresh_database, own_nats.url)):
        async with fresh_database.transaction() as slow:
            await slow.execute(text("SELECT pg_current_xact_id()"))
            await write(fresh_database, early, "has the lower number")
            await append(slow, late, "has the older transaction")
        found = await all_published(fresh_database, own_nats.url)
    assert sorted(event.stream for event in found) == sorted([f"list-{late}", f"list-{early}"])
    assert_once_and_in_order(found, await recorded(fresh_database))


async def test_a_transaction_that_began_before_the_last_event_of_a_stream_can_not_follow_it(
    fresh_database: Database,
) -> None:
    stream = new_id()
    async with fresh_database.transaction() as old:
        await old.execute(text("SELECT pg_current_xact_id()"))
        await write(fresh_database, stream, "first")
        with pytest.raises(ConcurrencyConflict):
            await append(old, stream, "second")
    await write(fresh_database, stream, "second")
    assert [row[2] for row in await recorded(fresh_database)] == [1, 2]


async def test_what_led_to_an_event_travels_with_it(fresh_database: Database, own_nats: NatsServer) -> None:
    order_id = new_id()
    trace = SpanContext(0xA0, 0xB0, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    with use_span(NonRecordingSpan(trace)), caused_by(Causation(order_id, "depot.cancel/run/1")):
        await write(fresh_database, order_id, "caused")
    async with running(relay(fresh_database, own_nats.url)):
        (event,) = await all_published(fresh_database, own_nats.url)
    assert event.subject == f"mallbots.depot.ShoppingListCancelled.list-{order_id}"
    assert (event.correlation_id, event.causation_id) == (order_id, "depot.cancel/run/1")
    assert event.trace_context == {"traceparent": f"00-{0xA0:032x}-{0xB0:016x}-01"}
    assert (event.schema_version, event.version, event.fields()["reason"]) == (1, 1, "caused")
    async with connected(own_nats.url, "test") as nats:
        message = await nats.jetstream.get_msg("MALLBOTS", seq=1)
    assert message.headers is not None
    assert message.headers["Nats-Msg-Id"] == str(event.id)


async def test_events_are_published_as_soon_as_they_are_committed(
    fresh_database: Database, own_nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("events.relay._POLL", 600.0)
    async with running(relay(fresh_database, own_nats.url)):
        for _ in range(3):
            await write(fresh_database, new_id(), "told by NOTIFY, not found by polling")
            await all_published(fresh_database, own_nats.url, timeout=5)


async def test_while_nats_is_away_events_wait_and_the_lag_shows_it(
    fresh_database: Database, own_nats: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    watch = Watch(own_nats.url, lambda name: fresh_database)
    own_nats.kill()
    await write_many(fresh_database, streams=5, events=4)
    async with running(relay(fresh_database, own_nats.url)):
        await eventually(lambda: "NATS does not answer" in caplog.text)
        behind = await watch.relay("depot", None)
        assert (behind.waiting, behind.seconds > 0) == (20, True)
        await own_nats.start()
        found = await all_published(fresh_database, own_nats.url)
        assert_once_and_in_order(found, await recorded(fresh_database))

        async def is_up_to_date() -> bool:
            now = await watch.relay("depot", None)
            return (now.waiting, now.seconds) == (0, 0.0)

        await eventually(is_up_to_date)


async def test_a_second_relay_stands_by_and_takes_over(
    fresh_database: Database, own_nats: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "events.relay")
    async with running(relay(fresh_database, own_nats.url)):
        await eventually(lambda: "relay of depot: active" in caplog.text)
        second = asyncio.create_task(relay(fresh_database, own_nats.url))
        await eventually(lambda: "another one is active; this one stands by" in caplog.text)
        await write(fresh_database, new_id(), "by the first")
        await all_published(fresh_database, own_nats.url)
    async with running(_until_cancelled(second)):
        await write(fresh_database, new_id(), "by the second")
        found = await all_published(fresh_database, own_nats.url)
    assert_once_and_in_order(found, await recorded(fresh_database))


async def test_a_relay_that_lost_its_lock_does_no_harm(fresh_database: Database, own_nats: NatsServer) -> None:
    holder = text(
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted"
        " AND (classid::bigint << 32) | objid::bigint = :key"
    )
    both = (relay(fresh_database, own_nats.url), relay(fresh_database, own_nats.url))
    async with running(*both, write_many(fresh_database, streams=20, events=10)):
        for _ in range(5):

            async def ended() -> bool:
                async with fresh_database.transaction() as connection:
                    return bool((await connection.execute(holder, {"key": lock_key("relay", "depot")})).all())

            await eventually(ended)
        found = await all_published(fresh_database, own_nats.url)
        await eventually(lambda: _has_all(fresh_database, 200))
        found = await all_published(fresh_database, own_nats.url)
    assert_once_and_in_order(found, await recorded(fresh_database))


async def test_each_event_is_in_the_stream_once_and_in_order_although_relays_and_nats_are_killed(
    fresh_database: Database, own_nats: NatsServer
) -> None:
    dice = random.Random(3)
    url = fresh_database.engine.url.render_as_string(hide_password=False)
    environment = os.environ | {"MALLBOTS_DEPOT_DATABASE_URL": url, "MALLBOTS_NATS_URL": own_nats.url}
    relays: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        relays.append(_spawn(environment))

    def kill() -> None:
        relay = relays.pop(0)
        relay.kill()
        relay.wait()

    async def published_more(than: int) -> int:
        async def count() -> int:
            number = len(await published(own_nats.url))
            return number if number > than else 0

        return await eventually(count, timeout=20)

    try:
        start()
        start()
        writing = asyncio.create_task(_write_until_told(fresh_database, stop := asyncio.Event()))
        seen = 0
        for victim in dice.sample(["relay", "nats"] * 3, 6):
            seen = await published_more(seen)
            if victim == "relay":
                kill()
                start()
            else:
                own_nats.kill()
                await own_nats.start()
        stop.set()
        await writing
        found = await all_published(fresh_database, own_nats.url)
    finally:
        while relays:
            kill()
    assert_once_and_in_order(found, await recorded(fresh_database))


async def test_a_stream_with_other_settings_than_ours_is_refused_and_left_as_it_is(
    fresh_database: Database, own_nats: NatsServer
) -> None:
    async with connected(own_nats.url, "test") as nats:
        theirs = StreamConfig("MALLBOTS", subjects=["mallbots.>"], retention=RetentionPolicy.WORK_QUEUE)
        await nats.jetstream.add_stream(theirs)
        with pytest.raises(Misconfigured, match="MALLBOTS is not ours: retention is workqueue, not limits"):
            await asyncio.wait_for(relay(fresh_database, own_nats.url), 10)
        assert (await nats.jetstream.stream_info("MALLBOTS")).config.retention == "workqueue"


async def test_a_full_disk_of_nats_is_told_and_loses_nothing(
    fresh_database: Database, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A server that has no room left does not answer a batch.
    monkeypatch.setattr("events.stream.API_TIMEOUT", 0.5)
    without_reservation = StreamConfig(**{**STREAM_CONFIG.__dict__, "max_bytes": -1})
    with a_nats_server(max_store=100_000) as nats:
        await nats.start()
        async with running(Relay("depot", fresh_database, nats.url, without_reservation).run()):
            await write_many(fresh_database, streams=50, events=8)
            await eventually(lambda: "NATS does not take events into MALLBOTS: insufficient" in caplog.text, 30)
            assert 0 < len(await published(nats.url)) < 400
            nats.kill()
            nats.limit(None)
            await nats.start()
            found = await all_published(fresh_database, nats.url)
    assert_once_and_in_order(found, await recorded(fresh_database))


async def test_a_disk_that_is_too_small_for_the_stream_is_told(
    fresh_database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    with a_nats_server(max_store=100_000) as nats:
        await nats.start()
        async with running(relay(fresh_database, nats.url)):
            await eventually(lambda: "NATS refused: insufficient storage resources available" in caplog.text)


async def test_a_stream_that_was_lost_is_filled_again(fresh_database: Database, own_nats: NatsServer) -> None:
    async with running(relay(fresh_database, own_nats.url)):
        await write_many(fresh_database, streams=2, events=3)
        await all_published(fresh_database, own_nats.url)
        async with connected(own_nats.url, "test") as nats:
            await nats.jetstream.delete_stream("MALLBOTS")
        await write(fresh_database, new_id(), "after it was lost")
        found = await all_published(fresh_database, own_nats.url)
    assert_once_and_in_order(found, await recorded(fresh_database))


async def test_a_stream_that_ends_with_an_event_that_the_table_does_not_have_is_refused(
    fresh_database: Database, own_nats: NatsServer
) -> None:
    await write_many(fresh_database, streams=2, events=2)
    async with running(relay(fresh_database, own_nats.url)):
        *_, last = await all_published(fresh_database, own_nats.url)
    async with fresh_database.transaction() as connection:
        # As in a backup that is a little older than the stream.
        await connection.execute(text("DELETE FROM depot.events WHERE id = :id"), {"id": last.id})
    await write(fresh_database, new_id(), "after the backup was restored")
    with pytest.raises(Misconfigured, match=f"depot that its table does not have \\({last.id}\\)"):
        await asyncio.wait_for(relay(fresh_database, own_nats.url), 5)
    async with connected(own_nats.url, "test") as nats:
        await nats.jetstream.delete_stream("MALLBOTS")
    async with running(relay(fresh_database, own_nats.url)):
        found = await all_published(fresh_database, own_nats.url)
    assert_once_and_in_order(found, await recorded(fresh_database))


async def test_a_relay_that_lost_its_lock_does_not_note_less_than_the_one_that_leads(
    fresh_database: Database, own_nats: NatsServer
) -> None:
    lost, leads = (Relay("depot", fresh_database, own_nats.url, STREAM_CONFIG) for _ in range(2))
    created_at = now()

    async def noted() -> tuple[int, int]:
        statement = text("SELECT transaction_id, position FROM depot.relay_position")
        async with fresh_database.transaction() as connection:
            row = (await connection.execute(statement)).one()
            return row.transaction_id, row.position

    await leads._note(created_at, LogPosition(20, 7))
    await lost._note(created_at, LogPosition(10, 9))
    assert await noted() == (20, 7)
    await lost._note(created_at, LogPosition(20, 8))
    assert await noted() == (20, 8)
    # A stream that was made anew is filled from the start.
    await leads._note(created_at + timedelta(seconds=1), LogPosition(1, 1))
    assert await noted() == (1, 1)


async def test_events_that_got_too_old_for_the_stream_are_not_published_again(
    fresh_database: Database, own_nats: NatsServer
) -> None:
    async with running(relay(fresh_database, own_nats.url)):
        await write_many(fresh_database, streams=2, events=3)
        await all_published(fresh_database, own_nats.url)
    async with connected(own_nats.url, "test") as nats:
        await nats.jetstream.purge_stream("MALLBOTS")
    newest = new_id()
    async with running(relay(fresh_database, own_nats.url)):
        await write(fresh_database, newest, "the only new one")
        found = await eventually(lambda: published(own_nats.url))
    assert [event.stream for event in found] == [f"list-{newest}"]


async def test_a_changed_limit_of_the_stream_is_brought_up_to_date(
    fresh_database: Database, own_nats: NatsServer
) -> None:
    await write(fresh_database, new_id(), "one")
    async with running(relay(fresh_database, own_nats.url)):
        await all_published(fresh_database, own_nats.url)
    smaller = StreamConfig(**{**STREAM_CONFIG.__dict__, "max_bytes": 1 << 20})
    async with running(Relay("depot", fresh_database, own_nats.url, smaller).run()):
        await write(fresh_database, new_id(), "two")
        await all_published(fresh_database, own_nats.url)
    async with connected(own_nats.url, "test") as nats:
        assert (await nats.jetstream.stream_info("MALLBOTS")).config.max_bytes == 1 << 20


async def test_what_operators_have_set_survives_a_changed_limit(own_nats: NatsServer) -> None:
    async with connected(own_nats.url, "test") as nats:
        await ensure_stream(nats.jetstream, STREAM_CONFIG)
        config = (await nats.jetstream.stream_info("MALLBOTS")).config
        theirs = {"description": "kept by operators", "compression": StoreCompression.S2}
        await nats.jetstream.update_stream(config.evolve(**theirs))
        await ensure_stream(nats.jetstream, event_stream(Limits(timedelta(days=2), 1 << 20)))
        config = (await nats.jetstream.stream_info("MALLBOTS")).config
    assert (config.max_age, config.max_bytes) == (timedelta(days=2).total_seconds(), 1 << 20)
    assert (config.description, config.compression) == ("kept by operators", "s2")


async def _has_all(database: Database, number: int) -> bool:
    return len(await recorded(database)) >= number


async def _until_cancelled(task: "asyncio.Task[None]") -> None:
    await task


async def _write_until_told(database: Database, stop: asyncio.Event) -> None:
    while not stop.is_set():
        await write_many(database, streams=2, events=3)
        await asyncio.sleep(0.02)  # a pace, so that there is not more to compare than to learn


def _spawn(environment: dict[str, str]) -> "subprocess.Popen[bytes]":
    command = (sys.executable, "-m", "mallbots", "relay", "--domain", "depot")
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

"""Consumers: each event takes effect once, in its stream's order, wherever it is read and whatever dies."""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest
from nats.js.api import StreamConfig
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domains.orders.service import Orders
from events.consumer import Consumer
from events.dead_letters import ask_for_retry, dead_letters
from events.group import GroupMember
from events.log import EventLog
from events.partition import Feed, Partition
from events.recorded import LogPosition, RecordedEvent, matches
from events.relay import Relay
from events.stream import connected
from kernel.database import Database
from kernel.errors import Misconfigured, Unavailable
from kernel.ids import new_id
from mallbots.migrations.consumer_tables import create_consumer_tables
from tests.events.log import STREAM_CONFIG, all_published, published, recorded, relay, running, write, write_many
from tests.nats import NatsServer
from tests.samples import place
from tests.waiting import eventually

ALL_OF_DEPOT = ("mallbots.depot.>",)


@dataclass
class Notebook:
    """What a consumer wrote down: each event that took effect, in order. `when` may raise first."""

    database: Database
    nats_url: str
    when: Callable[[RecordedEvent], None] = lambda event: None
    calls: Counter[UUID] = field(default_factory=Counter)

    def consumer(self, partitions: int = 1, subjects: tuple[str, ...] = ALL_OF_DEPOT) -> Consumer:
        return Consumer("notebook", "notes", subjects, self._note, partitions)

    @property
    def feed(self) -> Feed:
        return Feed(self.nats_url, {"depot": self.database})

    def member(self, **options: Any) -> GroupMember:
        """A process of the consumer's group."""
        return GroupMember(self.consumer(**options), self.database, self.feed)

    async def _note(self, connection: AsyncConnection, event: RecordedEvent) -> None:
        self.calls[event.id] += 1
        # The write comes first, so that a failure has something to take back.
        await connection.execute(
            text("INSERT INTO notes.notes (event_id, stream, version) VALUES (:id, :stream, :version)"),
            {"id": event.id, "stream": event.stream, "version": event.version},
        )
        self.when(event)

    async def notes(self) -> list[tuple[UUID, str, int]]:
        """What is written down, in the order of its writing."""
        async with self.database.transaction() as connection:
            rows = await connection.execute(
                text("SELECT event_id, stream, version FROM notes.notes ORDER BY number")
            )
            return [(row.event_id, row.stream, row.version) for row in rows]

    async def has(self, number: int) -> bool:
        return len(await self.notes()) >= number

    async def is_complete(self) -> bool:
        """Whether all that is in the table is written down; the order of each stream must be right."""
        notes = await self.notes()
        seen: Counter[str] = Counter()
        for _, stream, version in notes:
            seen[stream] += 1
            assert version == seen[stream], f"{stream}: {version} after {seen[stream] - 1}"
        return sorted(notes) == sorted(await recorded(self.database))


@pytest.fixture
async def notebook(fresh_database: Database, own_nats: NatsServer) -> Notebook:
    """A notebook without a note. `event_id` is not unique in it: nothing but the position keeps repeats out."""
    async with fresh_database.transaction() as connection:
        await connection.execute(text("CREATE SCHEMA notes"))
        await connection.execute(
            text(
                "CREATE TABLE notes.notes (number int GENERATED ALWAYS AS IDENTITY, event_id uuid, stream text,"
                " version int)"
            )
        )
        for statement in create_consumer_tables("notes"):
            await connection.execute(text(statement))
    return Notebook(fresh_database, own_nats.url)


async def test_an_event_that_is_delivered_ten_times_takes_effect_once(notebook: Notebook) -> None:
    await write_many(notebook.database, streams=3, events=3)
    partition = Partition(notebook.consumer(), 0, notebook.database, notebook.feed)
    async with running(relay(notebook.database, notebook.nats_url)):
        events = await all_published(notebook.database, notebook.nats_url)
    await partition._open_places()
    for _ in range(10):
        await partition._take(events)
    assert await notebook.is_complete()
    assert set(notebook.calls.values()) == {1}


async def test_a_position_that_another_process_has_moved_takes_the_effect_back(notebook: Notebook) -> None:
    await write_many(notebook.database, streams=2, events=2)
    async with running(relay(notebook.database, notebook.nats_url)):
        events = await all_published(notebook.database, notebook.nats_url)
    mine, other = (Partition(notebook.consumer(), 0, notebook.database, notebook.feed) for _ in range(2))
    await mine._open_places()
    await other._open_places()
    await other._take(events)
    with pytest.raises(Unavailable, match="another process works on notebook/0"):
        await mine._take(events)
    assert await notebook.is_complete()


async def test_a_group_shares_the_load_and_keeps_the_order_of_each_stream(notebook: Notebook) -> None:
    members = [notebook.member(partitions=4) for _ in range(2)]
    async with running(relay(notebook.database, notebook.nats_url), *(member.run() for member in members)):
        await eventually(lambda: [len(member.partitions) for member in members] == [2, 2])
        await write_many(notebook.database, streams=30, events=5)
        await eventually(notebook.is_complete)
        assert members[0].partitions | members[1].partitions == {0, 1, 2, 3}


async def test_when_a_member_of_the_group_ends_another_takes_its_partitions(notebook: Notebook) -> None:
    stays, leaves = notebook.member(partitions=3), notebook.member(partitions=3)
    async with running(relay(notebook.database, notebook.nats_url), stays.run()):
        async with running(leaves.run()):
            await eventually(lambda: leaves.partitions and stays.partitions)
            await write_many(notebook.database, streams=10, events=2)
            await eventually(lambda: notebook.has(10))
        await write_many(notebook.database, streams=10, events=2)
        await eventually(notebook.is_complete)
        assert len(stays.partitions) == 3


async def test_a_new_consumer_reads_from_the_first_event_although_the_stream_has_dropped_it(
    notebook: Notebook,
) -> None:
    small = StreamConfig(**{**STREAM_CONFIG.__dict__, "max_bytes": 64 * 1024})
    async with running(Relay("depot", notebook.database, notebook.nats_url, small).run()):
        await write_many(notebook.database, streams=60, events=5)
        await eventually(lambda: _relayed(notebook.database, 300))
        async with connected(notebook.nats_url, "test") as nats:
            assert (await nats.jetstream.stream_info("MALLBOTS")).state.first_seq > 1
        async with running(notebook.member().run()):
            # While it reads the table, the stream goes on and drops more.
            await write_many(notebook.database, streams=60, events=5)
            await eventually(notebook.is_complete, 20)


async def test_what_the_stream_lacks_in_the_middle_is_read_from_the_table(notebook: Notebook) -> None:
    await write_many(notebook.database, streams=4, events=4)
    async with running(relay(notebook.database, notebook.nats_url)):
        events = await all_published(notebook.database, notebook.nats_url)
        async with connected(notebook.nats_url, "test") as nats:
            for lost in (3, 4, 9):
                await nats.jetstream.delete_msg("MALLBOTS", lost)
        async with running(notebook.member().run()):
            await eventually(notebook.is_complete)
    assert [note[0] for note in await notebook.notes()] == [event.id for event in events]


async def test_a_stream_that_is_empty_is_no_reason_to_wait(notebook: Notebook) -> None:
    await write_many(notebook.database, streams=2, events=2)
    async with running(relay(notebook.database, notebook.nats_url)):
        await all_published(notebook.database, notebook.nats_url)
        async with connected(notebook.nats_url, "test") as nats:
            await nats.jetstream.purge_stream("MALLBOTS")
        async with running(notebook.member().run()):
            await eventually(notebook.is_complete)


@pytest.mark.parametrize("while_away", [2, 3], ids=["another domain's event", "a later event"])
async def test_a_number_that_was_noted_in_a_lost_stream_is_not_believed_in_the_next(
    notebook: Notebook, while_away: int
) -> None:
    """The new stream has something else under the number: another domain's event, or one not yet handled."""
    database, url = notebook.database, notebook.nats_url
    orders = Orders(database)
    for _ in range(3):
        await orders.place(place())
    async with running(_relay_of_orders(notebook)):
        await eventually(lambda: _stream_has(url, 3))
    await write(database, new_id(), "the fourth of the stream")
    async with running(relay(database, url)):
        await eventually(lambda: _stream_has(url, 4))
    async with running(notebook.member().run()):
        await eventually(notebook.is_complete)
    async with connected(url, "test") as nats:
        await nats.jetstream.delete_stream("MALLBOTS")
    for number in range(while_away):
        await write(database, new_id(), str(number))
    async with running(relay(database, url)):
        await eventually(lambda: _stream_has(url, 1 + while_away))
    async with running(_relay_of_orders(notebook)):
        await eventually(lambda: _stream_has(url, 4 + while_away))
    async with running(notebook.member().run()):
        await eventually(notebook.is_complete, 5)


async def test_a_consumer_that_is_stopped_and_started_neither_repeats_nor_misses(notebook: Notebook) -> None:
    dice = random.Random(5)
    async with running(relay(notebook.database, notebook.nats_url)):
        for number in range(6):
            writing = asyncio.create_task(write_many(notebook.database, streams=5, events=4))
            async with running(notebook.member().run()):
                # It is stopped somewhere in the middle.
                reached = number * 20 + dice.randrange(1, 20)
                await eventually(lambda least=reached: notebook.has(least))  # type: ignore[misc]
            await writing
        async with running(notebook.member().run()):
            await eventually(notebook.is_complete)


async def test_nats_may_be_killed_while_a_consumer_reads(notebook: Notebook, own_nats: NatsServer) -> None:
    async with running(relay(notebook.database, notebook.nats_url), notebook.member().run()):
        for reached in (10, 30):
            await write_many(notebook.database, streams=5, events=4)
            await eventually(lambda least=reached: notebook.has(least))  # type: ignore[misc]
            own_nats.kill()
            await write_many(notebook.database, streams=2, events=2)
            await own_nats.start()
        await eventually(notebook.is_complete, 20)


async def test_a_poison_event_is_set_aside_with_its_stream_and_the_rest_goes_on(
    notebook: Notebook, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("events.partition.FIRST_BACKOFF", 0.001)
    caplog.set_level(logging.CRITICAL)
    bad, good = new_id(), new_id()

    def fail(event: RecordedEvent) -> None:
        if event.fields()["reason"] == "poison":
            raise ValueError("this one I can not read")

    notebook.when = fail
    async with running(relay(notebook.database, notebook.nats_url), notebook.member().run()):
        await write(notebook.database, bad, "fine", "poison", "behind it", "further behind")
        await write(notebook.database, good, "fine", "fine")
        await eventually(lambda: notebook.has(3))
        letters = await eventually(lambda: _letters(notebook, 3))
        notes = await notebook.notes()
        assert sorted(note[1:] for note in notes) == sorted(
            [(f"list-{bad}", 1), (f"list-{good}", 1), (f"list-{good}", 2)]
        )
        poison = letters[0]
        assert poison.error == "ValueError: this one I can not read"
        assert poison.attempts == 5 == notebook.calls[poison.event_id] - 1  # and once together with others
        assert [letter.error for letter in letters[1:]] == [None, None]

        # Sent again before anything was mended, it fails again, and is kept.
        assert len(await ask_for_retry(notebook.database, "notes", event_id=poison.event_id)) == 3
        await eventually(lambda: _failed_again(notebook, poison.event_id, 6))
        assert len(await notebook.notes()) == 3

        notebook.when = lambda event: None
        assert len(await ask_for_retry(notebook.database, "notes", "notebook")) == 3
        await eventually(notebook.is_complete)
        assert await dead_letters(notebook.database, "notes") == []
        await write(notebook.database, bad, "as if nothing had been")
        await eventually(notebook.is_complete)


async def test_a_dead_letter_that_another_process_has_handled_holds_nothing_up(
    notebook: Notebook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("events.partition.FIRST_BACKOFF", 0.001)

    def fail(event: RecordedEvent) -> None:
        raise ValueError("not yet")

    stream = new_id()
    await write(notebook.database, stream, "poison", "behind it")
    async with running(relay(notebook.database, notebook.nats_url)):
        poison, behind_it = await all_published(notebook.database, notebook.nats_url)
    old, new = (Partition(notebook.consumer(), 0, notebook.database, notebook.feed) for _ in range(2))
    notebook.when = fail
    await old._open_places()
    await old._take([poison])
    await new._open_places()
    notebook.when = lambda event: None
    await ask_for_retry(notebook.database, "notes")
    # The old process has lost the partition, and has not heard of it.
    old._looked_at = 0.0
    await old._retry_letters()
    assert await notebook.has(1)
    await new._take([behind_it])
    assert await notebook.is_complete()
    assert await dead_letters(notebook.database, "notes") == []


async def test_an_outage_is_no_reason_to_set_an_event_aside(
    notebook: Notebook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("events.partition._LONGEST_PAUSE", 0.01)
    outages = iter(range(12))

    def fail(event: RecordedEvent) -> None:
        if next(outages, None) is not None:
            raise Unavailable("a part is away")

    notebook.when = fail
    async with running(relay(notebook.database, notebook.nats_url), notebook.member().run()):
        await write(notebook.database, new_id(), "fine")
        await eventually(notebook.is_complete)
    assert await dead_letters(notebook.database, "notes") == []


async def test_how_long_events_take_to_their_effect_is_a_metric(
    notebook: Notebook, metrics_told: Callable[[str], dict[str, float]]
) -> None:
    async with running(relay(notebook.database, notebook.nats_url), notebook.member().run()):
        await write(notebook.database, new_id(), "fine")
        await eventually(notebook.is_complete)
        assert metrics_told("mallbots.consumer.delay")["notebook"] >= 1


async def test_a_message_that_is_no_event_is_told_and_passed_over(
    notebook: Notebook, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(relay(notebook.database, notebook.nats_url), notebook.member().run()):
        await write(notebook.database, new_id(), "before")
        await eventually(notebook.is_complete)
        async with connected(notebook.nats_url, "test") as nats:
            await nats.jetstream.publish("mallbots.depot.Hello.world", b"I am no event")
            # Behind a stranger a relay that goes on does, too; one that begins anew says what is in its way.
            await write(notebook.database, new_id(), "after")
            await eventually(notebook.is_complete)
    assert "(mallbots.depot.Hello.world) is no event, and is passed over" in caplog.text


async def test_only_what_was_asked_for_is_handled(notebook: Notebook) -> None:
    member = notebook.member(subjects=("mallbots.depot.ShoppingListScheduled.*",))
    async with running(relay(notebook.database, notebook.nats_url), member.run()):
        await write(notebook.database, new_id(), "a cancellation")
        await eventually(lambda: _moved(notebook))
    assert await notebook.notes() == []


async def test_the_number_of_partitions_can_not_be_changed_afterwards(notebook: Notebook) -> None:
    async with running(relay(notebook.database, notebook.nats_url), notebook.member(partitions=3).run()):
        await write_many(notebook.database, streams=9, events=1)
        await eventually(notebook.is_complete)
    for other in (2, 4):
        with pytest.raises(Misconfigured, match=f"notebook has 3 partitions in its database, not {other}"):
            await asyncio.wait_for(notebook.member(partitions=other).run(), 5)
    assert await notebook.is_complete()


@pytest.mark.parametrize("subject", ["orders.>", "mallbots.>", "mallbots.kiosks.>", ">"])
def test_a_consumer_names_the_domains_that_it_listens_to(subject: str) -> None:
    with pytest.raises(ValueError, match="does not begin with mallbots and the name of a domain"):
        Consumer("wrong", "notes", (subject,), lambda connection, event: asyncio.sleep(0))


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("mallbots.orders.>", True),
        ("mallbots.orders.OrderPlaced.*", True),
        ("mallbots.*.OrderPlaced.order-1", True),
        ("mallbots.orders.OrderPlaced", False),
        ("mallbots.orders.OrderPlaced.order-1.>", False),
        ("mallbots.orders.OrderPlaced.order-2", False),
        ("mallbots.stores.>", False),
    ],
)
def test_a_subject_matches_a_pattern_as_in_nats(pattern: str, expected: bool) -> None:
    assert matches("mallbots.orders.OrderPlaced.order-1", pattern) is expected


async def _letters(notebook: Notebook, number: int) -> Any:
    letters = await dead_letters(notebook.database, "notes")
    return letters if len(letters) == number else None


async def _failed_again(notebook: Notebook, event_id: UUID, attempts: int) -> bool:
    letters = await dead_letters(notebook.database, "notes")
    return any(letter.event_id == event_id and letter.attempts == attempts for letter in letters)


async def _relayed(database: Database, number: int) -> bool:
    async with database.transaction() as connection:
        noted = (
            await connection.execute(text("SELECT transaction_id, position FROM depot.relay_position"))
        ).first()
        if noted is None:
            return False
        waiting = await EventLog("depot").waiting(connection, LogPosition(*noted))
        return len(await recorded(database)) >= number and waiting.events == 0


def _relay_of_orders(notebook: Notebook) -> Any:
    return Relay("orders", notebook.database, notebook.nats_url, STREAM_CONFIG).run()


async def _stream_has(nats_url: str, number: int) -> bool:
    return len(await published(nats_url)) == number


async def _moved(notebook: Notebook) -> bool:
    async with notebook.database.transaction() as connection:
        return bool(await connection.scalar(text("SELECT max(position) > 0 FROM notes.consumer_positions")))

"""Notifications: the customer is told what becomes of the order, once, through whatever fails on the way."""

import asyncio
import itertools
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
import uvicorn
from pydantic import SecretStr, ValidationError
from sqlalchemy import text
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError
from typer.testing import CliRunner

from consumers.notifications.consumer import CONSUMER, NEWS_FOR
from consumers.notifications.log import LogNotifier
from consumers.notifications.messages import Notification, NotificationView
from consumers.notifications.port import Undeliverable
from consumers.notifications.sender import QUEUE, RETRY_SCHEDULE, Sender
from consumers.notifications.service import WAKE_SENDERS, Notifications
from consumers.notifications.webhook import WebhookNotifier
from domains.orders.messages import (
    EVENTS,
    OrderAdjusted,
    OrderApproved,
    OrderCancelled,
    OrderCompleted,
    OrderExpired,
    OrderPlaced,
    OrderReadied,
    OrderRefunded,
    OrderRefundWithdrawn,
    OrderRejected,
    PickupReminded,
)
from events.event import Event
from events.group import GroupMember
from events.partition import Feed
from events.relay import Relay
from events.store import EventStore
from events.stream import connected
from events.work_queue import WORK_STREAM, work_queue
from kernel.database import Database
from kernel.errors import Conflict, Misconfigured, NotFound, Refusal, Unavailable
from kernel.ids import new_id, now
from kernel.messages import Cancellation, Expiry, Pieces, Substitution
from mallbots.cli import app
from mallbots.consuming import ROLES, consume
from mallbots.notifying import notifier
from mallbots.settings import DATABASES, Settings
from tests.conftest import create_database
from tests.consumers.reading import handle_again, read_all
from tests.events.log import STREAM_CONFIG, running
from tests.nats import NatsServer, a_nats_server
from tests.samples import line, priced
from tests.waiting import eventually

STORE = EventStore("orders", EVENTS)
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SOON = timedelta(seconds=0.05)
LATER = timedelta(hours=1)

By = Any  # "customer", "staff", "operator" or "mall"
UNTIL = datetime(2026, 3, 15, 9, 26, 53, tzinfo=UTC)


@pytest.fixture(scope="module")
async def shared_database(postgres: str, template: str) -> AsyncIterator[Database]:
    """A database with every schema in it that the tests of this file share, one after the other."""
    opened = Database("test", await create_database(postgres, template), pool_size=20)
    yield opened
    await opened.close()


@pytest.fixture
async def mall_database(shared_database: Database) -> Database:
    """The shared database, without what the tests before left."""
    async with shared_database.transaction() as connection:
        await connection.execute(text("TRUNCATE notifications.orders, orders.events CASCADE"))
        await connection.execute(text("DELETE FROM notifications.consumer_positions"))
    return shared_database


@pytest.fixture(scope="module")
async def nats_server() -> AsyncIterator[NatsServer]:
    """A NATS server that the tests of this file share."""
    with a_nats_server() as server:
        await server.start()
        yield server


class Recorder:
    """A notifier that keeps what it is given. The first attempts at each notification fail with `errors`."""

    def __init__(self, *errors: Exception) -> None:
        self.told: list[Notification] = []
        self.times: list[float] = []
        self._errors = errors
        self._attempts: Counter[UUID] = Counter()

    async def notify(self, notification: Notification) -> None:
        self.times.append(asyncio.get_running_loop().time())
        self._attempts[notification.id] += 1
        if (attempt := self._attempts[notification.id]) <= len(self._errors):
            raise self._errors[attempt - 1]
        self.told.append(notification)


def placed(order_id: UUID, customer: str | None = "ada") -> OrderPlaced:
    return OrderPlaced(
        order_id=order_id,
        kiosk="kiosk-1",
        customer=customer,
        lines=[line("tea")],
        payment_method="card",
        currency="USD",
        placed_at=now(),
    )


def approved(order_id: UUID) -> OrderApproved:
    lines = [priced("tea", name="Black Tea"), priced("mug", 1, name="Chipped Mug")]
    return OrderApproved(order_id=order_id, lines=lines, total_cents=1350, pickup_code="C275TC")


def adjusted(order_id: UUID) -> OrderAdjusted:
    """One tea of two is missing, and a rooibos there instead; the mug is missing, and nothing instead."""
    rooibos = priced("rooibos", 1, 400, name="Rooibos")
    return OrderAdjusted(
        order_id=order_id,
        round=1,
        lines=[priced("tea", 1, name="Black Tea"), rooibos],
        total_cents=850,
        missing=[Pieces(sku="tea", quantity=1), Pieces(sku="mug", quantity=1)],
        substituted=[Substitution(sku="tea", line=rooibos)],
    )


def substitute_missing(order_id: UUID) -> OrderAdjusted:
    return OrderAdjusted(
        order_id=order_id,
        round=2,
        lines=[priced("tea", 1, name="Black Tea")],
        total_cents=450,
        missing=[Pieces(sku="rooibos", quantity=1)],
        substituted=[],
    )


REFUND = new_id()


def refunded(order_id: UUID) -> OrderRefunded:
    return OrderRefunded(
        order_id=order_id,
        refund_id=REFUND,
        lines=[priced("tea", 1, name="Black Tea"), priced("rooibos", 2, name="Rooibos")],
        amount_cents=1350,
        currency="USD",
        reason="not for customers",
        by="bea",
    )


def withdrawn(order_id: UUID) -> OrderRefundWithdrawn:
    return OrderRefundWithdrawn(order_id=order_id, refund_id=REFUND, reason="not_refundable")


def reminded(order_id: UUID, number: int) -> PickupReminded:
    return PickupReminded(order_id=order_id, number=number)


def cancelled(order_id: UUID, by: By = "customer", reason: str = "not for customers") -> OrderCancelled:
    return OrderCancelled(order_id=order_id, cancellation=Cancellation(by=by, reason=reason))


async def happen(database: Database, order_id: UUID, *events: Event) -> None:
    """Let these events of an order have happened, each in a transaction of its own."""
    for event in events:
        async with database.transaction() as connection:
            await STORE.record(connection, [(f"order-{order_id}", event)])


async def written(database: Database, *events: Callable[[UUID], Event], customer: str | None = "ada") -> UUID:
    """The order of which these events happened after it was placed; its notifications are written."""
    order_id = new_id()
    await happen(database, order_id, placed(order_id, customer), *(event(order_id) for event in events))
    await read_all(CONSUMER, database)
    return order_id


async def all_of(database: Database) -> list[NotificationView]:
    """Every notification, the oldest first."""
    return (await Notifications(database).newest(1_000))[::-1]


async def only_one(database: Database) -> NotificationView:
    (found,) = await all_of(database)
    return found


async def until(database: Database, status: str) -> None:
    """Wait until all notifications have this status."""

    async def have() -> bool:
        found = await all_of(database)
        return bool(found) and all(one.status == status for one in found)

    await eventually(have)


def sender(database: Database, server: NatsServer, chosen: Any, **options: Any) -> Any:
    """A sender at work, whose pauses are short unless another schedule is given."""
    return Sender(database, server.url, chosen, **{"schedule": (SOON,) * 5, **options}).run()


async def change(database: Database, **columns: object) -> None:
    """Set columns of all notifications."""
    changes = ", ".join(f"{name} = :{name}" for name in columns)
    async with database.transaction() as connection:
        await connection.execute(text(f"UPDATE notifications.notifications SET {changes}"), columns)


async def jobs_of(notification_id: UUID, server: NatsServer) -> int:
    """How many jobs of a notification are on the queue."""
    assert WORK_STREAM.name is not None
    async with connected(server.url, "test") as nats:
        found = await nats.jetstream.stream_info(WORK_STREAM.name, subjects_filter=f"work.{QUEUE}.>")
        return sum(1 for subject in found.state.subjects or {} if str(notification_id) in subject)


# What is told


@pytest.mark.parametrize(
    ("events", "kind", "sentence"),
    [
        ([approved], "received", "Thank you for your order. Your pickup code is C275TC."),
        (
            [approved, lambda order_id: OrderReadied(order_id=order_id)],
            "ready",
            "Your order C275TC is ready: collect it at the desk.",
        ),
        (
            [approved, lambda order_id: PickupReminded(order_id=order_id)],
            "reminder",
            "Your order C275TC still waits for you at the desk.",
        ),
        (
            [approved, *(partial(reminded, number=number) for number in (1, 2))],
            "reminder",
            "Your order C275TC still waits for you at the desk. This is reminder 2.",
        ),
        (
            [approved, lambda order_id: OrderReadied(order_id=order_id, pickup_until=UNTIL)],
            "ready",
            "Your order C275TC is ready: collect it at the desk until 2026-03-15 09:26 UTC.",
        ),
        (
            [approved, lambda order_id: OrderExpired(order_id=order_id, expiry=Expiry(pickup_until=UNTIL))],
            "expired",
            "Nobody came for your order C275TC in time, so it is not kept. You pay nothing for it.",
        ),
        (
            [approved, adjusted],
            "adjusted",
            "Of your order C275TC we could not find 1 × Black Tea and 1 × Chipped Mug. "
            "You get 1 × Rooibos instead of Black Tea. It costs 8.50 USD now.",
        ),
        (
            [approved, adjusted, substitute_missing],
            "adjusted",
            "Of your order C275TC we could not find 1 × Rooibos. It costs 4.50 USD now.",
        ),
        (
            [approved, refunded],
            "refunded",
            "We are giving you 13.50 USD back for 1 × Black Tea and 2 × Rooibos of your order C275TC.",
        ),
        (
            [approved, refunded, withdrawn],
            "refund_failed",
            "We could not give you 13.50 USD back for your order C275TC: please ask at the desk.",
        ),
        (
            [approved, lambda order_id: cancelled(order_id, "mall", "nothing of it was found")],
            "cancelled",
            "Your order C275TC was cancelled by the mall: nothing of it was found. You pay nothing for it.",
        ),
        (
            [approved, cancelled],
            "cancelled",
            "Your order C275TC was cancelled as you wished. You pay nothing for it.",
        ),
        (
            [approved, lambda order_id: cancelled(order_id, "staff")],
            "cancelled",
            "Your order C275TC was cancelled by the mall. You pay nothing for it.",
        ),
        (
            [lambda order_id: cancelled(order_id, "operator")],
            "cancelled",
            "Your order from kiosk-1 was cancelled by the mall. You pay nothing for it.",
        ),
    ],
)
async def test_the_customer_is_told_in_a_sentence(
    mall_database: Database, events: list[Callable[[UUID], Event]], kind: str, sentence: str
) -> None:
    order_id = await written(mall_database, *events)
    last = (await all_of(mall_database))[-1]
    assert (last.kind, last.text) == (kind, sentence)
    assert (last.order_id, last.customer, last.kiosk, last.status) == (order_id, "ada", "kiosk-1", "pending")
    assert last.pickup_code == ("C275TC" if approved in events else None)
    async with mall_database.transaction() as connection:
        newest = text("SELECT id, recorded_at FROM orders.events ORDER BY position DESC LIMIT 1")
        event = (await connection.execute(newest)).one()
    assert (last.id, last.created_at) == (event.id, event.recorded_at)


async def test_of_an_order_without_a_customer_nobody_is_told(mall_database: Database) -> None:
    await written(mall_database, approved, cancelled, customer=None)
    assert await all_of(mall_database) == []


async def test_a_refusal_and_a_hand_over_are_not_told_because_the_customer_is_there(
    mall_database: Database,
) -> None:
    refusal = Refusal(code="payment_declined", detail="the card was declined")
    await written(mall_database, lambda order_id: OrderRejected(order_id=order_id, refusal=refusal))
    await written(mall_database, lambda order_id: OrderCompleted(order_id=order_id))
    assert await all_of(mall_database) == []


async def test_each_reminder_is_told_once(mall_database: Database) -> None:
    reminders = [partial(reminded, number=number) for number in (1, 2)]
    await written(mall_database, approved, *reminders)
    await handle_again(CONSUMER, mall_database)
    assert [one.kind for one in await all_of(mall_database)] == ["received", "reminder", "reminder"]


async def test_of_a_refund_that_never_was_nothing_is_told(mall_database: Database) -> None:
    await written(mall_database, approved, withdrawn)
    assert [one.kind for one in await all_of(mall_database)] == ["received"]


async def test_an_event_that_comes_twice_is_told_once(mall_database: Database, nats_server: NatsServer) -> None:
    await written(mall_database, approved)
    before = await all_of(mall_database)
    await handle_again(CONSUMER, mall_database)
    assert await all_of(mall_database) == before
    recorder = Recorder()
    async with running(sender(mall_database, nats_server, recorder)):
        await until(mall_database, "sent")
        await handle_again(CONSUMER, mall_database)
        await written(mall_database, approved)
        await until(mall_database, "sent")
    assert Counter(one.id for one in recorder.told) == {one.id: 1 for one in await all_of(mall_database)}


async def test_what_happened_long_ago_is_not_told_but_what_happens_now_is(mall_database: Database) -> None:
    order_id = new_id()
    await happen(mall_database, order_id, placed(order_id), approved(order_id))
    async with mall_database.transaction() as connection:
        long_ago = {"then": now() - NEWS_FOR - timedelta(minutes=1)}
        await connection.execute(text("UPDATE orders.events SET recorded_at = :then"), long_ago)
    await happen(mall_database, order_id, OrderReadied(order_id=order_id))
    await read_all(CONSUMER, mall_database)
    only = await only_one(mall_database)
    assert only.text == "Your order C275TC is ready: collect it at the desk."


# How it is sent


async def test_from_the_event_to_the_customer(mall_database: Database, nats_server: NatsServer) -> None:
    recorder, order_id = Recorder(), new_id()
    feed = Feed(nats_server.url, {"orders": mall_database})
    async with running(
        Relay("orders", mall_database, nats_server.url, STREAM_CONFIG).run(),
        GroupMember(CONSUMER, mall_database, feed).run(),
        sender(mall_database, nats_server, recorder),
    ):
        await happen(mall_database, order_id, placed(order_id), approved(order_id))
        await eventually(lambda: len(recorder.told) == 1, timeout=20)
        # The senders are woken: nobody waits until they look by themselves.
        began = asyncio.get_running_loop().time()
        await happen(mall_database, order_id, OrderReadied(order_id=order_id))
        await eventually(lambda: len(recorder.told) == 2)
        assert asyncio.get_running_loop().time() - began < 3
        await until(mall_database, "sent")
    assert [one.kind for one in recorder.told] == ["received", "ready"]
    stored = await all_of(mall_database)
    assert [Notification(**one.model_dump()) for one in stored] == recorder.told
    for one in stored:
        assert one.attempts == 1
        assert one.sent_at is not None


async def test_several_senders_tell_each_once(mall_database: Database, nats_server: NatsServer) -> None:
    for _ in range(15):
        await written(mall_database, approved, cancelled)
    recorders = [Recorder() for _ in range(3)]
    async with running(*(sender(mall_database, nats_server, recorder) for recorder in recorders)):
        await until(mall_database, "sent")
    told = Counter(one.id for recorder in recorders for one in recorder.told)
    assert told == {one.id: 1 for one in await all_of(mall_database)}
    assert len(told) == 30


async def test_one_that_can_not_be_sent_does_not_hold_up_the_others(
    mall_database: Database, nats_server: NatsServer
) -> None:
    stuck = await written(mall_database, *[approved] * 6)

    class Choosy(Recorder):
        async def notify(self, notification: Notification) -> None:
            if notification.order_id == stuck:
                raise Unavailable("nobody there")
            await super().notify(notification)

    async def all_refused() -> list[NotificationView]:
        waiting = [one for one in await all_of(mall_database) if one.order_id == stuck]
        return waiting if all(one.error for one in waiting) else []

    recorder = Choosy()
    async with running(sender(mall_database, nats_server, recorder, schedule=(LATER,))):
        await written(mall_database, approved)
        await eventually(lambda: recorder.told)
        waiting = await eventually(all_refused)
    assert [(one.status, one.attempts, one.error) for one in waiting] == [("pending", 1, "nobody there")] * 6
    for one in waiting:
        assert timedelta(minutes=59) < one.due_at - now() < timedelta(minutes=61)


async def test_what_fails_is_tried_again_after_growing_pauses(
    mall_database: Database, nats_server: NatsServer
) -> None:
    recorder = Recorder(Unavailable("away"), RuntimeError("broken"), TimeoutError())
    schedule = [timedelta(seconds=seconds) for seconds in (0.05, 0.2, 0.4)]
    await written(mall_database, approved)
    async with running(sender(mall_database, nats_server, recorder, schedule=schedule)):
        await until(mall_database, "sent")
    pauses = [after - before for before, after in itertools.pairwise(recorder.times)]
    for pause, wanted in zip(pauses, schedule, strict=True):
        assert pause >= wanted.total_seconds()
    only = await only_one(mall_database)
    assert (only.attempts, only.error) == (4, None)


async def test_when_all_attempts_are_used_up_it_has_failed(
    mall_database: Database, nats_server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder(*[Unavailable("away")] * 3)
    await written(mall_database, approved)
    async with running(sender(mall_database, nats_server, recorder, schedule=(SOON, SOON))):
        await until(mall_database, "failed")
    only = await only_one(mall_database)
    assert (only.attempts, only.error, only.sent_at) == (3, "away", None)
    assert f"notification {only.id} has failed after 3 attempts: away" in caplog.text
    assert await Notifications(mall_database).newest(10, "failed") == [only]
    assert await Notifications(mall_database).newest(10, "sent") == []


async def test_a_notifier_that_hangs_is_given_up(mall_database: Database, nats_server: NatsServer) -> None:
    class Hanging(Recorder):
        async def notify(self, notification: Notification) -> None:
            await super().notify(notification)
            await asyncio.Event().wait()

    await written(mall_database, approved)
    options = {"schedule": (), "lease": timedelta(seconds=0.4)}
    async with running(sender(mall_database, nats_server, Hanging(), **options)):
        await until(mall_database, "failed")
    assert (await only_one(mall_database)).error == "TimeoutError"


async def test_by_default_it_is_tried_for_three_days() -> None:
    assert RETRY_SCHEDULE[0] == timedelta(seconds=5)
    assert len(RETRY_SCHEDULE) == 9
    assert timedelta(days=3) < sum(RETRY_SCHEDULE, timedelta()) < timedelta(days=4)


async def test_after_a_sender_died_it_is_sent_again_under_the_same_id(
    mall_database: Database, nats_server: NatsServer
) -> None:
    class Dying(Recorder):
        async def notify(self, notification: Notification) -> None:
            await super().notify(notification)
            await asyncio.Event().wait()

    dying, recorder = Dying(), Recorder()
    await written(mall_database, approved)
    lease = timedelta(seconds=0.6)
    async with running(sender(mall_database, nats_server, dying, lease=lease)):
        await eventually(lambda: dying.told)
    async with running(sender(mall_database, nats_server, recorder, lease=lease)):
        await until(mall_database, "sent")
    assert recorder.told == dying.told
    # Not before the first could not be at it any more.
    assert recorder.times[0] - dying.times[0] >= 0.5
    assert (await only_one(mall_database)).attempts == 2


async def test_a_job_that_comes_twice_is_done_once(mall_database: Database, nats_server: NatsServer) -> None:
    await written(mall_database, approved)
    only = await only_one(mall_database)
    recorder = Recorder()
    async with work_queue(nats_server.url, QUEUE) as queue:
        for number in range(3):
            assert await queue.hand_out(f"{only.id}-again-{number}", str(only.id).encode())
    async with running(sender(mall_database, nats_server, recorder, lease=timedelta(seconds=0.5))):
        await until(mall_database, "sent")

        async def all_jobs_are_done() -> bool:
            return await jobs_of(only.id, nats_server) == 0

        await eventually(all_jobs_are_done)
    assert [one.id for one in recorder.told] == [only.id]


# What gets lost


async def test_one_whose_job_got_lost_is_handed_out_again(
    mall_database: Database, nats_server: NatsServer
) -> None:
    recorder = Recorder(Unavailable("away"))
    await written(mall_database, approved)
    # Whoever is ended in the middle of the next attempt leaves it leased.
    lease = timedelta(seconds=1)
    async with running(
        sender(mall_database, nats_server, recorder, schedule=(timedelta(seconds=0.2),), lease=lease)
    ):

        async def waits() -> bool:
            return (await only_one(mall_database)).attempts == 1

        await eventually(waits)
    assert WORK_STREAM.name is not None
    async with connected(nats_server.url, "test") as nats:
        await nats.jetstream.delete_stream(WORK_STREAM.name)
    async with running(
        sender(mall_database, nats_server, recorder, lost_after=timedelta(seconds=0.3), lease=lease)
    ):

        async def is_sent() -> bool:
            async with mall_database.transaction() as connection:
                await connection.execute(WAKE_SENDERS)
            return (await only_one(mall_database)).status == "sent"

        await eventually(is_sent)
    assert len(recorder.told) == 1


async def test_looking_for_lost_jobs_disturbs_none_that_waits_for_its_next_attempt(
    mall_database: Database, nats_server: NatsServer
) -> None:
    recorder = Recorder(Unavailable("away"))
    await written(mall_database, approved)
    schedule = (timedelta(seconds=0.5),)
    async with running(sender(mall_database, nats_server, recorder, schedule=schedule, lost_after=timedelta(0))):
        seen: set[int] = set()

        async def is_sent() -> bool:
            async with mall_database.transaction() as connection:
                await connection.execute(WAKE_SENDERS)
            only = await only_one(mall_database)
            seen.add(await jobs_of(only.id, nats_server))
            return only.status == "sent"

        await eventually(is_sent)
    first, second = recorder.times
    assert second - first >= 0.5
    assert seen <= {0, 1}


async def test_a_long_queue_is_not_made_longer_by_looking_for_lost_jobs(
    mall_database: Database, nats_server: NatsServer
) -> None:
    await written(mall_database, approved)
    only = await only_one(mall_database)
    long_ago = now() - timedelta(hours=1)
    await change(mall_database, handed_out_at=long_ago, due_at=long_ago)
    async with work_queue(nats_server.url, QUEUE) as queue:
        await queue.hand_out(f"{only.id}-0", str(only.id).encode())
        chosen = Sender(mall_database, nats_server.url, Recorder())
        await chosen._hand_out(queue)
    assert await jobs_of(only.id, nats_server) == 1


async def test_while_nats_is_away_notifications_wait(mall_database: Database) -> None:
    recorder = Recorder()
    with a_nats_server() as server:
        async with running(sender(mall_database, server, recorder)):
            await written(mall_database, approved)
            await server.start()
            await until(mall_database, "sent")
    assert len(recorder.told) == 1


# Sending again


async def test_one_that_was_sent_is_sent_again_under_the_same_id(
    mall_database: Database, nats_server: NatsServer
) -> None:
    notifications, recorder = Notifications(mall_database), Recorder()
    await written(mall_database, approved)
    async with running(sender(mall_database, nats_server, recorder)):
        await until(mall_database, "sent")
        for times in (2, 3):
            await notifications.resend((await only_one(mall_database)).id)
            await eventually(lambda times=times: len(recorder.told) == times)  # type: ignore[misc]
            await until(mall_database, "sent")
    assert recorder.told == recorder.told[:1] * 3
    assert (await only_one(mall_database)).attempts == 1


async def test_one_that_failed_is_sent_again_with_as_many_attempts_as_a_new_one(
    mall_database: Database, nats_server: NatsServer
) -> None:
    recorder = Recorder(Undeliverable("gone"), Unavailable("away"))
    await written(mall_database, approved)
    async with running(sender(mall_database, nats_server, recorder, schedule=(SOON,))):
        await until(mall_database, "failed")
        assert (await only_one(mall_database)).error == "gone"
        await Notifications(mall_database).resend((await only_one(mall_database)).id)
        await until(mall_database, "sent")
    only = await only_one(mall_database)
    assert (only.attempts, only.error) == (2, None)


async def test_one_that_is_on_its_way_or_unknown_is_not_sent_again(mall_database: Database) -> None:
    await written(mall_database, approved)
    before = await only_one(mall_database)
    with pytest.raises(Conflict, match="is on its way already"):
        await Notifications(mall_database).resend(before.id)
    with pytest.raises(NotFound, match="there is no notification"):
        await Notifications(mall_database).resend(new_id())
    assert await only_one(mall_database) == before


async def test_of_an_order_one_sees_what_its_customer_was_told_and_sends_only_that_again(
    mall_database: Database,
) -> None:
    order_id, other = [await written(mall_database, approved, cancelled) for _ in range(2)]
    notifications = Notifications(mall_database)
    told = await notifications.of_order(order_id)
    assert [(one.order_id, one.kind) for one in told] == [(order_id, "received"), (order_id, "cancelled")]
    async with mall_database.transaction() as connection:
        await connection.execute(text("UPDATE notifications.notifications SET status = 'sent', attempts = 3"))
    with pytest.raises(NotFound, match="there is no notification"):
        await notifications.resend(told[0].id, other)
    again = await notifications.resend(told[0].id, order_id)
    assert (again.id, again.status, again.attempts) == (told[0].id, "pending", 0)
    assert (await notifications.of_order(order_id))[0] == again
    assert {one.status for one in await notifications.of_order(other)} == {"sent"}


async def test_operators_list_notifications_and_send_them_again(mall_database: Database, tmp_path: Path) -> None:
    await written(mall_database, approved, cancelled)
    first, second = await all_of(mall_database)
    async with mall_database.transaction() as connection:
        fail = text(
            "UPDATE notifications.notifications SET status = 'failed', error = 'gone [410]' WHERE id = :id"
        )
        await connection.execute(fail, {"id": second.id})
    url = mall_database.engine.url.render_as_string(hide_password=False)
    environment = {"MALLBOTS_NOTIFICATIONS_DATABASE_URL": url, "MALLBOTS_DATA_DIR": str(tmp_path)}

    async def run(*arguments: str) -> Any:
        return await asyncio.to_thread(CliRunner().invoke, app, ["notifications", *arguments], env=environment)

    listed = await run("list")
    assert listed.exit_code == 0, listed.output
    assert listed.output.index(str(second.id)) < listed.output.index(str(first.id))
    failed = await run("list", "--failed")
    assert str(second.id) in failed.output
    assert "gone [410]" in failed.output
    assert str(first.id) not in failed.output
    newest = await run("list", "--count", "1")
    assert str(first.id) not in newest.output

    again = await run("resend", str(second.id))
    assert again.exit_code == 0, again.output
    assert [one.status for one in await all_of(mall_database)] == ["pending", "pending"]
    refused = await run("resend", str(second.id))
    assert isinstance(refused.exception, Conflict)
    assert (await run("resend", "no-id")).exit_code == 2


# The webhook


class Receiver:
    """A webhook's receiver at a real port. It answers with `statuses` one after the other, and then with 204."""

    def __init__(self, *statuses: int) -> None:
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.paths: list[str] = []
        self._statuses: Iterator[int] = itertools.chain(statuses, itertools.repeat(204))

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.requests.append(({name.decode(): value.decode() for name, value in scope["headers"]}, body))
        self.paths.append(f"{scope['method']} {scope['path']}")
        headers = [(b"location", b"/elsewhere")]
        await send({"type": "http.response.start", "status": next(self._statuses), "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    @asynccontextmanager
    async def open(self) -> AsyncIterator[str]:
        """Serve; the URL to post to."""
        server = uvicorn.Server(uvicorn.Config(self, port=0, lifespan="off", log_level="critical"))
        serving = asyncio.create_task(server.serve())
        try:
            await eventually(lambda: server.started)
            port = server.servers[0].sockets[0].getsockname()[1]
            yield f"http://127.0.0.1:{port}/hook"
        finally:
            server.should_exit = True
            await serving


@asynccontextmanager
async def webhook(url: str, timeout: float = 5) -> AsyncIterator[WebhookNotifier]:
    async with httpx.AsyncClient(trust_env=False) as client:
        yield WebhookNotifier(client, url, SECRET, timeout=timeout)


def answering(answer: Any, timeout: float = 5) -> WebhookNotifier:
    """A webhook whose receiver is a function."""
    client = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    return WebhookNotifier(client, "http://receiver/hook", SECRET, timeout=timeout)


def a_notification() -> Notification:
    return Notification(
        id=new_id(),
        kind="ready",
        order_id=new_id(),
        customer="ada",
        kiosk="kiosk-1",
        pickup_code="C275TC",
        text="Your order C275TC is ready – collect it.",
        created_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    )


async def test_a_notification_is_posted_signed_as_standard_webhooks_says() -> None:
    receiver, notification = Receiver(), a_notification()
    async with receiver.open() as url, webhook(url) as hook:
        await hook.notify(notification)
    ((headers, body),) = receiver.requests
    assert receiver.paths == ["POST /hook"]
    assert Webhook(SECRET).verify(body, headers) == {
        "type": "order.ready",
        "timestamp": "2026-01-02T03:04:05Z",
        "data": {
            "order_id": str(notification.order_id),
            "customer": "ada",
            "kiosk": "kiosk-1",
            "pickup_code": "C275TC",
            "text": "Your order C275TC is ready – collect it.",
        },
    }
    assert headers["content-type"] == "application/json"
    assert headers["webhook-id"] == str(notification.id)
    assert abs(now().timestamp() - int(headers["webhook-timestamp"])) < 60


async def test_what_is_forged_is_not_accepted() -> None:
    receiver = Receiver()
    async with receiver.open() as url, webhook(url) as hook:
        await hook.notify(a_notification())
    ((headers, body),) = receiver.requests
    mine = Webhook(SECRET)
    forged = body.replace(b"C275TC", b"XXXXXX")
    unsigned = {name: value for name, value in headers.items() if name != "webhook-signature"}
    old = headers | {"webhook-timestamp": str(int(headers["webhook-timestamp"]) - 3600)}
    for sent, shown, known in (
        (forged, headers, mine),
        (body, unsigned, mine),
        (body, old, mine),
        (body, headers | {"webhook-id": str(new_id())}, mine),
        (body, headers, Webhook("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")),
    ):
        with pytest.raises(WebhookVerificationError):
            known.verify(sent, shown)


async def test_a_receiver_that_fails_for_a_while_gets_it_in_the_end_under_the_same_id(
    mall_database: Database, nats_server: NatsServer
) -> None:
    receiver = Receiver(500, 503)
    await written(mall_database, approved)
    async with (
        receiver.open() as url,
        webhook(url) as hook,
        running(sender(mall_database, nats_server, hook)),
    ):
        await until(mall_database, "sent")
    only = await only_one(mall_database)
    assert [headers["webhook-id"] for headers, _ in receiver.requests] == [str(only.id)] * 3
    for headers, body in receiver.requests:
        assert Webhook(SECRET).verify(body, headers)["type"] == "order.received"
    assert only.attempts == 3


async def test_a_receiver_that_is_gone_is_not_asked_again(
    mall_database: Database, nats_server: NatsServer
) -> None:
    receiver = Receiver(410)
    await written(mall_database, approved)
    async with (
        receiver.open() as url,
        webhook(url) as hook,
        running(sender(mall_database, nats_server, hook)),
    ):
        await until(mall_database, "failed")
    only = await only_one(mall_database)
    assert (only.attempts, only.error) == (1, "the webhook answered 410 Gone")
    assert len(receiver.requests) == 1


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_an_answer_of_2xx_means_taken(status: int) -> None:
    await answering(lambda request: httpx.Response(status)).notify(a_notification())


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 413, 422])
async def test_an_answer_of_4xx_means_never(status: int) -> None:
    with pytest.raises(Undeliverable, match=f"the webhook answered {status}"):
        await answering(lambda request: httpx.Response(status)).notify(a_notification())


@pytest.mark.parametrize("status", [301, 307, 304, 408, 429, 500, 502, 503, 599])
async def test_any_other_answer_means_later(status: int) -> None:
    with pytest.raises(Unavailable, match=f"the webhook answered {status}"):
        await answering(lambda request: httpx.Response(status)).notify(a_notification())


async def test_a_redirect_is_not_followed() -> None:
    receiver = Receiver(307)
    async with receiver.open() as url, webhook(url) as hook:
        with pytest.raises(Unavailable, match="307"):
            await hook.notify(a_notification())
    assert receiver.paths == ["POST /hook"]


async def test_a_receiver_that_is_silent_is_waited_for_so_long_and_no_longer() -> None:
    async def be_silent(request: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(Unavailable, match=r"did not answer within 0\.1 s"):
        await answering(be_silent, timeout=0.1).notify(a_notification())


async def test_a_receiver_that_is_away_is_asked_later() -> None:
    receiver = Receiver()
    async with receiver.open() as url:
        pass
    async with webhook(url) as hook:
        with pytest.raises(Unavailable, match=r"the webhook does not answer \(ConnectError\)"):
            await hook.notify(a_notification())


# The settings


async def test_without_a_webhook_notifications_are_written_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    notification = a_notification()
    with caplog.at_level(logging.INFO, "consumers.notifications.log"):
        async with notifier(Settings()) as chosen:
            assert isinstance(chosen, LogNotifier)
            await chosen.notify(notification)
    (record,) = caplog.records
    assert record.getMessage() == (
        f"to ada: Your order C275TC is ready – collect it. (ready, order {notification.order_id})"
    )


async def test_with_a_webhook_the_process_of_the_consumer_posts_them_there(
    mall_database: Database, nats_server: NatsServer
) -> None:
    receiver = Receiver()
    database_url = mall_database.engine.url.render_as_string(hide_password=False)
    order_id = await written(mall_database, approved)
    async with receiver.open() as url:
        settings = Settings.model_validate(
            {
                **{f"{name}_database_url": database_url for name in DATABASES},
                "nats_url": nats_server.url,
                "notification_webhook_url": url,
                "notification_webhook_secret": SECRET,
            }
        )
        async with running(consume(settings, [ROLES["notifications"]])):
            await until(mall_database, "sent")
    # The stream still has the events of tests before.
    posted = [Webhook(SECRET).verify(body, headers)["data"] for headers, body in receiver.requests]
    assert [data["order_id"] for data in posted].count(str(order_id)) == 1


async def test_a_process_whose_webhook_has_no_secret_does_not_start(
    mall_database: Database, nats_server: NatsServer
) -> None:
    database_url = mall_database.engine.url.render_as_string(hide_password=False)
    settings = Settings.model_validate(
        {
            **{f"{name}_database_url": database_url for name in DATABASES},
            "nats_url": nats_server.url,
            "notification_webhook_url": "https://receiver/hook",
        }
    )
    with pytest.raises(Misconfigured, match="MALLBOTS_NOTIFICATION_WEBHOOK_SECRET is not set"):
        await consume(settings, [ROLES["notifications"]])


@pytest.mark.parametrize("secret", ["", "whsec_", SECRET[6:], "whsec_c2hvcnQ=", "whsec_!" * 9, "whsec_ä" * 9])
async def test_a_secret_that_is_none_is_refused_but_not_told(secret: str) -> None:
    settings = Settings.model_validate(
        {"notification_webhook_url": "https://receiver/hook", "notification_webhook_secret": SecretStr(secret)}
    )
    with pytest.raises(Misconfigured, match="whsec_ and 24 to 64 random bytes in Base64") as refused:
        async with notifier(settings):
            pass
    assert len(secret) < 10 or secret not in refused.value.message


@pytest.mark.parametrize("url", ["receiver/hook", "ftp://receiver/hook", "http://", ""])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Settings.model_validate({"notification_webhook_url": url})
    assert json.loads(refused.value.json())[0]["loc"] == ["notification_webhook_url"]

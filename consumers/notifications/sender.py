"""The senders: they hand pending notifications out on the work queue, take them from it, and tell the customer.

What is guaranteed: each notification is sent at least once or ends as failed, and more than once only if a sender
does not hear that it arrived, or dies before it could record that; its id tells the receiver. Of the notifications
of an order, the earlier is handed out first, and so usually comes first. It may be overtaken by a later one while
it is tried again, or when two senders have one each: `created_at` says which is the later. (To wait for the
earlier would keep a customer from hearing "ready" because "received" could not be told.)
"""

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, get_args
from uuid import UUID

from opentelemetry import metrics
from sqlalchemy import Double, String, bindparam, text

from consumers.notifications.messages import Notification, NotificationKind, NotificationStatus
from consumers.notifications.port import Notifier, Undeliverable
from consumers.notifications.service import CHANNEL
from events.spans import within
from events.stream import stop_if_cancelled
from events.work_queue import Job, TryAgain, Workers, WorkQueue, work_queue
from kernel.database import Database
from kernel.errors import MallError, Unavailable
from kernel.order_context import about_order

QUEUE: Final = "notifications"
RETRY_SCHEDULE: Final = (
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=10),
    timedelta(hours=14),
    timedelta(hours=20),
    timedelta(hours=24),
)
"""The pauses after each attempt but the last, as Standard Webhooks recommends them: more than three days."""
LEASE: Final = timedelta(minutes=1)
LOST_AFTER: Final = timedelta(minutes=5)

_AT_ONCE: Final = 4
_MOST_HANDED_OUT: Final = 200
_LOOK: Final = 5.0
_PAUSE: Final = 1.0
_SHORTEST_WAIT: Final = 0.05
_LONGEST_ERROR: Final = 500

_log = logging.getLogger(__name__)
_meter = metrics.get_meter("mallbots.notifications")
_sent = _meter.create_counter("mallbots.notifications.sent", "{notification}", "Notifications sent")
_failed = _meter.create_counter("mallbots.notifications.failed", "{notification}", "Notifications given up")

_WAITING: Final = text(
    "SELECT id, resends, trace_context FROM notifications.notifications"
    " WHERE status = 'pending' AND (handed_out_at IS NULL"
    " OR greatest(handed_out_at, due_at) < now() - make_interval(secs => :lost_after))"
    " ORDER BY handed_out_at NULLS FIRST, created_at, id LIMIT :most"
).bindparams(bindparam("lost_after", type_=Double()))
_HANDED_OUT: Final = text(
    "UPDATE notifications.notifications SET handed_out_at = now() WHERE id = :id AND resends = :resends"
)
_TAKE: Final = text(
    "UPDATE notifications.notifications SET attempts = attempts + 1,"
    " due_at = now() + make_interval(secs => :lease) WHERE id = :id AND status = 'pending' AND due_at <= now()"
    " RETURNING id, kind, order_id, customer, kiosk, pickup_code, text, created_at, attempts, resends"
).bindparams(bindparam("lease", type_=Double()))
_DUE_IN: Final = text(
    "SELECT extract(epoch FROM due_at - now())::float8 FROM notifications.notifications"
    " WHERE id = :id AND status = 'pending'"
)
_RECORD: Final = text(
    "UPDATE notifications.notifications SET status = :status, error = :error,"
    " due_at = now() + make_interval(secs => :after),"
    " sent_at = CASE WHEN :status = 'sent' THEN now() ELSE sent_at END"
    " WHERE id = :id AND status = 'pending' AND attempts = :attempts AND resends = :resends"
).bindparams(bindparam("status", type_=String()), bindparam("after", type_=Double()))


@dataclass(frozen=True)
class _Attempt:
    """An attempt at a notification: the `number`-th since it was written, or was sent again for the `resends`-th
    time."""

    notification: Notification
    number: int
    resends: int


class Sender:
    """Sends the notifications of a database through `notifier`. Run it in as many processes as you like.

    `schedule` are the pauses between the attempts; when they are used up the notification has failed. A sender
    that is not done within the `lease` is taken for dead; the notifier has half of that. A notification that
    nobody has taken `lost_after` its time is handed out again, unless its job is still on the queue.
    """

    def __init__(
        self,
        database: Database,
        nats_url: str,
        notifier: Notifier,
        *,
        schedule: Sequence[timedelta] = RETRY_SCHEDULE,
        lease: timedelta = LEASE,
        lost_after: timedelta = LOST_AFTER,
    ) -> None:
        self._database = database
        self._nats_url = nats_url
        self._notifier = notifier
        self._schedule = schedule
        self._lease = lease.total_seconds()
        self._lost_after = lost_after.total_seconds()

    async def run(self) -> None:
        """Send until cancelled, through every outage of PostgreSQL and of NATS.

        Raises `Misconfigured` if the stream of work in NATS is not ours.
        """
        for kind in get_args(NotificationKind):
            # Prometheus sees a rise only in what it has seen before.
            _failed.add(0, {"kind": kind})
        workers = Workers(self._nats_url, QUEUE, self._send, at_once=_AT_ONCE)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._keep_handing_out())
                tasks.create_task(workers.run())
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def _keep_handing_out(self) -> None:
        woken = asyncio.Event()
        trouble = ""
        while True:
            try:
                async with self._database.session() as session, work_queue(self._nats_url, QUEUE) as queue:
                    await session.add_listener(CHANNEL, lambda *_: woken.set())
                    while not session.is_closed():
                        woken.clear()
                        await self._hand_out(queue)
                        trouble = ""
                        with contextlib.suppress(TimeoutError):
                            async with asyncio.timeout(_LOOK):
                                await woken.wait()
            except Unavailable as error:
                if error.message != trouble:
                    trouble = error.message
                    _log.warning("notifications: %s; they are handed out when that is over", trouble)
            stop_if_cancelled()
            await asyncio.sleep(_PAUSE)

    async def _hand_out(self, queue: WorkQueue) -> None:
        """Put every notification on the queue that is new, or is sent again, or has lost its job (NATS has lost
        its data, say). A job that is on the queue already stays as it is, whatever it waits for."""
        while True:
            limits = {"lost_after": self._lost_after, "most": _MOST_HANDED_OUT}
            async with self._database.transaction() as connection:
                waiting = (await connection.execute(_WAITING, limits)).all()
            if not waiting:
                return
            for row in waiting:
                with within(row.trace_context):
                    await queue.hand_out(f"{row.id}-{row.resends}", str(row.id).encode())
            async with self._database.transaction() as connection:
                await connection.execute(_HANDED_OUT, [{"id": row.id, "resends": row.resends} for row in waiting])

    async def _send(self, job: Job) -> None:
        """Send a notification, unless that was done, and record how it went. Raises `TryAgain`, `Unavailable`."""
        attempt = await self._take(UUID(job.body.decode()))
        if attempt is not None:
            with about_order(attempt.notification.order_id):
                await self._attempt(attempt)

    async def _attempt(self, attempt: _Attempt) -> None:
        notification = attempt.notification
        try:
            async with asyncio.timeout(self._lease / 2):
                await self._notifier.notify(notification)
        except Undeliverable as error:
            await self._give_up(attempt, error.message)
        except Exception as error:
            if isinstance(error, MallError):
                reason = error.message
            else:
                reason = f"{type(error).__name__}: {error}".removesuffix(": ")
                _log.warning("notification %s could not be sent", notification.id, exc_info=error)
            if attempt.number > len(self._schedule):
                await self._give_up(attempt, reason)
                return
            after = self._schedule[attempt.number - 1].total_seconds()
            await self._record(attempt, "pending", reason, after)
            raise TryAgain(reason, after) from error
        else:
            await self._record(attempt, "sent")
            _sent.add(1, {"kind": notification.kind})

    async def _take(self, notification_id: UUID) -> _Attempt | None:
        """Begin an attempt at a notification; None if it needs none any more. Raises `TryAgain` while it is not
        due: it waits for its next attempt, or another sender is at it."""
        async with self._database.transaction() as connection:
            values = {"id": notification_id, "lease": self._lease}
            row = (await connection.execute(_TAKE, values)).mappings().first()
            if row is None:
                due_in = await connection.scalar(_DUE_IN, {"id": notification_id})
                if due_in is None:
                    return None
                raise TryAgain(f"notification {notification_id} is not due yet", max(due_in, _SHORTEST_WAIT))
        return _Attempt(Notification.model_validate(dict(row)), row["attempts"], row["resends"])

    async def _give_up(self, attempt: _Attempt, reason: str) -> None:
        _log.error(
            "notification %s has failed after %d attempts: %s; `mallbots notifications resend` sends it again",
            attempt.notification.id,
            attempt.number,
            reason,
        )
        await self._record(attempt, "failed", reason)
        _failed.add(1, {"kind": attempt.notification.kind})

    async def _record(
        self, attempt: _Attempt, status: NotificationStatus, error: str | None = None, after: float = 0
    ) -> None:
        """Record how an attempt went, unless it took so long that another one was begun."""
        values = {
            "id": attempt.notification.id,
            "attempts": attempt.number,
            "resends": attempt.resends,
            "status": status,
            "error": error and error[:_LONGEST_ERROR],
            "after": after,
        }
        async with self._database.transaction() as connection:
            await connection.execute(_RECORD, values)

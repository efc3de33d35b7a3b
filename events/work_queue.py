"""Work queues over JetStream: each job is done by one worker, and given out again until one is done with it.

Where an event is a fact for everybody, a job is a task for somebody: once it is done it is gone. Any number of
processes share a queue. A worker that dies loses its job to another; one that fails gets it again after a pause,
while the other jobs go on. So a job may be done twice, and its handler must bear that.
"""

import asyncio
import contextlib
import json
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Final

from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DiscardPolicy,
    RetentionPolicy,
    StorageType,
    StreamConfig,
)
from opentelemetry import metrics, propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Status, StatusCode

from events.stream import DUPLICATE_WINDOW, Connection, connected, ensure_stream, stop_if_cancelled
from kernel.errors import Unavailable

WORK_STREAM: Final = StreamConfig(
    name="MALLBOTS_WORK",
    subjects=["work.>"],
    retention=RetentionPolicy.WORK_QUEUE,
    storage=StorageType.FILE,
    # No job is dropped for a newer one, and one that still waits is not taken a second time.
    discard=DiscardPolicy.NEW,
    max_msgs_per_subject=1,
    discard_new_per_subject=True,
    max_age=0,
    max_bytes=-1,
    duplicate_window=DUPLICATE_WINDOW.total_seconds(),
)
"""The stream of all queues; a job's subject is `work.<queue>.<job id>`."""

ACK_WAIT: Final = 10.0
RETRY_AFTER: Final = (1.0, 5.0, 30.0, 120.0, 600.0)

_TOKEN: Final = re.compile("[A-Za-z0-9_-]+")
_WAITS_ALREADY: Final = 10077, "maximum messages per subject exceeded"
_PULL: Final = json.dumps({"batch": 1, "expires": int(30e9), "idle_heartbeat": int(1e9)}).encode()
_SILENCE: Final = 3.5  # three heartbeats that did not come
_GOODBYE: Final = 1.0
_RETRY_OF_STOPPED: Final = 0.5
_PROGRESS_PER_WAIT: Final = 3
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0

_log = logging.getLogger(__name__)
_tracer = trace.get_tracer("mallbots.work")
_meter = metrics.get_meter("mallbots.work")
_done = _meter.create_counter("mallbots.work.done", "{job}", "Jobs that are done")
_failed = _meter.create_counter("mallbots.work.failed", "{job}", "Attempts at a job that failed")


@dataclass(frozen=True)
class Job:
    """Something to do. `attempt` counts from 1 how often a worker was given it; killed, NATS may forget some."""

    id: str
    body: bytes
    attempt: int


class TryAgain(Unavailable):
    """The job can not be done now; a worker gets it again `after` so many seconds."""

    def __init__(self, message: str, after: float) -> None:
        super().__init__(message)
        self.after = after


class WorkQueue:
    """A queue to hand jobs out on; `work_queue` opens one."""

    def __init__(self, connection: Connection, name: str) -> None:
        self._connection = connection
        self._name = name

    async def hand_out(self, job_id: str, body: bytes) -> bool:
        """Hand a job out, and return when NATS has it for sure. False if it was handed out before: it waits, or is
        being done, or that was less than two minutes ago.

        Raises `Unavailable` when NATS does not take it, or it is not known whether it did: hand it out again.
        `ValueError` if the id is no single token of a subject.
        """
        subject = f"work.{_token(self._name)}.{_token(job_id)}"
        # Message ids are those of the stream, which all queues share.
        headers = {"Nats-Msg-Id": subject}
        propagate.inject(headers)
        try:
            told = json.loads((await self._connection.request(subject, body, headers)).data)
        except (OSError, NatsError) as error:
            raise Unavailable(f"NATS does not answer ({type(error).__name__})") from error
        if "error" not in told:
            return not told.get("duplicate", False)
        if (told["error"]["err_code"], told["error"]["description"]) == _WAITS_ALREADY:
            return False
        raise Unavailable(f"NATS does not take jobs into {WORK_STREAM.name}: {told['error']['description']}")


@asynccontextmanager
async def work_queue(nats_url: str, name: str) -> AsyncIterator[WorkQueue]:
    """A queue, opened. Raises `Unavailable`, and `Misconfigured` if the stream in NATS is not ours."""
    async with connected(nats_url, f"queue-{name}") as nats:
        await ensure_stream(nats.jetstream, WORK_STREAM)
        stop_if_cancelled()
        yield WorkQueue(nats, name)


Handler = Callable[[Job], Awaitable[None]]


class Workers:
    """The workers of this process on a queue, `at_once` of them, each with one job at a time.

    A job is done when `handler` returns. When it raises, the job is given out again: after as long as `TryAgain`
    says, else after as long as `retry_after` says for the attempt (its last is for all that follow), in seconds.
    Of a worker that is not heard of for `ack_wait` seconds the job is given to another.
    """

    def __init__(
        self,
        nats_url: str,
        queue: str,
        handler: Handler,
        *,
        at_once: int = 1,
        ack_wait: float = ACK_WAIT,
        retry_after: Sequence[float] = RETRY_AFTER,
    ) -> None:
        self._nats_url = nats_url
        self._queue = _token(queue)
        self._handler = handler
        self._at_once = at_once
        self._ack_wait = ack_wait
        self._retry_after = retry_after
        self._trouble = ""

    async def run(self) -> None:
        """Work until cancelled, through every outage of NATS. Raises `Misconfigured` if the stream in NATS is not
        ours."""
        try:
            async with asyncio.TaskGroup() as workers:
                for number in range(self._at_once):
                    workers.create_task(self._work(), name=f"{self._queue}/{number}")
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def _work(self) -> None:
        # A connection for each worker: the job of one is not interrupted by the fault of another.
        pause = _FIRST_PAUSE
        while True:
            try:
                async with connected(self._nats_url, f"worker-{self._queue}") as nats:
                    await self._prepare(nats.jetstream)
                    async with _deliveries(nats) as delivered:
                        while True:
                            stop_if_cancelled()
                            message = await self._next(nats, delivered)
                            self._trouble, pause = "", _FIRST_PAUSE
                            if message is not None:
                                await self._do(nats, message)
            except Unavailable as error:
                if error.message != self._trouble:
                    self._trouble = error.message
                    _log.warning("workers of %s: %s; they go on when that is over", self._queue, error.message)
            stop_if_cancelled()
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _prepare(self, jetstream: JetStreamContext) -> None:
        """Make the stream and the queue's consumer if they are missing."""
        await ensure_stream(jetstream, WORK_STREAM)
        assert WORK_STREAM.name is not None
        settings = ConsumerConfig(
            durable_name=self._queue,
            filter_subject=f"work.{self._queue}.>",
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=self._ack_wait,
            max_deliver=-1,
            # Jobs that wait for their next attempt count, and must not keep the others from being given out.
            max_ack_pending=-1,
        )
        await jetstream.add_consumer(WORK_STREAM.name, settings)
        # Prometheus sees a rise only in what it has seen before.
        _failed.add(0, {"queue": self._queue})

    async def _next(self, nats: Connection, delivered: "_Deliveries") -> Msg | None:
        """The next job; None if there is none for a while. Raises `Unavailable`."""
        ask = f"$JS.API.CONSUMER.MSG.NEXT.{WORK_STREAM.name}.{self._queue}"
        await nats.client.publish(ask, _PULL, reply=delivered.inbox)
        while True:
            message = await delivered.next()
            headers = message.headers or {}
            match headers.get("Status"):
                case None:
                    return message
                case "100":
                    """A heartbeat."""
                case "408":
                    return None
                case status:
                    raise Unavailable(f"NATS ended the delivery: {headers.get('Description', status)}")

    async def _do(self, nats: Connection, message: Msg) -> None:
        job = Job(message.subject.rpartition(".")[2], message.data, message.metadata.num_delivered)
        labels = {"queue": self._queue}
        progress = asyncio.create_task(self._tell_progress(message))
        try:
            with _span_of(self._queue, job, message.headers or {}):
                await self._handler(job)
        except asyncio.CancelledError:
            await _give_up(message)
            raise
        except Exception as error:
            _failed.add(1, labels)
            await self._give_back(nats, message, job, error)
        else:
            await nats.request(message.reply, Msg.Ack.Ack, {})
            _done.add(1, labels)
        finally:
            progress.cancel()

    async def _give_back(self, nats: Connection, message: Msg, job: Job, error: Exception) -> None:
        after = self._retry_after[min(job.attempt, len(self._retry_after)) - 1]
        if isinstance(error, TryAgain):
            after = error.after
        if isinstance(error, Unavailable):
            _log.info("job %s of %s is tried again in %g s: %s", job.id, self._queue, after, error.message)
        else:
            _log.warning(
                "job %s of %s failed; it is tried again in %g s", job.id, self._queue, after, exc_info=error
            )
        delay = json.dumps({"delay": round(after * 1e9)}).encode()
        await nats.request(message.reply, Msg.Ack.Nak + b" " + delay, {})

    async def _tell_progress(self, message: Msg) -> None:
        """Keep the job ours for as long as it is worked on."""
        with contextlib.suppress(OSError, NatsError):
            while True:
                await asyncio.sleep(self._ack_wait / _PROGRESS_PER_WAIT)
                await message.in_progress()


class _Deliveries:
    """What NATS delivers to an inbox."""

    def __init__(self, inbox: str) -> None:
        self.inbox = inbox
        self.queue: asyncio.Queue[Msg | None] = asyncio.Queue()

    async def next(self) -> Msg:
        """The next message. Raises `Unavailable` when the connection is lost, or after a silence that NATS, which
        sends heartbeats, does not keep while it lives."""
        try:
            async with asyncio.timeout(_SILENCE):
                message = await self.queue.get()
        except TimeoutError:
            raise Unavailable("NATS fell silent") from None
        if message is None:
            raise Unavailable("NATS closed the connection")
        return message


@asynccontextmanager
async def _deliveries(nats: Connection) -> AsyncIterator[_Deliveries]:
    """An inbox for what is delivered inside the block. Jobs that come while it is left go to other workers."""
    delivered = _Deliveries(nats.client.new_inbox())
    subscription = await nats.client.subscribe(delivered.inbox, cb=delivered.queue.put)

    async def tell_when_closed() -> None:
        await nats.closed.wait()
        await delivered.queue.put(None)

    watch = asyncio.create_task(tell_when_closed())
    try:
        yield delivered
    finally:
        watch.cancel()
        with contextlib.suppress(OSError, NatsError):
            async with asyncio.timeout(_GOODBYE):
                await subscription.drain()  # type: ignore[no-untyped-call]
            while not delivered.queue.empty():
                message = delivered.queue.get_nowait()
                if message is not None and message.reply:
                    await _give_up(message)


async def _give_up(message: Msg) -> None:
    """Let another have the job of a worker that ends, which need not wait until it is missed."""
    with contextlib.suppress(OSError, NatsError):
        # At once, it would go to a worker of this process, which is about to end, too.
        await message.nak(delay=_RETRY_OF_STOPPED)


@contextmanager
def _span_of(queue: str, job: Job, headers: Mapping[str, str]) -> Iterator[None]:
    """Around a job: it belongs to the trace that it was handed out in, if any. `TryAgain` is no error."""
    sent = propagate.extract(headers, Context())
    if not trace.get_current_span(sent).get_span_context().is_valid:
        yield
        return
    with _tracer.start_as_current_span(
        f"process work.{queue}", sent, SpanKind.CONSUMER, record_exception=False, set_status_on_exception=False
    ) as span:
        span.set_attributes(
            {
                "messaging.system": "nats",
                "messaging.operation.type": "process",
                "messaging.destination.name": f"work.{queue}",
                "messaging.message.id": job.id,
                "mallbots.attempt": job.attempt,
            }
        )
        try:
            yield
        except TryAgain:
            raise
        except Exception as error:
            span.record_exception(error)
            span.set_status(Status(StatusCode.ERROR, str(error)))
            raise


def _token(name: str) -> str:
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"{name!r} can not be part of a subject: only letters, digits, - and _ can")
    return name

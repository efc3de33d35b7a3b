"""The stream of all events in NATS JetStream: what it must be, and how it is followed."""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import nats
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DeliverPolicy,
    DiscardPolicy,
    RawStreamMsg,
    RetentionPolicy,
    StorageType,
    StreamConfig,
    StreamState,
)
from nats.js.errors import APIError, NotFoundError

from events.recorded import ROOT, RecordedEvent
from kernel.errors import Misconfigured, Unavailable
from kernel.messages import DomainName
from kernel.tls import HUNG_UP, client_context, trouble

STREAM: Final = "MALLBOTS"
DUPLICATE_WINDOW: Final = timedelta(minutes=2)
API_TIMEOUT: Final = 5.0

_HEARTBEAT: Final = 1.0
_SILENCE: Final = 3.5  # three heartbeats that did not come
_PULL: Final = 500
_PULL_FOR: Final = 30.0
_FORGET_AFTER: Final = 10.0  # an ephemeral consumer whose process died
_HEARTBEAT_STATUS: Final = "100"
_PULL_IS_OVER: Final = "408"
_AWAY = (OSError, TimeoutError, asyncio.TimeoutError, nats.errors.Error)


_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """How much of the past the stream keeps: what is older, or does not fit, is dropped from it (never from the
    domains' own tables)."""

    max_age: timedelta
    max_bytes: int


def event_stream(limits: Limits) -> StreamConfig:
    """The stream of facts: every subscriber sees each, and nobody's reading takes any away."""
    return StreamConfig(
        name=STREAM,
        subjects=[f"{ROOT}.>"],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        discard=DiscardPolicy.OLD,
        max_age=limits.max_age.total_seconds(),
        max_bytes=limits.max_bytes,
        max_msgs_per_subject=-1,
        duplicate_window=DUPLICATE_WINDOW.total_seconds(),
        allow_direct=True,
        allow_atomic=True,
    )


_OURS_TO_CHANGE: Final = ("max_age", "max_bytes")
_MUST_BE_OURS: Final = (
    "subjects",
    "retention",
    "storage",
    "discard",
    "discard_new_per_subject",
    "max_msgs_per_subject",
    "duplicate_window",
    "allow_atomic",
)


@dataclass(frozen=True)
class Connection:
    """A connection to NATS; `closed` is set when it is lost."""

    client: Client
    jetstream: JetStreamContext
    closed: asyncio.Event

    async def request(self, subject: str, data: bytes, headers: dict[str, str]) -> Msg:
        """The answer to a message. Raises `Unavailable` as soon as the connection is lost."""
        answer = asyncio.create_task(self.client.request(subject, data, timeout=API_TIMEOUT, headers=headers))
        lost = asyncio.create_task(self.closed.wait())
        try:
            await asyncio.wait({answer, lost}, return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                return answer.result()
            raise Unavailable("NATS closed the connection")
        finally:
            answer.cancel()
            lost.cancel()


@asynccontextmanager
async def connected(url: str, name: str) -> AsyncIterator[Connection]:
    """A connection to NATS that does not outlive its first fault: whoever uses it starts again from what it knows
    for sure, where a client that reconnects by itself would send on what it had not sent, and leave a hole.

    `tls://` is spoken by TLS only, and so is a URL with the parameters `tls_ca`, `tls_certificate` and `tls_key`:
    the files (PEM) of who signs NATS's certificate, and of what we show. They are read anew each time.

    Raises `Unavailable` when NATS is away, also from inside the block.
    """
    closed = asyncio.Event()

    async def on_closed() -> None:
        closed.set()

    try:
        client = await _connect(url, name, on_closed)
        try:
            yield Connection(client, client.jetstream(timeout=API_TIMEOUT), closed)
        finally:
            with contextlib.suppress(*_AWAY):
                await client.close()
    except APIError as error:
        raise Unavailable(f"NATS refused: {error.description}") from error
    except _AWAY as error:
        raise Unavailable(f"NATS does not answer ({type(error).__name__})") from error


async def _connect(url: str, name: str, on_closed: Callable[[], Awaitable[None]]) -> Client:
    parts = urlsplit(url)
    files = {name: Path(value) for name, value in parse_qsl(parts.query)}
    by_tls = parts.scheme == "tls" or bool(files)
    client = _TlsClient() if by_tls else Client()
    try:
        await client.connect(
            url.partition("?")[0],
            tls=client_context(*map(files.get, ("tls_ca", "tls_certificate", "tls_key"))) if by_tls else None,
            name=f"mallbots-{name}",
            allow_reconnect=False,
            # Else it would try for minutes to connect for the first time.
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            connect_timeout=2,
            error_cb=_quiet,
            closed_cb=on_closed,
        )
    except _AWAY as error:
        raise Unavailable(f"NATS does not answer ({_reason(error, by_tls)})") from error
    return client


def _reason(error: Exception, by_tls: bool) -> str:
    if isinstance(error, nats.errors.SecureConnWantedError):
        return "it does not speak TLS"
    if type(error) is nats.errors.Error:  # then its words are those of NATS
        return str(error).removeprefix("nats: ").strip("'")
    if by_tls and isinstance(error, (ConnectionResetError, BrokenPipeError, nats.errors.UnexpectedEOF)):
        return HUNG_UP
    return trouble(error) or type(error).__name__


class _TlsClient(Client):
    """nats-py's, that never speaks plainly: the original does, and sends its token so, if whoever answers says
    that TLS is not needed (nats-io/nats.py#912)."""

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        if initial_connection:
            if not info.get("tls_required") and not info.get("tls_available"):
                assert self._transport is not None
                self._transport.close()  # type: ignore[no-untyped-call]
                raise nats.errors.SecureConnWantedError
            info["tls_required"] = True
        await super()._process_info(info, initial_connection)


def stop_if_cancelled() -> None:
    """Be cancelled, if the cancellation got lost: it does in `asyncio.wait_for` of Python 3.11, by which nats-py
    waits, when it comes together with what was waited for. Loops that use NATS ask at each turn."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def ensure_stream(jetstream: JetStreamContext, ours: StreamConfig) -> datetime:
    """Make a stream if it is missing, and bring its limits up to date; returns when it was created.

    Raises `Misconfigured` if there is one of that name with other settings than ours: nothing is done to it.
    """
    assert ours.name is not None
    try:
        info = await jetstream.stream_info(ours.name)
    except NotFoundError:
        info = await jetstream.add_stream(ours)
    theirs = info.config
    wrong = [
        f"{setting} is {_told(theirs, setting)}, not {_told(ours, setting)}"
        for setting in _MUST_BE_OURS
        if getattr(ours, setting) is not None and _told(theirs, setting) != _told(ours, setting)
    ]
    if wrong:
        raise Misconfigured(
            f"the JetStream stream {ours.name} is not ours: {'; '.join(wrong)}. "
            "Remove or rename it, or give the mall a NATS account of its own"
        )
    if any(getattr(theirs, setting) != getattr(ours, setting) for setting in _OURS_TO_CHANGE):
        info = await jetstream.update_stream(
            theirs.evolve(**{setting: getattr(ours, setting) for setting in _OURS_TO_CHANGE})
        )
    assert info.created is not None
    return info.created


async def oldest(jetstream: JetStreamContext, domain: DomainName) -> RecordedEvent | None:
    """The first event of a domain that the stream still has; None if it has none."""
    try:
        message = await jetstream.get_msg(STREAM, seq=1, subject=f"{ROOT}.{domain}.>", direct=True, next=True)
    except NotFoundError:
        return None
    return _event(message)


async def newest(jetstream: JetStreamContext, pattern: str) -> RecordedEvent | None:
    """The last event that the stream has under a subject or pattern; None if it has none (any more)."""
    try:
        # Not a direct get, which may be answered by a replica that is behind.
        message = await jetstream.get_msg(STREAM, subject=pattern)
    except NotFoundError:
        return None
    return _event(message)


async def at(jetstream: JetStreamContext, sequence: int) -> RecordedEvent | None:
    """The event with this number; None if the stream has none there."""
    if not sequence:
        return None
    try:
        message = await jetstream.get_msg(STREAM, seq=sequence)
    except NotFoundError:
        return None
    assert message.subject is not None
    return _read(message.subject, message.headers, message.data, sequence)


async def last_sequence(jetstream: JetStreamContext) -> int:
    """The number of the stream's last message; 0 if it never had one. Raises `Unavailable` if there is no stream
    yet: the first relay makes it."""
    return (await _state(jetstream)).last_seq


async def first_sequence(jetstream: JetStreamContext) -> int:
    """The number of the first message that the stream still has. Raises `Unavailable` if there is no stream."""
    return (await _state(jetstream)).first_seq


async def follow(
    connection: Connection, after: int, patterns: Sequence[str] = (f"{ROOT}.>",)
) -> AsyncGenerator[list[RecordedEvent], None]:
    """Every event behind stream sequence `after` whose subject matches a pattern, and then each new one as it
    comes, in order and without a gap. Yields those that are there together; an empty list after a second of
    silence, so that callers can look up.

    Raises `Unavailable` as soon as a message may have been missed or NATS falls silent: call it again with the
    last sequence seen.
    """
    client, jetstream = connection.client, connection.jetstream
    delivered: asyncio.Queue[Msg | None] = asyncio.Queue()
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox, cb=delivered.put)
    watch = asyncio.create_task(_tell_when_closed(connection, delivered))
    consumer = await _ephemeral_consumer(jetstream, after, patterns)
    request = json.dumps(
        {"batch": _PULL, "expires": int(_PULL_FOR * 1e9), "idle_heartbeat": int(_HEARTBEAT * 1e9)}
    ).encode()
    expected, on_their_way = 1, 0
    try:
        while True:
            stop_if_cancelled()
            if on_their_way == 0:
                await client.publish(f"$JS.API.CONSUMER.MSG.NEXT.{STREAM}.{consumer}", request, reply=inbox)
                on_their_way = _PULL
            events: list[RecordedEvent] = []
            for message in await _batch(delivered):
                status = _status(message)
                if status == _PULL_IS_OVER:
                    on_their_way = 0
                elif status is None:
                    if message.metadata.sequence.consumer != expected:
                        raise Unavailable("NATS did not deliver every message")
                    expected += 1
                    on_their_way -= 1
                    event = _read(message.subject, message.headers, message.data, message.metadata.sequence.stream)
                    if event is not None:
                        events.append(event)
            yield events
    finally:
        watch.cancel()
        with contextlib.suppress(*_AWAY):
            await subscription.unsubscribe()
            await jetstream.delete_consumer(STREAM, consumer)


async def _ephemeral_consumer(jetstream: JetStreamContext, after: int, patterns: Sequence[str]) -> str:
    settings = ConsumerConfig(
        filter_subjects=list(patterns),
        deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
        opt_start_seq=after + 1,
        ack_policy=AckPolicy.NONE,
        mem_storage=True,
        num_replicas=1,
        inactive_threshold=_FORGET_AFTER,
    )
    try:
        return (await jetstream.add_consumer(STREAM, settings)).name
    except NotFoundError:
        raise _no_stream() from None


async def _batch(delivered: "asyncio.Queue[Msg | None]") -> list[Msg]:
    """The messages that are there, waiting for the first. Raises `Unavailable` after a silence that NATS, which
    sends heartbeats, does not keep while it lives."""
    try:
        async with asyncio.timeout(_SILENCE):
            batch = [await delivered.get()]
    except TimeoutError:
        raise Unavailable("NATS fell silent") from None
    with contextlib.suppress(asyncio.QueueEmpty):
        while True:
            batch.append(delivered.get_nowait())
    if None in batch:
        raise Unavailable("NATS closed the connection")
    return [message for message in batch if message is not None]


def _status(message: Msg) -> str | None:
    """What the server says with a message of its own; None for an event. Raises `Unavailable` where it ends the
    delivery."""
    headers = message.headers or {}
    status = headers.get("Status")
    if status not in (None, _HEARTBEAT_STATUS, _PULL_IS_OVER):
        raise Unavailable(f"NATS ended the delivery: {headers.get('Description', status)}")
    return status


async def _tell_when_closed(connection: Connection, delivered: "asyncio.Queue[Msg | None]") -> None:
    await connection.closed.wait()
    await delivered.put(None)


async def _state(jetstream: JetStreamContext) -> StreamState:
    try:
        return (await jetstream.stream_info(STREAM)).state
    except NotFoundError:
        raise _no_stream() from None


def _event(message: RawStreamMsg) -> RecordedEvent:
    assert message.subject is not None
    assert message.seq is not None
    event = _read(message.subject, message.headers, message.data, message.seq)
    if event is None:
        raise Unavailable(f"message {message.seq} of {STREAM} ({message.subject}) is no event: remove it")
    return event


def _read(
    subject: str, headers: Mapping[str, str] | None, data: bytes | None, sequence: int
) -> RecordedEvent | None:
    """The event that a message is; None for a message that somebody else has published."""
    try:
        return RecordedEvent.from_message(subject, headers or {}, data or b"", sequence)
    except (KeyError, ValueError):
        _log.error("message %d of %s (%s) is no event, and is passed over", sequence, STREAM, subject)
        return None


def _told(config: StreamConfig, setting: str) -> str:
    """A setting as NATS writes it."""
    value = getattr(config, setting)
    return str(getattr(value, "value", value))


def _no_stream() -> Unavailable:
    return Unavailable(f"there is no stream {STREAM} in NATS yet: the relay makes it")


async def _quiet(error: Exception) -> None:
    """What goes wrong is told by whoever uses the connection."""

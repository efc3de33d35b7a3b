"""The hub of an API process: it follows the stream of all events once, for however many clients.

Clients pull. Each has its own position and asks for what is behind it; the hub wakes all at once and keeps nothing
for any of them, so a slow one costs nobody anything.
"""

import asyncio
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from datetime import datetime
from typing import Final

from api.live.ring import Entry, Ring
from events.recorded import ROOT, RecordedEvent
from events.stream import (
    STREAM,
    Connection,
    connected,
    first_sequence,
    follow,
    last_sequence,
    newest,
    stop_if_cancelled,
)
from kernel.errors import InvalidInput, MallError, Unavailable
from kernel.messages import DomainName

RING_SIZE: Final = 5_000
PAGE_SIZE: Final = 500

_PATIENCE: Final = 2.0
_AT_MOST_EVERY: Final = 0.02
_MOST_CATCH_UPS: Final = 4
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 2.0

_log = logging.getLogger(__name__)


class Gone(MallError):
    """Events behind the position are not in the stream any more, or it was made anew: a snapshot is needed."""

    code = "gone"

    def __init__(self, position: int) -> None:
        super().__init__(f"what follows position {position} is gone: take a fresh snapshot, connect without after")


class TooSlow(MallError):
    """The reader does not keep up; what it was sent ends at `position`."""

    code = "too_slow"

    def __init__(self, position: int) -> None:
        super().__init__(f"too slow: connect again with after={position}")


class Hub:
    """The events of all domains in this process. `size` is how many of the latest it keeps; `patience` is how many
    seconds NATS may be away before readers are told."""

    def __init__(self, nats_url: str, *, size: int = RING_SIZE, patience: float = _PATIENCE) -> None:
        self.live = False
        """Whether events come in now."""
        self.away = True
        """Whether they have not for longer than `patience`."""
        self.stopping = False
        """Whether the server stops, so that whoever watches should end."""
        self.ring = Ring(0, size)
        self.moved = asyncio.Event()
        """Set, and replaced by another, whenever `live`, `away` or `ring` changes."""
        self._nats_url = nats_url
        self._size = size
        self._patience = patience
        self._stream_created_at: datetime | None = None
        self._end = 0
        self._giving_up: asyncio.TimerHandle | None = None
        self._watchers: dict[str, set[asyncio.Event]] = {}
        self._catch_ups = asyncio.Semaphore(_MOST_CATCH_UPS)

    async def run(self) -> None:
        """Follow the stream until cancelled, through every outage of NATS."""
        trouble, pause = "", _FIRST_PAUSE
        self.away = False
        self._lose()
        while True:
            try:
                async with (
                    connected(self._nats_url, "live") as nats,
                    aclosing(follow(nats, await self._attach(nats))) as batches,
                ):
                    async for events in batches:
                        trouble, pause = "", _FIRST_PAUSE
                        if events:
                            await self._add(nats, events)
                            # What comes meanwhile goes together: waking hundreds of clients is the work here.
                            await asyncio.sleep(_AT_MOST_EVERY)
                        else:
                            # What the stream ends with may be no event.
                            self._find()
            except Unavailable as error:
                if error.message != trouble:
                    trouble = error.message
                    _log.warning("live updates: %s; they go on when that is over", trouble)
            except Exception:
                _log.exception("live updates: the stream can not be read")
            stop_if_cancelled()
            self._lose()
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def stop(self) -> None:
        """Tell those who watch a stream that the server stops."""
        self.stopping = True
        self._wake_watchers()

    async def reader(self, topics: Sequence[DomainName], after: int | None = None) -> "Reader":
        """A reader of these domains' events behind a position, or of those that come from now on.

        Raises `InvalidInput` if the position lies in the future, `Gone`, and `Unavailable` while NATS is away.
        """
        while not self.live:
            if self.away:
                raise _nats_is_away()
            await self.moved.wait()
        ring = self.ring
        if after is not None and after > ring.position:
            # Another process may have been ahead of this one.
            async with connected(self._nats_url, "live") as nats:
                last = await last_sequence(nats.jetstream)
            if after > last:
                raise InvalidInput(f"after={after} is in the future: the last position is {last}", "after")
        reader = Reader(self, topics, ring.position if after is None else after)
        await reader.open()
        return reader

    @contextmanager
    def watching(self, stream: str) -> Iterator[asyncio.Event]:
        """An event that is set when something is behind one stream, and whenever `live` or `stopping` changes."""
        news = asyncio.Event()
        self._watchers.setdefault(stream, set()).add(news)
        try:
            yield news
        finally:
            self._watchers[stream].discard(news)
            if not self._watchers[stream]:
                del self._watchers[stream]

    async def page(self, after: int, topics: Sequence[DomainName]) -> tuple[list[Entry], int]:
        """What the stream itself has of these domains behind a position that the ring does not have any more: some
        entries, and up to which position they are all. Raises `Gone`, `Unavailable`."""
        async with self._catch_ups, connected(self._nats_url, "live") as nats:
            jetstream = nats.jetstream
            info = await jetstream.stream_info(STREAM)
            if info.created != self._stream_created_at:
                raise Gone(after)
            last_ones = [await newest(jetstream, f"{ROOT}.{topic}.>") for topic in topics]
            last = max((event.sequence or 0 for event in last_ones if event), default=0)
            events: list[RecordedEvent] = []
            if last > after:
                patterns = [f"{ROOT}.{topic}.>" for topic in topics]
                async with aclosing(follow(nats, after, patterns)) as batches:
                    async for batch in batches:
                        events += batch
                        if len(events) >= PAGE_SIZE or not batch or (events[-1].sequence or 0) >= last:
                            break
            # The stream drops its oldest events without a word, perhaps just before they were read.
            if await first_sequence(jetstream) > after + 1:
                raise Gone(after)
        entries = [_entry(event) for event in events]
        reached = entries[-1].position if entries else after
        return entries, max(reached, info.state.last_seq) if reached >= last else reached

    async def _attach(self, nats: Connection) -> int:
        """Where to follow the stream from: where we were, if that still means the same; else some way back."""
        info = await nats.jetstream.stream_info(STREAM)
        first, self._end = info.state.first_seq, info.state.last_seq
        is_the_same = info.created == self._stream_created_at and first - 1 <= self.ring.position <= self._end
        if not is_the_same:
            self._stream_created_at = info.created
            self._begin_behind(max(first - 1, self._end - self._size, 0))
        if self.ring.position == self._end:
            self._find()
        return self.ring.position

    async def _add(self, nats: Connection, events: Iterable[RecordedEvent]) -> None:
        for event in events:
            entry = _entry(event)
            if entry.position != self.ring.position + 1:
                await self._cross(nats, entry.position - self.ring.position - 1)
            self.ring.add(entry)
            for news in self._watchers.get(event.stream, ()):
                news.set()
        if self.ring.position >= self._end:
            self._find()
        self._wake()

    async def _cross(self, nats: Connection, hole: int) -> None:
        """Go on behind so many numbers that did not come: messages that are no events, or that somebody removed.
        But if the stream has dropped them as its oldest, they are missing."""
        is_dropped = await first_sequence(nats.jetstream) > self.ring.position + 1
        if is_dropped or hole > self._size:
            self._begin_behind(self.ring.position + hole)
        else:
            for _ in range(hole):
                self.ring.add(Entry.of_none(self.ring.position + 1))

    def _begin_behind(self, position: int) -> None:
        """Begin anew where the way from the last event is not known; readers of the old ring are told so."""
        self.ring = Ring(position, self._size)
        self._wake()

    def _find(self) -> None:
        """Events come in, and nothing is left to read."""
        if self._giving_up is not None:
            self._giving_up.cancel()
            self._giving_up = None
        if not self.live:
            self.live, self.away = True, False
            self._wake()
            self._wake_watchers()

    def _lose(self) -> None:
        """Events do not come in any more; if that lasts, readers are told."""
        if self.live:
            self.live = False
            self._wake_watchers()
        if not self.away and self._giving_up is None:
            self._giving_up = asyncio.get_running_loop().call_later(self._patience, self._give_up)

    def _give_up(self) -> None:
        self._giving_up = None
        self.away = True
        self._wake()

    def _wake(self) -> None:
        moved, self.moved = self.moved, asyncio.Event()
        moved.set()

    def _wake_watchers(self) -> None:
        for watchers in self._watchers.values():
            for news in watchers:
                news.set()


class Reader:
    """One client's way through the events: `position` is how far it has read."""

    def __init__(self, hub: Hub, topics: Sequence[DomainName], position: int) -> None:
        self.topics = topics
        self.position = position
        self._hub = hub
        self._ring = hub.ring
        self._page: tuple[list[Entry], int] | None = None
        self._is_behind = position < hub.ring.floor

    async def open(self) -> None:
        """Make sure that what it asks for is there. Raises `Gone`, `Unavailable`."""
        if self._is_behind:
            self._page = await self._hub.page(self.position, self.topics)

    async def next(self, at_most: float) -> Sequence[Entry]:
        """The next entries of its topics as soon as there are any, about `PAGE_SIZE` at most; none after `at_most`
        seconds. `position` says then up to where it has all of them.

        Raises `TooSlow` if it was up to date once and what it needs has been dropped since, `Gone` if the stream
        was made anew or drops its events faster than they are read, `Unavailable` when NATS is away.
        """
        deadline = asyncio.get_running_loop().time() + at_most
        while True:
            if self._hub.ring is not self._ring:
                raise Gone(self.position)
            entries = await self._behind() if self._is_behind else self._latest()
            wanted = [entry for entry in entries if entry.domain in self.topics]
            if wanted:
                return wanted
            if entries or self._is_behind:
                continue
            if self._hub.away:
                raise _nats_is_away()
            try:
                async with asyncio.timeout_at(deadline):
                    await self._hub.moved.wait()
            except TimeoutError:
                return ()

    async def _behind(self) -> Sequence[Entry]:
        """What is behind its position in the stream, until that is in the ring."""
        page, self._page = self._page, None
        entries, self.position = page or await self._hub.page(self.position, self.topics)
        self._is_behind = self.position < self._ring.floor
        return entries

    def _latest(self) -> Sequence[Entry]:
        """What is behind its position in the ring."""
        if self.position < self._ring.floor:
            raise TooSlow(self.position)
        entries = self._ring.behind(self.position, PAGE_SIZE)
        if entries:
            self.position = entries[-1].position
        return entries


def _entry(event: RecordedEvent) -> Entry:
    """The entry of an event; of one that can not be told, that of a position without an event."""
    try:
        return Entry.of(event)
    except ValueError:
        assert event.sequence is not None
        _log.error("live updates: event %s (%s) can not be told, and is passed over", event.id, event.subject)
        return Entry.of_none(event.sequence)


def _nats_is_away() -> Unavailable:
    return Unavailable("no events come in at the moment: try again later")

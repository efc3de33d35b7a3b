"""The latest events of all domains, each written as a message once, for whoever reads on from where it was."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from api.live.messages import EventMessage
from events.recorded import RecordedEvent
from kernel.messages import DomainName


@dataclass(frozen=True, slots=True)
class Entry:
    """An event with the message that tells of it; or a position that no event has, of no domain."""

    position: int
    domain: DomainName | None
    message: str

    @classmethod
    def of(cls, event: RecordedEvent) -> Self:
        """The entry of an event that came by JetStream."""
        assert event.sequence is not None
        return cls(event.sequence, event.domain, EventMessage.of(event).model_dump_json())

    @classmethod
    def of_none(cls, position: int) -> Self:
        """The entry of a position that no event has."""
        return cls(position, None, "")


class Ring:
    """Every entry from behind `floor` up to `position`, without a hole: the last `size`, and some more."""

    def __init__(self, floor: int, size: int) -> None:
        self.floor = floor
        self._size = size
        self._entries: list[Entry] = []

    @property
    def position(self) -> int:
        """That of the last entry."""
        return self.floor + len(self._entries)

    def add(self, entry: Entry) -> None:
        """Take the entry behind the last one, and drop the oldest now and then."""
        assert entry.position == self.position + 1
        self._entries.append(entry)
        # Not one by one: each time moves all that stay.
        if len(self._entries) > self._size + self._size // 4:
            dropped = len(self._entries) - self._size
            del self._entries[:dropped]
            self.floor += dropped

    def behind(self, position: int, limit: int) -> Sequence[Entry]:
        """Up to `limit` entries behind a position that is not before `floor`."""
        begin = position - self.floor
        return self._entries[begin : begin + limit]

"""Consumers: named readers of events, each with its position in its own database.

To write one takes a name, the subjects that it wants, and a handler:

    async def count(connection: AsyncConnection, event: RecordedEvent) -> None:
        await connection.execute(text("UPDATE mine.counter SET orders = orders + 1"))

    CONSUMER = Consumer("order-counter", schema="mine", subjects=("mallbots.orders.OrderPlaced.*",), handle=count)

The handler writes on the connection that it is given; its transaction moves the position, too. So whatever dies
and however often an event is delivered, it takes effect once. A consumer that is new begins with the first event
of each domain, wherever that still is: JetStream's stream, or the domain's own table.
"""

import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, get_args

from sqlalchemy.ext.asyncio import AsyncConnection

from events.recorded import ROOT, RecordedEvent, matches
from kernel.messages import DomainName

Handler = Callable[[AsyncConnection, RecordedEvent], Awaitable[None]]

DOMAINS: Final[tuple[DomainName, ...]] = get_args(DomainName)


@dataclass(frozen=True)
class Consumer:
    """A reader of events. `schema` is where its position and its dead letters are kept.

    Streams are dealt to `partitions` by their names, and partitions to the processes that run the consumer: they
    share the load, and of a stream each event is handled after the one before. The number is fixed once the
    consumer has run. `key` gives the partition another criterion than the stream.
    """

    name: str
    schema: str
    subjects: tuple[str, ...]
    handle: Handler
    partitions: int = 1
    key: Callable[[RecordedEvent], str] = lambda event: event.stream

    def __post_init__(self) -> None:
        for subject in self.subjects:
            root, _, rest = subject.partition(".")
            if root != ROOT or rest.partition(".")[0] not in DOMAINS:
                raise ValueError(f"{self.name}: {subject} does not begin with {ROOT} and the name of a domain")

    @property
    def domains(self) -> tuple[DomainName, ...]:
        """The domains whose events it wants."""
        wanted = {subject.split(".")[1] for subject in self.subjects}
        return tuple(domain for domain in DOMAINS if domain in wanted)

    def wants(self, event: RecordedEvent, partition: int) -> bool:
        """Whether this partition of it handles the event."""
        return self.partition_of(event) == partition and any(
            matches(event.subject, subject) for subject in self.subjects
        )

    def partition_of(self, event: RecordedEvent) -> int:
        """The partition that the event belongs to."""
        return zlib.crc32(self.key(event).encode()) % self.partitions

"""What the domains publish: their events, and the streams that these are on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from domains.depot import messages as depot
from domains.orders import messages as orders
from domains.payments import messages as payments
from domains.stores import messages as stores
from events.event import Event
from kernel.messages import DomainName


@dataclass(frozen=True)
class Published:
    """The events that a domain writes, and which of them are on a stream: `order-{order_id}` is named by the field
    of that name."""

    events: tuple[type[Event], ...]
    streams: Mapping[str, tuple[type[Event], ...]]


PUBLISHED: Final[Mapping[DomainName, Published]] = {
    "orders": Published(orders.EVENTS, orders.STREAMS),
    "stores": Published(stores.EVENTS, stores.STREAMS),
    "payments": Published(payments.EVENTS, payments.STREAMS),
    "depot": Published(depot.EVENTS, depot.STREAMS),
}


def stream_pattern(kind: type[Event]) -> str:
    """How the stream is named that such events are on, as `order-{order_id}`. Raises `LookupError` if they are on
    none of a domain's."""
    for published in PUBLISHED.values():
        for pattern, kinds in published.streams.items():
            if kind in kinds:
                return pattern
    raise LookupError(f"{kind.__name__} is on no stream of a domain")


def stream_of(event: Event) -> str:
    """The stream that an event is on, as `order-<its order id>`. Raises `LookupError` as `stream_pattern` does."""
    return stream_pattern(type(event)).format_map(dict(event))

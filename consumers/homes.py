"""Every consumer that there is, and the database that its position and its dead letters are in. A new one is a
line here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from consumers import copies
from consumers.analytics.consumer import CONSUMER as ANALYTICS
from consumers.notifications.consumer import CONSUMER as NOTIFICATIONS
from consumers.returns import CONSUMER as RETURNS
from consumers.trail.consumer import CONSUMER as TRAIL
from events.consumer import Consumer

HomeName = Literal["orders", "stores", "payments", "depot", "trail", "notifications", "analytics"]
"""A database with events, or with a consumer, in it."""


@dataclass(frozen=True)
class Home:
    """A consumer and the database that its schema is in."""

    database: HomeName
    consumer: Consumer


HOMES: Final[Mapping[str, Home]] = {
    home.consumer.name: home
    for home in (
        Home("depot", copies.DEPOT),
        Home("orders", copies.ORDERS),
        Home("stores", RETURNS),
        Home("trail", TRAIL),
        Home("notifications", NOTIFICATIONS),
        Home("analytics", ANALYTICS),
    )
}
"""The consumers by their names."""

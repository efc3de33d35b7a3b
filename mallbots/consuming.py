"""Every consumer that there is, and the processes that run them. A new one is a line here."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final

from consumers import copies
from consumers.analytics.consumer import CONSUMER as ANALYTICS
from consumers.notifications.consumer import CONSUMER as NOTIFICATIONS
from consumers.returns import CONSUMER as RETURNS
from consumers.trail.consumer import CONSUMER as TRAIL
from events.consumer import DOMAINS, Consumer
from events.group import GroupMember
from events.partition import Feed
from kernel.database import Database
from mallbots.notifying import send_notifications
from mallbots.processes import run_process
from mallbots.settings import DatabaseName, Settings

_CONNECTIONS: Final = 4


@dataclass(frozen=True)
class Role:
    """A consumer and the database that its schema is in. `beside` is what its process does besides."""

    database: DatabaseName
    consumer: Callable[[Settings], Consumer]
    beside: Callable[[Settings, Database], Coroutine[Any, Any, None]] | None = None


ROLES: Final[Mapping[str, Role]] = {
    "depot-copies": Role("depot", lambda settings: copies.DEPOT),
    "orders-copies": Role("orders", lambda settings: copies.ORDERS),
    "stores-returns": Role("stores", lambda settings: RETURNS),
    "trail": Role("trail", lambda settings: TRAIL),
    "notifications": Role("notifications", lambda settings: NOTIFICATIONS, beside=send_notifications),
}
"""The consumers that the mall needs; Analytics, which it does not, is a process of its own."""

ALL_ROLES: Final[Mapping[str, Role]] = {**ROLES, "analytics": Role("analytics", lambda settings: ANALYTICS)}


def run(settings: Settings, names: Sequence[str] = ()) -> None:
    """Run these consumers (all of `ROLES`, if none is named) until SIGTERM or Ctrl-C."""
    run_process(settings, consume(settings, [ROLES[name] for name in names or ROLES]))


async def consume(settings: Settings, roles: Sequence[Role]) -> None:
    """Run consumers until cancelled. Raises `Misconfigured`."""
    async with AsyncExitStack() as stack:
        opened: dict[DatabaseName, Database] = {}

        def database(name: DatabaseName) -> Database:
            if name not in opened:
                opened[name] = Database(name, settings.database_url(name), pool_size=_CONNECTIONS)
                stack.push_async_callback(opened[name].close)
            return opened[name]

        feed = Feed(settings.nats_address(), {domain: database(domain) for domain in DOMAINS})
        try:
            async with asyncio.TaskGroup() as tasks:
                for role in roles:
                    home = database(role.database)
                    tasks.create_task(GroupMember(role.consumer(settings), home, feed).run())
                    if role.beside is not None:
                        tasks.create_task(role.beside(settings, home))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None

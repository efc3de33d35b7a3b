"""The processes that run the consumers. A new consumer is a line in `consumers/homes.py`."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final

from consumers.homes import HOMES, Home
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


def _role(home: Home) -> Role:
    beside = send_notifications if home.consumer.name == "notifications" else None
    return Role(home.database, lambda settings: home.consumer, beside)


ALL_ROLES: Final[Mapping[str, Role]] = {name: _role(home) for name, home in HOMES.items()}
ROLES: Final[Mapping[str, Role]] = {name: role for name, role in ALL_ROLES.items() if name != "analytics"}
"""The consumers that the mall needs; Analytics, which it does not, is a process of its own."""


def run(settings: Settings, names: Sequence[str] = ()) -> None:
    """Run these consumers (all of `ROLES`, if none is named) until SIGTERM or Ctrl-C."""
    run_process(settings, "consumers", consume(settings, [ROLES[name] for name in names or ROLES]))


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

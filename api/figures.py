"""Figures of the mall as a whole, for Prometheus: how many orders are where, what waits, what is stuck, who is
away.

Every API process that serves metrics can tell them, for it knows everybody, and one does at a time. So they are
told also when relays, consumers and workers are dead. They are asked for every few seconds, never while Prometheus
waits. A figure that can not be had is not told any more, for a wrong one is worse than none.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from functools import partial
from time import monotonic
from typing import Final

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

from api.services import Services
from consumers.homes import HOMES, Home
from consumers.watch import LETTER_HOMES, Progress
from events.consumer import DOMAINS
from events.stream import connected
from kernel.database import Session
from kernel.errors import MallError
from kernel.locks import lock_key
from kernel.messages import DomainName
from mallbots.settings import DATABASES, DatabaseName
from workflows.operators import QUEUES

EVERY: Final = 10.0
"""Seconds between two looks."""
LOOK_FOR: Final = 5.0
"""Seconds that a look at one thing may take."""
TOLD_FOR: Final = 35.0
"""Seconds after which a figure that was not had anew is not told any more."""

_ANSWERS_WITHIN: Final = 4.0
# The sandbox's books are its own.
_DATABASES: Final = tuple(name for name in DATABASES if name != "sandbox")
_MOST_STUCK: Final = 1000
_LOCK: Final = lock_key("figures", "mall")

_FIGURES: Final = {
    "orders": ("{order}", "Orders that have not ended, by state"),
    "shopping.lists": ("{list}", "Shopping lists that are not shopped yet, by state"),
    "shopping.lists.untaken": (
        "{list}",
        "Shopping lists that no robot has taken for longer than MALLBOTS_LIST_PATIENCE_SECONDS",
    ),
    "sagas.stuck": ("{saga}", "Sagas that need a person, by the domain whose step or undo fails"),
    "relay.lag": ("s", "Age of the oldest event that is not published yet; 0 if all are"),
    "relay.backlog": ("{event}", "Events that are not published yet: the outbox"),
    "consumer.lag": ("s", "Age of the oldest event that the consumer has not read yet; 0 if there is none"),
    "consumer.backlog": ("{event}", "Events that the consumer has not read yet"),
    "dead_letters": ("{event}", "Events that the consumer has set aside"),
    "queue.worked_on": ("{queue}", "1 if a worker asks for the tasks of the queue"),
    "queue.backlog": ("{task}", "Tasks that wait for a worker, about"),
    "queue.oldest": ("s", "Age of the oldest task that waits for a worker, about"),
    "database.up": ("{database}", "1 if the database answers"),
    "nats.up": ("{server}", "1 if NATS answers"),
    "temporal.up": ("{server}", "1 if Temporal answers"),
}

_log = logging.getLogger(__name__)

Labels = Mapping[str, str]
Figure = tuple[str, float, Labels]


async def tell_figures(mall: Services, told: "Told") -> None:
    """Tell the figures until cancelled, while no other process does: the database of Orders knows. While that is
    away, tell them: twice is better than not at all."""
    lookout = Lookout(mall)
    while True:
        try:
            async with mall.database("orders").session() as session:
                await _tell_in_turn(session, lookout, told)
        except MallError:
            """It has a figure of its own."""
        except Exception:
            _log.exception("whose turn it is to tell the figures can not be asked")
        await lookout.look(told)
        await asyncio.sleep(EVERY)


async def _tell_in_turn(session: Session, lookout: "Lookout", told: "Told") -> None:
    while not await session.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK):
        told.forget()
        await asyncio.sleep(EVERY)
    while not session.is_closed():
        await lookout.look(told)
        await asyncio.sleep(EVERY)


class Told:
    """What Prometheus is told when it asks."""

    def __init__(self) -> None:
        self._figures: dict[str, tuple[float, list[Figure]]] = {}

    def begin(self) -> None:
        """Let Prometheus ask."""
        meter = metrics.get_meter("mallbots.figures")
        for name, (unit, description) in _FIGURES.items():
            meter.create_observable_gauge(f"mallbots.{name}", [partial(self.observe, name)], unit, description)

    def note(self, look: str, figures: Iterable[Figure]) -> None:
        """Tell these from now on, instead of those of the last such look."""
        self._figures[look] = (monotonic(), list(figures))

    def forget(self) -> None:
        """Tell nothing any more."""
        self._figures = {}

    def observe(self, name: str, options: CallbackOptions) -> Iterator[Observation]:
        """The figures of this name that are not too old."""
        since = monotonic() - TOLD_FOR
        for noted_at, figures in list(self._figures.values()):
            if noted_at > since:
                yield from (Observation(value, labels) for known, value, labels in figures if known == name)


class Lookout:
    """All that is looked at."""

    def __init__(self, mall: Services) -> None:
        self._mall = mall
        self._looks: dict[str, Callable[[], Awaitable[Iterable[Figure]]]] = {
            "NATS": self._of_nats,
            "Temporal": self._of_temporal,
            "orders": self._of_orders,
            "shopping lists": self._of_lists,
            "stuck sagas": self._of_sagas,
            **{f"the {name} database": partial(self._of_database, name) for name in _DATABASES},
            **{f"the relay of {domain}": partial(self._of_relay, domain) for domain in DOMAINS},
            **{f"consumer {name}": partial(self._of_consumer, home) for name, home in HOMES.items()},
            **{f"dead letters of {name}": partial(self._of_letters, one) for name, one in LETTER_HOMES.items()},
            **{f"queue {queue}": partial(self._of_queue, queue) for queue in QUEUES},
        }

    async def look(self, told: Told) -> None:
        """Look at everything at once; what can not be seen is not told. Returns within `LOOK_FOR` or so."""
        await asyncio.gather(*(self._one(name, look, told) for name, look in self._looks.items()))

    async def _one(self, name: str, look: Callable[[], Awaitable[Iterable[Figure]]], told: Told) -> None:
        try:
            told.note(name, await asyncio.wait_for(look(), LOOK_FOR))
        except (MallError, TimeoutError):
            """Who is away has a figure of its own."""
        except Exception:
            _log.exception("figures of %s can not be had", name)

    async def _of_orders(self) -> Iterable[Figure]:
        states = await self._mall.orders.how_many()
        return [("orders", number, {"state": state}) for state, number in states.items()]

    async def _of_lists(self) -> Iterable[Figure]:
        untaken = await self._mall.depot.untaken(self._mall.settings.list_patience_seconds)
        states = await self._mall.depot.how_many()
        return [
            *(("shopping.lists", number, {"state": state}) for state, number in states.items()),
            ("shopping.lists.untaken", untaken.lists if untaken else 0, {}),
        ]

    async def _of_sagas(self) -> Iterable[Figure]:
        stuck: Counter[str] = Counter(dict.fromkeys(DOMAINS, 0))
        for activity, sagas in (await (await self._mall.operators()).count(_MOST_STUCK)).items():
            stuck[activity.partition(".")[0]] += sagas
        return [("sagas.stuck", number, {"domain": domain}) for domain, number in stuck.items()]

    async def _of_queue(self, name: str) -> Iterable[Figure]:
        queue = await (await self._mall.operators()).queue(name)
        labels = {"queue": name}
        return [
            ("queue.worked_on", queue.is_worked_on, labels),
            ("queue.backlog", queue.backlog, labels),
            ("queue.oldest", queue.oldest, labels),
        ]

    async def _of_relay(self, domain: DomainName) -> Iterable[Figure]:
        progress = await self._mall.watch.relay(domain, None)
        return _behind("relay", progress, {"domain": domain})

    async def _of_consumer(self, home: Home) -> Iterable[Figure]:
        name = home.consumer.name
        return [
            figure
            for progress in await self._mall.watch.consumer(home)
            for figure in _behind("consumer", progress, {"consumer": name, "domain": progress.domain})
        ]

    async def _of_letters(self, home: Home) -> Iterable[Figure]:
        letters = await self._mall.watch.how_many_dead_letters(home)
        return [("dead_letters", number, {"consumer": consumer}) for consumer, number in letters.items()]

    async def _of_database(self, name: DatabaseName) -> Iterable[Figure]:
        return [("database.up", await _answers(self._mall.database(name).ping()), {"database": name})]

    async def _of_nats(self) -> Iterable[Figure]:
        return [("nats.up", await _answers(self._ask_nats()), {})]

    async def _of_temporal(self) -> Iterable[Figure]:
        return [("temporal.up", await _answers(self._mall.ping_temporal()), {})]

    async def _ask_nats(self) -> None:
        async with connected(self._mall.settings.nats_address(), "figures"):
            """It answers."""


async def _answers(question: Awaitable[None]) -> bool:
    try:
        await asyncio.wait_for(question, _ANSWERS_WITHIN)
    except Exception as error:
        # Whatever it is: gone, forbidden, without its certificate. It does not answer us.
        _log.debug("no answer", exc_info=error)
        return False
    return True


def _behind(reader: str, progress: Progress, labels: Labels) -> list[Figure]:
    return [(f"{reader}.lag", progress.seconds, labels), (f"{reader}.backlog", progress.waiting, labels)]

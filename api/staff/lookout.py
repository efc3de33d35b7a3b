"""What is stuck in the mall: everything that may need a person is looked at, all at once, and none may take long.
What can not be looked at is stuck itself."""

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from api.problems import note_incident
from api.services import Services
from consumers.homes import HOMES, Home
from consumers.watch import LETTER_HOMES, Progress
from events.consumer import DOMAINS
from events.dead_letters import DeadLetter
from events.recorded import RecordedEvent
from kernel.errors import MallError
from kernel.ids import now
from kernel.messages import DomainName
from kernel.wording import count
from mallbots.settings import DATABASES, DatabaseName
from workflows.operators import QUEUES, StuckSaga

Kind = Literal[
    "undo",
    "step",
    "refund",
    "dead_letter",
    "list_nobody_takes",
    "relay_behind",
    "consumer_behind",
    "domain_down",
    "no_worker",
    "notification_failed",
]
Action = Literal["retry", "skip_undo", "retry_dead_letter", "resend"]

LOOK_FOR: Final = 2.0
"""Seconds that a look at one thing may take."""
LATE_AFTER: Final = 30.0
"""Seconds that an event may wait to be published, or to be handled."""

_MOST_SAGAS: Final = 25
_MOST_NOTICES: Final = 20
_NOTICE_MATTERS_FOR: Final = timedelta(days=1)
_LONGEST_WHY: Final = 500
# Of each consumer's schema: whoever mends one kind of them mends the rest, too.
_MOST_LETTERS: Final = 50
_ORDER_STREAM: Final = re.compile(r"order-([0-9a-f-]{36})")
# The sandbox's books are its own; nothing of the mall is in them.
_DATABASES: Final = tuple(name for name in DATABASES if name != "sandbox")
_TEMPORAL: Final = "Temporal"
_NATS: Final = "NATS"


class StuckThing(BaseModel):
    """Something that needs a person. The ids say what `actions` are for."""

    kind: Kind
    subject: str = Field(description="What is stuck, in a few words")
    why: str
    since: datetime | None = Field(None, description="Since when, if that is known")
    link: str | None = Field(None, description="The page of the staff app where more is to be seen")
    actions: list[Action] = Field([], description="What can be done about it here")
    advice: str = Field("", description="What a person can do about it otherwise")
    attempts: int | None = Field(None, description="How often it was tried, at least since a retry by hand")
    next_attempt_at: datetime | None = Field(None, description="When it is tried again by itself, if it waits")
    order_id: UUID | None = None
    refund_id: UUID | None = None
    activity: str | None = None
    consumer: str | None = None
    event_id: UUID | None = None
    notification_id: UUID | None = None


class Check(BaseModel):
    """Something that was looked at; `ok` if nothing about it needs a person, null if it could not be looked at
    because something else is down."""

    name: str
    ok: bool | None


class Stuck(BaseModel):
    """What needs a person now, and all that was looked at."""

    looked_at: datetime
    things: list[StuckThing]
    checks: list[Check]


@dataclass(frozen=True)
class _Look:
    """A look at something, for which these others have to be up. `down` is what it is if it fails."""

    name: str
    look: Callable[[], Awaitable[Sequence[StuckThing]]]
    needs: tuple[str, ...] = ()
    advice: str = "Look into its log; the rest of the mall goes on, and catches up by itself"


async def look_around(mall: Services) -> Stuck:
    """Look at everything at once; each look ends within `LOOK_FOR`."""
    lookout = _Lookout(mall)
    looks = lookout.looks()
    outcomes = await asyncio.gather(*map(_outcome, looks))
    lookout.close()
    failed = {look.name for look, outcome in zip(looks, outcomes, strict=True) if isinstance(outcome, str)}
    things: list[StuckThing] = []
    checks = []
    for look, outcome in zip(looks, outcomes, strict=True):
        if failed.intersection(look.needs):
            checks.append(Check(name=look.name, ok=None))
            continue
        if isinstance(outcome, str):
            things.append(StuckThing(kind="domain_down", subject=look.name, why=outcome, advice=look.advice))
        else:
            things += outcome
        checks.append(Check(name=look.name, ok=not outcome))
    things.sort(key=lambda thing: (thing.kind not in ("domain_down", "no_worker"), thing.since or now()))
    return Stuck(looked_at=now(), things=things, checks=checks)


async def _outcome(look: _Look) -> Sequence[StuckThing] | str:
    """What was seen, or why nothing could be."""
    try:
        return await asyncio.wait_for(look.look(), LOOK_FOR)
    except MallError as error:
        return error.message
    except TimeoutError:
        return f"no answer within {LOOK_FOR:g} s"
    except Exception as error:
        incident = note_incident(error, f"while looking at {look.name}")
        return f"{type(error).__name__}; incident {incident} is in our log"


class _Lookout:
    """Every look at a mall."""

    def __init__(self, mall: Services) -> None:
        self._mall = mall
        self._published: asyncio.Task[dict[DomainName, RecordedEvent]] | None = None

    def looks(self) -> list[_Look]:
        """One for each thing that can be stuck, what others need first."""
        looks = [
            _Look(_database(name), self._ping(name), advice="Start its PostgreSQL; what waits for it goes on then")
            for name in _DATABASES
        ]
        looks += [
            _Look(_NATS, self._nats, advice="Start NATS; until then nothing is lost, but nobody hears of events"),
            _Look(_TEMPORAL, self._temporal, advice="Start Temporal; every order goes on where it stands"),
            _Look("sagas", self._sagas, (_TEMPORAL,)),
        ]
        looks += [_Look(f"worker of {queue}", self._worker(queue), (_TEMPORAL,)) for queue in QUEUES]
        looks += [
            _Look(f"relay of {domain}", self._relay(domain), (_NATS, _database(domain))) for domain in DOMAINS
        ]
        looks += [_Look(f"consumer {name}", self._consumer(home), _needs_of(home)) for name, home in HOMES.items()]
        looks += [
            _Look(f"dead letters of {schema}", self._dead_letters(home), (_database(home.database),))
            for schema, home in LETTER_HOMES.items()
        ]
        return [
            *looks,
            _Look("shopping lists", self._lists, (_database("depot"),)),
            _Look("notices to customers", self._notices, (_database("notifications"),)),
        ]

    def close(self) -> None:
        """Give up what is still awaited."""
        if self._published is not None:
            self._published.cancel()

    def _ping(self, name: DatabaseName) -> Callable[[], Awaitable[Sequence[StuckThing]]]:
        async def look() -> Sequence[StuckThing]:
            await self._mall.database(name).ping()
            return ()

        return look

    async def _nats(self) -> Sequence[StuckThing]:
        await self._newest()
        return ()

    async def _temporal(self) -> Sequence[StuckThing]:
        await self._mall.ping_temporal()
        return ()

    async def _sagas(self) -> Sequence[StuckThing]:
        found = await (await self._mall.operators()).find(_MOST_SAGAS + 1)
        things = [_saga(one) for one in found[:_MOST_SAGAS]]
        if len(found) > _MOST_SAGAS:
            why = f"more than {_MOST_SAGAS} sagas are stuck, and these are some of them"
            advice = "The Temporal Web UI lists all of them by the query `Stuck IS NOT NULL`"
            things.append(StuckThing(kind="step", subject="more sagas", why=why, advice=advice))
        return things

    def _worker(self, queue: str) -> Callable[[], Awaitable[Sequence[StuckThing]]]:
        async def look() -> Sequence[StuckThing]:
            if await (await self._mall.operators()).is_worked_on(queue):
                return ()
            why = "no worker asks for its tasks: they wait"
            advice = "Start one: `mallbots worker`"
            return [StuckThing(kind="no_worker", subject=f"worker of {queue}", why=why, advice=advice)]

        return look

    def _relay(self, domain: DomainName) -> Callable[[], Awaitable[Sequence[StuckThing]]]:
        async def look() -> Sequence[StuckThing]:
            published = await self._newest()
            progress = await self._mall.watch.relay(domain, published.get(domain))
            advice = "Look into the relay's log, or start it: `mallbots relay`"
            return _behind("relay_behind", f"relay of {domain}", [progress], "published", advice)

        return look

    def _consumer(self, home: Home) -> Callable[[], Awaitable[Sequence[StuckThing]]]:
        async def look() -> Sequence[StuckThing]:
            progress = await self._mall.watch.consumer(home)
            name = home.consumer.name
            command = "analytics" if name == "analytics" else "consumers"
            advice = f"Look into its log, or start it: `mallbots {command}`"
            return _behind("consumer_behind", f"consumer {name}", progress, "handled", advice)

        return look

    def _dead_letters(self, home: Home) -> Callable[[], Awaitable[Sequence[StuckThing]]]:
        async def look() -> Sequence[StuckThing]:
            letters = await self._mall.watch.dead_letters_of(home)
            waiting = Counter(_stream_of(letter) for letter in letters if letter.error is None)
            failed = [letter for letter in letters if letter.error is not None]
            return [_letter(letter, waiting[_stream_of(letter)]) for letter in failed[:_MOST_LETTERS]]

        return look

    async def _lists(self) -> Sequence[StuckThing]:
        untaken = await self._mall.depot.untaken(self._mall.settings.list_patience_seconds)
        if untaken is None:
            return ()
        lists = count(untaken.lists, "shopping list")
        return [
            StuckThing(
                kind="list_nobody_takes",
                subject=lists,
                why="no robot takes " + ("it" if untaken.lists == 1 else "them, the oldest since then"),
                since=untaken.since,
                link="/staff/robots",
                advice="Bring more robots, or end a break: see Robots. The oldest is that of order "
                f"{untaken.order_id}",
                order_id=untaken.order_id,
            )
        ]

    async def _notices(self) -> Sequence[StuckThing]:
        failed = await self._mall.notifications.newest(_MOST_NOTICES, "failed")
        return [
            StuckThing(
                kind="notification_failed",
                subject=f"notice to {notice.customer} ({notice.kind.replace('_', ' ')})",
                why=(notice.error or "it was not taken")[:_LONGEST_WHY],
                since=notice.created_at,
                link=_page_of(notice.order_id),
                actions=["resend"],
                advice="Send it again once whoever takes the notices is mended, or tell the customer yourself",
                order_id=notice.order_id,
                notification_id=notice.id,
            )
            for notice in failed
            if notice.created_at > now() - _NOTICE_MATTERS_FOR
        ]

    async def _newest(self) -> dict[DomainName, RecordedEvent]:
        """The newest event of each domain in NATS, which is asked once."""
        if self._published is None:
            self._published = asyncio.create_task(self._mall.watch.published())
        return await asyncio.shield(self._published)


def _saga(one: StuckSaga) -> StuckThing:
    what = f"refund {one.refund_id}" if one.refund_id else f"order {one.order_id}"
    advice = "It is tried again by itself, without end. Retry it at once when the fault is mended"
    if one.is_skippable:
        advice += "; skip it only if it can never work: what it would have undone stays as it is"
    elif one.refund_id is None and not one.is_undo:
        advice += "; or cancel the order"
    return StuckThing(
        kind="refund" if one.refund_id else "undo" if one.is_undo else "step",
        subject=f"{one.activity} of {what}",
        why=(one.error or "it does not go through")[:_LONGEST_WHY],
        attempts=one.attempts or None,
        since=one.since,
        link=_page_of(one.order_id) if one.order_id else None,
        actions=["retry", "skip_undo"] if one.is_skippable else ["retry"],
        advice=advice,
        next_attempt_at=one.next_attempt_at,
        order_id=one.order_id,
        refund_id=one.refund_id,
        activity=one.activity,
    )


def _behind(
    kind: Kind, subject: str, progress: Sequence[Progress], to_be: str, advice: str
) -> Sequence[StuckThing]:
    late = [one for one in progress if one.seconds > LATE_AFTER]
    if not late:
        return ()
    oldest = max(one.seconds for one in late)
    waiting = count(sum(one.waiting for one in late), "event")
    domains = ", ".join(one.domain for one in late)
    since = now() - timedelta(seconds=oldest)
    why = f"{waiting} of {domains} wait to be {to_be}"
    return [StuckThing(kind=kind, subject=subject, why=why, since=since, advice=advice)]


def _stream_of(letter: DeadLetter) -> tuple[str, str]:
    return letter.consumer, letter.subject.split(".", 3)[3]


def _letter(letter: DeadLetter, behind: int) -> StuckThing:
    _, _, event, stream = letter.subject.split(".", 3)
    why = (letter.error or "")[:_LONGEST_WHY]
    if behind:
        why += f"; {count(behind, 'later event')} of {stream} wait behind it"
    if letter.retry_asked_at:
        why += "; it was sent again, and nobody has taken it up yet"
    order = _ORDER_STREAM.fullmatch(stream)
    return StuckThing(
        kind="dead_letter",
        subject=f"{event} of {stream} for {letter.consumer}",
        why=why,
        since=letter.set_aside_at,
        link=_page_of(UUID(order[1])) if order else None,
        actions=["retry_dead_letter"],
        advice="Mend what the consumer stumbles over, then send it again: the others behind it follow",
        order_id=UUID(order[1]) if order else None,
        consumer=letter.consumer,
        event_id=letter.event_id,
    )


def _needs_of(home: Home) -> tuple[str, ...]:
    return (_database(home.database), *(_database(domain) for domain in home.consumer.domains))


def _database(name: str) -> str:
    return f"{name} database"


def _page_of(order_id: UUID) -> str:
    return f"/staff/orders/{order_id}"

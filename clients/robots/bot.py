"""One shopper bot: it says Ready, shops what it is given, and comes back whatever happens to its line."""

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from api.generated.mallbots.automation.v1.automation_pb2 import (
    Finished,
    FromRobot,
    Item,
    ItemReport,
    Ready,
    Recall,
    Refused,
    Returned,
    ShoppingList,
    ToRobot,
)
from clients.robots.line import Gateway, Line, LineLost, connected
from clients.robots.trip import Trip, found

# Seconds at speed 1.
_A_WAY: Final = 2.0
_AN_ITEM: Final = 0.5

_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0
_BREAK_WITHIN: Final = 1.0


class State(StrEnum):
    """What a bot is doing."""

    CONNECTING = "connecting"
    IDLE = "idle"
    SHOPPING = "shopping"
    WAITING = "waiting"
    DELIVERING = "delivering"
    RETURNING = "returning"
    SILENT = "silent"


@dataclass(frozen=True)
class Habits:
    """How bots shop. `speed` 1 takes 2 s a way and 0.5 s an item, 2 half of that.

    The rest are probabilities: `missing` that an item is not found, or only in part; `drop` that the bot cuts
    its line when it reports an item; `vanish` that it falls silent in the middle of a list, and comes back
    after a while as if switched off and on. `seed` fixes what is found by order and product.
    """

    speed: float = 1.0
    missing: float = 0.0
    drop: float = 0.0
    vanish: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Sight:
    """A bot as it is seen at an event. `number` is its place among the bots, from 0; `picked` and `total` are
    pieces; `matters` if the event is worth a line in a log."""

    number: int
    robot: str
    state: State
    order_id: str | None
    store: str
    picked: int
    total: int
    event: str
    matters: bool


@dataclass(frozen=True)
class _Step:
    """Walk for so many seconds, then report this."""

    seconds: float
    report: FromRobot


class _Cut(LineLost):
    """The bot cut its line itself."""


class _Vanished(Exception):
    """The bot falls silent."""


class Bot:
    """A robot by its token. `on_event` is told of everything it does."""

    def __init__(
        self,
        number: int,
        name: str,
        token: str,
        gateway: Gateway,
        habits: Habits,
        on_event: Callable[[Sight], None],
    ) -> None:
        self._number = number
        self._name = name
        self._token = token
        self._gateway = gateway
        self._habits = habits
        self._on_event = on_event
        self._dice = random.Random(f"{habits.seed}/{name}")  # noqa: S311 - it plays accidents
        self._away: State | None = State.CONNECTING
        self._refusals = 0
        self._not_before = 0.0
        self._due = 0.0
        self._forget()

    async def run(self) -> None:
        """Work until cancelled. A lost line is opened again, without end; an idle bot says Break at last."""
        failures = 0
        while True:
            opened_at = time.monotonic()
            try:
                async with connected(self._gateway, self._token) as line:
                    await self._work(line)
            except LineLost as lost:
                lasted = time.monotonic() > opened_at + _LONGEST_PAUSE
                failures = 0 if isinstance(lost, _Cut) else 1 if lasted else failures + 1
                self._away = State.CONNECTING
                told = "cuts its line" if isinstance(lost, _Cut) else f"has no line: {lost}"
                self._tell(told, matters=failures <= 1)
            except _Vanished:
                self._forget()
                self._away = State.CONNECTING
                self._tell("is switched on again")
            await asyncio.sleep(self._pause(failures))

    def _forget(self) -> None:
        self._trip: Trip | None = None
        self._returns: dict[str, Recall] = {}
        self._items_until_silence: int | None = None
        self._asked: FromRobot | None = None
        self._say_again = False
        self._step: _Step | None = None
        self._is_ready = False

    async def _work(self, line: Line) -> None:
        self._name = line.welcome.robot or self._name
        self._away = None
        # What is not answered is said again; otherwise Ready makes the gateway say what holds now.
        self._say_again = self._asked is not None
        self._is_ready = False
        self._tell("is connected")
        try:
            while True:
                await self._go_on(line)
        except asyncio.CancelledError:
            await self._leave(line)
            raise
        except _Vanished:
            self._away = State.SILENT
            self._tell("falls silent")
            # The line stays open: that nothing is heard must be enough to give up on a robot.
            await asyncio.sleep(line.welcome.silent_after_seconds * self._dice.uniform(1.5, 2.5))
            raise

    async def _go_on(self, line: Line) -> None:
        """Listen until something is due, and do that."""
        self._look_ahead()
        speak_by = line.spoke_at + line.heartbeat_every
        answer_by = line.quiet_since + line.patience * (2 if self._asked is None else 1)
        step = self._step
        heard = await line.listen(min(speak_by, self._due if step else answer_by))
        now = time.monotonic()
        if heard is not None:
            self._hear(line, heard)
        elif step is not None and now >= self._due:
            await self._report(line, step.report)
        elif step is None and now >= answer_by:
            if self._asked is not None:
                raise LineLost("the gateway does not answer")
            # It may have forgotten the robot, or the line may be dead: saying Ready shows it.
            self._is_ready = False
        elif now >= speak_by:
            await line.heartbeat()

    def _look_ahead(self) -> None:
        step = self._next_step()
        if step is not None and step != self._step:
            self._due = max(time.monotonic() + step.seconds / self._habits.speed, self._not_before)
            self._tell(_intention(step.report), matters=False)
        self._step = step

    def _next_step(self) -> _Step | None:
        """What to do next; None if there is only to listen."""
        if self._asked is not None:
            return _Step(0, self._asked) if self._say_again else None
        recall = next(iter(self._returns.values()), None)
        if recall is not None:
            returned = Returned(order_id=recall.order_id)
            return _Step(_A_WAY + _AN_ITEM * len(recall.carried), FromRobot(returned=returned))
        trip = self._trip
        if trip is not None and trip.may_deliver:
            return _Step(_A_WAY, FromRobot(finished=Finished(order_id=trip.order_id)))
        next_item = trip.next_item() if trip is not None else None
        if trip is not None and next_item is not None:
            stop, item = next_item
            picked = self._find(trip, item)
            report = ItemReport(
                order_id=trip.order_id,
                stop=stop.number,
                sku=item.sku,
                picked=picked,
                missing=item.quantity - picked,
            )
            way = 0.0 if stop.number == trip.at else _A_WAY
            return _Step(way + _AN_ITEM, FromRobot(item=report))
        return None if self._is_ready else _Step(0, FromRobot(ready=Ready()))

    def _find(self, trip: Trip, item: Item) -> int:
        return found(self._habits.seed, trip.order_id, item.sku, item.quantity, self._habits.missing)

    async def _report(self, line: Line, report: FromRobot) -> None:
        is_item = report.HasField("item")
        if is_item and self._items_until_silence is not None:
            if self._items_until_silence == 0:
                raise _Vanished
            self._items_until_silence -= 1
        self._asked, self._say_again = report, False
        cuts = is_item and self._dice.random() < self._habits.drop
        if not cuts or self._dice.random() < 0.5:
            await line.report(report)
        if cuts:
            raise _Cut

    def _hear(self, line: Line, heard: ToRobot) -> None:
        trip = self._trip
        match heard.WhichOneof("message"):
            case "list":
                self._take(heard.list)
            case "item_accepted" | "accepted":
                answered = line.answered(heard)
                # The answer to what a recall has made void says nothing any more.
                if answered is not None and answered is self._asked:
                    self._asked, self._say_again = None, False
                    self._note(answered)
            case "deliver" if trip is not None and trip.order_id == heard.deliver.order_id:
                trip.deliver()
                self._void_question("")
                self._tell("is told to deliver")
            case "wait" if trip is not None and trip.order_id == heard.wait.order_id:
                trip.wait()
                self._void_question("")
                self._tell("waits for word on what is missing")
            case "recall":
                self._obey(heard.recall)
            case "refused":
                self._give_way(line, heard.refused)
            case "goodbye":
                raise LineLost(f"sent away: {heard.goodbye.reason}")

    def _take(self, shopping: ShoppingList) -> None:
        """A list is given, or the one that the robot has is like this now."""
        self._is_ready = True
        trip = self._trip
        self._void_question("" if trip is None or trip.order_id == shopping.order_id else trip.order_id)
        if trip is not None and trip.order_id == shopping.order_id:
            trip.change(shopping)
            if self._asked is not None and self._asked.HasField("item") and trip.is_reported(self._asked.item):
                self._asked, self._say_again = None, False
            self._tell("hears how its list is now", matters=trip.next_item() is not None)
            return
        self._trip = trip = Trip(shopping)
        left = sum(not item.reported for stop in shopping.stops for item in stop.items)
        vanishes = self._dice.random() < self._habits.vanish
        self._items_until_silence = self._dice.randrange(left) if vanishes and left else None
        self._tell(f"takes a list of {trip.total} pieces at {len(shopping.stops)} stops, {left} items to pick")

    def _note(self, answered: FromRobot) -> None:
        """What this says is on record."""
        kind = answered.WhichOneof("message")
        if kind == "ready":
            self._is_ready = True
            self._tell("is ready", matters=False)
            return
        self._refusals = 0
        if kind == "item" and self._trip is not None:
            item = answered.item
            self._trip.record(item)
            what = f"misses {item.missing} of" if item.missing else "has picked"
            self._tell(f"{what} {item.picked + item.missing} {item.sku}", matters=item.missing > 0)
        elif kind == "finished":
            self._tell("has delivered")
            self._trip = None
            self._is_ready = False
        elif kind == "returned":
            self._tell("has put everything back")
            self._returns.pop(answered.returned.order_id, None)
            self._is_ready = False

    def _obey(self, recall: Recall) -> None:
        self._tell(f"is recalled from {recall.order_id}: {recall.reason}")
        self._void_question(recall.order_id)
        if self._trip is not None and self._trip.order_id == recall.order_id:
            self._trip = None
        if recall.carried:
            self._returns[recall.order_id] = recall
        else:
            self._is_ready = False

    def _give_way(self, line: Line, refused: Refused) -> None:
        """Try again after a while what may be tried again; else drop the list that it is about."""
        answered = line.refused(refused)
        asked = answered if answered is not None and answered is self._asked else None
        self._refusals += 1
        self._not_before = time.monotonic() + self._pause(self._refusals)
        self._tell(f"is refused, {refused.code}: {refused.message}")
        if refused.retry:
            self._say_again = asked is not None
            return
        if asked is not None:
            self._asked, self._say_again = None, False
            if asked.HasField("returned"):
                self._returns.pop(asked.returned.order_id, None)
        order_id = refused.order_id or (_order_of(answered) if answered is not None else "")
        if self._trip is not None and self._trip.order_id == order_id:
            self._void_question(order_id)
            self._trip = None
        self._is_ready = False

    def _void_question(self, order_id: str) -> None:
        """Wait no more for the answer to a Ready, or to what was reported of shopping this order."""
        asked = self._asked
        if asked is None or asked.HasField("returned"):
            return
        if asked.HasField("ready") or _order_of(asked) == order_id:
            self._asked, self._say_again = None, False

    async def _leave(self, line: Line) -> None:
        """End the stream as a robot does that is switched off, with a Break if it has nothing to do."""
        with suppress(LineLost):
            if self._trip is None and not self._returns:
                bye = FromRobot()
                getattr(bye, "break").SetInParent()
                await line.report(bye)
                until = time.monotonic() + _BREAK_WITHIN
                while (heard := await line.listen(until)) is not None:
                    if line.answered(heard) is bye:
                        break
            await line.hang_up()

    def _pause(self, failures: int) -> float:
        longest: float = min(_FIRST_PAUSE * 2 ** min(failures, 10), _LONGEST_PAUSE)
        return self._dice.uniform(0.5, 1) * longest

    @property
    def _state(self) -> State:
        trip = self._trip
        if self._away is not None:
            return self._away
        if self._returns:
            return State.RETURNING
        if trip is None:
            return State.IDLE
        if trip.may_deliver:
            return State.DELIVERING
        return State.WAITING if trip.next_item() is None else State.SHOPPING

    def _tell(self, event: str, *, matters: bool = True) -> None:
        trip = self._trip
        next_item = trip.next_item() if trip is not None else None
        self._on_event(
            Sight(
                number=self._number,
                robot=self._name,
                state=self._state,
                order_id=trip.order_id if trip is not None else next(iter(self._returns), None),
                store=next_item[0].store if next_item is not None else "",
                picked=trip.picked if trip is not None else 0,
                total=trip.total if trip is not None else 0,
                event=event,
                matters=matters,
            )
        )


def _order_of(said: FromRobot) -> str:
    match said.WhichOneof("message"):
        case "item":
            return said.item.order_id
        case "finished":
            return said.finished.order_id
        case "returned":
            return said.returned.order_id
    return ""


def _intention(report: FromRobot) -> str:
    match report.WhichOneof("message"):
        case "item":
            return f"looks for {report.item.sku}"
        case "finished":
            return "walks to the desk"
        case "returned":
            return "walks back to the shelves"
    return "asks for a list"

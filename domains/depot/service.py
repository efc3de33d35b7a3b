"""What Depot can be asked to do: for an order, for a robot, and by staff."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from domains.depot import list_rows, robot_rows
from domains.depot.messages import (
    EVENTS,
    AmendList,
    AssignList,
    Assignment,
    CancelledShopping,
    CancelShopping,
    Duty,
    Glance,
    ItemMissing,
    ItemPicked,
    ItemsReturned,
    ListGlance,
    ListStatus,
    ListView,
    LostList,
    Progress,
    Recalled,
    RobotAtWork,
    RobotHeld,
    RobotOffline,
    RobotOnline,
    RobotRegistered,
    RobotResumed,
    RobotRetired,
    RobotView,
    ScheduleShopping,
    ShopList,
    ShoppingListAmended,
    ShoppingListAssigned,
    ShoppingListCancelled,
    ShoppingListCompleted,
    ShoppingListReleased,
    ShoppingListScheduled,
    ShoppingResult,
    Untaken,
)
from domains.depot.model import ListItem, ShoppingList
from events.event import Event
from events.store import Causation, EventStore, caused_by
from kernel.database import Database
from kernel.errors import (
    ConcurrencyConflict,
    Conflict,
    Forbidden,
    InvalidInput,
    ListLost,
    NotFound,
    OrderClosed,
)

STORE = EventStore("depot", EVENTS)

_SILENT_AFTER: Final = 30.0


class Depot:
    """The Depot domain on its database. Every command may be repeated: the effect is that of the first.

    A robot that was not heard of for `silent_after` seconds, by the database's clock, loses its list.
    """

    def __init__(self, database: Database, *, silent_after: float = _SILENT_AFTER) -> None:
        self.silent_after = silent_after
        self._database = database

    # For an order

    async def schedule(self, command: ScheduleShopping) -> None:
        """Make the shopping list of an order. Raises `OrderClosed` if it was cancelled before."""
        async with self._database.transaction() as connection:
            if not await list_rows.claim(connection, command.order_id, "scheduled"):
                _refuse_if_closed(await list_rows.lock(connection, command.order_id))
                return
            stops = await list_rows.plan(connection, command.lines)
            await list_rows.add_stops(connection, command.order_id, stops)
            event = ShoppingListScheduled(order_id=command.order_id, stops=stops)
            await STORE.append(connection, _list_stream(command.order_id), 0, [event])

    async def assign(self, command: AssignList) -> Assignment | None:
        """Let the next robot that is ready have the list. None: whoever hands it out is to tell the saga's step of
        this round. Raises `OrderClosed`, or `NotFound` if there is no list."""
        async with self._database.transaction() as connection:
            shopping = await list_rows.lock(connection, command.order_id)
            _refuse_if_closed(shopping)
            if shopping.status not in ("scheduled", "released"):
                assert shopping.robot is not None
                return Assignment(robot=shopping.robot)
            await list_rows.wait_for_assignment(connection, command.order_id, command.round)
            if shopping.status == "scheduled":
                await list_rows.save(connection, shopping.model_copy(update={"status": "released"}))
                await list_rows.set_released_at(connection, command.order_id)
                await _record(connection, ShoppingListReleased(order_id=command.order_id))
            return None

    async def shop(self, command: ShopList) -> ShoppingResult | None:
        """How a robot left the list. None: it is at it, and whoever hears the rest from it is to tell the saga's
        step of this round. A silent robot loses the list here.

        Raises `OrderClosed`, `NotFound` if there is no list, or `Conflict` if no robot was waited for yet.
        """
        async with self._database.transaction() as connection:
            shopping = await list_rows.lock(connection, command.order_id)
            _refuse_if_closed(shopping)
            if shopping.robot is None:
                raise Conflict(f"no robot has the shopping list of order {command.order_id} yet")
            if shopping.status == "released":
                return shopping.silent()
            if result := shopping.result():
                return result
            if status := await robot_rows.lock_if_silent(connection, shopping.robot, self.silent_after):
                await _record(
                    connection,
                    *await _lose(connection, shopping),
                    *await _leave(connection, shopping.robot, status),
                )
                return shopping.silent()
            await list_rows.wait_for_shopping(connection, command.order_id, command.round)
            return None

    async def amend(self, command: AmendList) -> None:
        """Give the word on missing items: pick these, or nothing more. Raises `OrderClosed`, or `NotFound`."""
        async with self._database.transaction() as connection:
            shopping = await list_rows.lock(connection, command.order_id)
            _refuse_if_closed(shopping)
            if command.round <= shopping.amended:
                return
            # Their own stops: an item that is reported stays as it is.
            stops = await list_rows.plan(connection, command.lines)
            await list_rows.add_stops(
                connection, command.order_id, stops, behind=shopping.last_stop, round=command.round
            )
            status = "assigned" if shopping.holder else shopping.status
            await list_rows.save(
                connection, shopping.model_copy(update={"amended": command.round, "status": status})
            )
            await _record(connection, ShoppingListAmended(order_id=command.order_id, stops=stops))

    async def cancel(self, command: CancelShopping) -> CancelledShopping:
        """Drop the list, and say what a robot still carries of it. If there is none yet, a schedule that comes
        later is refused."""
        async with self._database.transaction() as connection:
            event = ShoppingListCancelled(order_id=command.order_id, reason=command.reason)
            if await list_rows.claim(connection, command.order_id, "cancelled", command.reason):
                await _record(connection, event)
                return CancelledShopping()
            shopping = await list_rows.lock(connection, command.order_id)
            if shopping.status != "cancelled":
                change = {"status": "cancelled", "reason": command.reason, "robot": shopping.holder}
                shopping = shopping.model_copy(update=change)
                # A robot has one duty: what there is nothing to carry back of is none.
                if not shopping.carried:
                    await list_rows.set_returned(connection, command.order_id)
                await list_rows.save(connection, shopping)
                await _record(connection, event)
            return CancelledShopping(robot=shopping.robot, carried=shopping.carried)

    # For a robot

    async def register(self, robot: str) -> None:
        """Make a robot known. Raises `InvalidInput` if it may not be called so."""
        async with self._database.transaction() as connection:
            if await robot_rows.register(connection, robot):
                await _record(connection, RobotRegistered(robot=robot), cause=_by(robot))

    async def online(self, robot: str, session: UUID | None = None) -> Duty | None:
        """A robot is there, on this stream: register it if it was never seen, and say what it has to do.

        Raises `InvalidInput` if it may not be called so, `Forbidden` if it is retired.
        """
        async with self._database.transaction() as connection:
            events: list[Event] = []
            if await robot_rows.register(connection, robot):
                events.append(RobotRegistered(robot=robot))
            if await robot_rows.hear(connection, robot) == "offline":
                events += await _come(connection, robot)
            if session is not None:
                await robot_rows.set_session(connection, robot, session)
            await _record(connection, *events, cause=_by(robot))
            return await _duty(connection, robot)

    async def ready(self, robot: str) -> None:
        """A robot can be given a list, unless staff let it rest. Raises `NotFound`, `Forbidden` if it is
        retired."""
        async with self._database.transaction() as connection:
            if await robot_rows.hear(connection, robot) != "idle":
                await _record(connection, *await _come(connection, robot), cause=_by(robot))

    async def on_break(self, robot: str) -> None:
        """A robot is to be given no list until it is ready. It keeps the one that it holds. Raises `NotFound`,
        `Forbidden` if it is retired."""
        async with self._database.transaction() as connection:
            status = await robot_rows.hear(connection, robot)
            await robot_rows.set_status(connection, robot, "on_break")
            if status == "idle":
                await _record(connection, RobotOffline(robot=robot), cause=_by(robot))

    async def offline(self, robot: str, session: UUID) -> None:
        """A robot hung up on this stream. If it has another, nothing happens; nor if it has something to do: then
        its silence will tell."""
        async with self._database.transaction() as connection:
            status = await robot_rows.lock_if_on(connection, robot, session)
            if status is not None and await list_rows.duty_of(connection, robot) is None:
                await _record(connection, *await _leave(connection, robot, status), cause=_by(robot))

    async def heard_of(self, ages: Mapping[str, float]) -> None:
        """Each of these robots was heard of so many seconds ago."""
        if ages:
            async with self._database.transaction() as connection:
                await robot_rows.heard_of(connection, ages)

    async def take_list(self, robot: str) -> Duty | None:
        """Give the list that has waited longest to a robot that is ready; if it has something to do already, that
        again. None if there is no list, or the robot is not ready. Raises `NotFound`, `Forbidden` if it is
        retired."""
        async with self._database.transaction() as connection:
            view = await robot_rows.view(connection, robot)
            if view.status == "retired":
                raise Forbidden(f"robot {robot} is retired")
            if view.order_id is not None:
                return await _duty(connection, robot)
            if view.status != "idle":
                return None
            shopping = await list_rows.lock_oldest_released(connection, robot)
            if shopping is None:
                return None
            # Meanwhile the same robot may have taken another, or left.
            status = await robot_rows.hear(connection, robot)
            duty = await _duty(connection, robot)
            if status != "idle" or duty is not None:
                return duty
            shopping = shopping.as_held(by=robot)
            await list_rows.save(connection, shopping)
            event = ShoppingListAssigned(order_id=shopping.order_id, robot=robot)
            await _record(connection, event, cause=_by(robot, shopping.order_id))
            return shopping.duty()

    async def duty(self, robot: str) -> Duty | None:
        """What a robot has to do."""
        async with self._database.transaction() as connection:
            return await _duty(connection, robot)

    async def report_item(
        self, robot: str, order_id: UUID, stop: int, sku: str, *, picked: int, missing: int
    ) -> Duty:
        """Write down what became of an item: so many pieces were picked, so many not found. Returns what the robot
        has to do next.

        Raises `ListLost` if it does not hold the list, `NotFound` if the list has no such item, `InvalidInput` if
        the pieces are not the item's quantity together, `Conflict` if something else was reported of it before.
        """
        async with self._database.transaction() as connection:
            shopping = await list_rows.lock(connection, order_id)
            _refuse_if_lost(shopping, robot)
            item = shopping.item(stop, sku)
            if item is None:
                raise NotFound(f"the shopping list of order {order_id} has no {sku} at stop {stop}")
            if min(picked, missing) < 0 or picked + missing != item.quantity:
                raise InvalidInput(f"picked and missing have to be {item.quantity} together", "picked")
            if item.is_reported:
                if (item.picked, item.missing) != (picked, missing):
                    raise Conflict(
                        f"{item.picked} picked of {sku} and {item.missing} missing are on record already"
                    )
                return shopping.duty()
            before = shopping.status
            shopping = shopping.reported(stop, sku, picked, missing)
            await list_rows.report(connection, order_id, stop, sku, picked=picked, missing=missing)
            if shopping.status != before:
                await list_rows.save(connection, shopping)
            events = _report(order_id, robot, item, picked, missing)
            await _record(connection, *events, cause=_by(robot, order_id))
            return shopping.duty()

    async def finish(self, robot: str, order_id: UUID) -> Duty:
        """All that was picked is at the desk. Raises `ListLost` if the robot does not hold the list, `Conflict` if
        there is more to report, or to be said about what is missing."""
        async with self._database.transaction() as connection:
            shopping = await list_rows.lock(connection, order_id)
            _refuse_if_lost(shopping, robot)
            if shopping.status == "completed":
                return shopping.duty()
            if not shopping.is_reported:
                raise Conflict("there are items that were not reported")
            if shopping.waits_for_word:
                raise Conflict("there is no word yet on what is missing")
            shopping = shopping.model_copy(update={"status": "completed"})
            await list_rows.save(connection, shopping)
            event = ShoppingListCompleted(order_id=order_id, robot=robot)
            await _record(connection, event, cause=_by(robot, order_id))
            return shopping.duty()

    async def returned(self, robot: str, order_id: UUID) -> None:
        """A robot has put back what it carried of a cancelled list. Of a list that it does not hold any more for
        another reason, nothing is written down. Raises `Conflict` if it still holds it, `NotFound`."""
        async with self._database.transaction() as connection:
            shopping = await list_rows.lock(connection, order_id)
            if shopping.holder == robot:
                raise Conflict(f"the shopping list of order {order_id} is not cancelled")
            if shopping.next == "give_back" and shopping.robot == robot:
                await _give_back(connection, shopping, cause=_by(robot, order_id))

    async def recalled(self, robot: str, order_id: UUID) -> Recalled:
        """Why a robot does not hold a list any more, and what it has to put back. Raises `NotFound`."""
        async with self._database.transaction() as connection:
            return (await list_rows.find(connection, order_id)).recalled(robot)

    # For the gateways

    async def waiting(self, most: int) -> int:
        """How many lists wait for a robot, counted up to `most`."""
        async with self._database.transaction() as connection:
            return await list_rows.waiting(connection, most)

    async def glances(self, robots: Iterable[str]) -> list[Glance]:
        """How these robots stand."""
        async with self._database.transaction() as connection:
            return await robot_rows.glances(connection, robots)

    async def progress(self, robots: Iterable[str]) -> list[Progress]:
        """How far these robots are, of those whose list a step of the saga waits for."""
        async with self._database.transaction() as connection:
            return await list_rows.progress(connection, robots)

    async def sweep(self) -> list[LostList]:
        """Let every robot that was silent for too long count as gone; the lists that were taken from them."""
        async with self._database.transaction() as connection:
            silent = await robot_rows.silent(connection, self.silent_after)
        swept = [await self._sweep(robot) for robot in silent]
        return [lost for lost in swept if lost is not None]

    # For staff

    async def recall(self, robot: str, order_id: UUID, by: str) -> RobotView:
        """A member of staff (`by`) takes the list of this order from a robot. Another goes on where it stopped;
        the same one only if there is no other, or none takes it for a while. A robot that does not hold it keeps
        what it has. Raises `NotFound`."""
        async with self._database.transaction() as connection:
            view = await robot_rows.view(connection, robot)
            shopping = await list_rows.lock(connection, order_id)
            if shopping.holder != robot:
                return view
            await list_rows.set_recalled_at(connection, order_id)
            await _record(connection, *await _lose(connection, shopping, by), cause=_by_staff(by, order_id))
            return await robot_rows.view(connection, robot)

    async def hold(self, robot: str, by: str) -> RobotView:
        """A member of staff (`by`) lets a robot rest: it is given no list, whatever it says itself, until it is
        resumed. It keeps the one that it holds. Raises `NotFound`, `Conflict` if it is retired."""
        async with self._database.transaction() as connection:
            status = await robot_rows.lock(connection, robot)
            if status == "retired":
                raise Conflict(f"robot {robot} is retired")
            if await robot_rows.hold(connection, robot, by):
                away: list[Event] = [RobotOffline(robot=robot)] if status == "idle" else []
                await _record(connection, RobotHeld(robot=robot, by=by), *away, cause=_by_staff(by))
            return await robot_rows.view(connection, robot)

    async def resume(self, robot: str, by: str) -> RobotView:
        """A member of staff (`by`) lets a robot work again, if it wants to. Raises `NotFound`, `Conflict` if it is
        retired."""
        async with self._database.transaction() as connection:
            if await robot_rows.lock(connection, robot) == "retired":
                raise Conflict(f"robot {robot} is retired")
            status = await robot_rows.resume(connection, robot)
            if status is not None:
                back: list[Event] = [RobotOnline(robot=robot)] if status == "idle" else []
                await _record(connection, RobotResumed(robot=robot, by=by), *back, cause=_by_staff(by))
            return await robot_rows.view(connection, robot)

    async def retire(self, robot: str, by: str) -> RobotView:
        """A member of staff (`by`) lets a robot work no more; the list that it holds goes to the next one. What it
        carries of a cancelled one stays to be put back (`confirm_return`). Raises `NotFound`."""
        async with self._database.transaction() as connection:
            shopping = await _lock_list_of(connection, robot)
            status = await robot_rows.lock(connection, robot)
            if shopping is None and await list_rows.held_by(connection, robot) is not None:
                raise ConcurrencyConflict(f"robot {robot} took a list at this moment: try again")
            events: list[Event] = []
            if shopping is not None:
                events += await _lose(connection, shopping, by)
            if status != "retired":
                events += await _leave(connection, robot, status)
                await robot_rows.set_status(connection, robot, "retired")
                events.append(RobotRetired(robot=robot, by=by))
            order_id = None if shopping is None else shopping.order_id
            await _record(connection, *events, cause=_by_staff(by, order_id))
            return await robot_rows.view(connection, robot)

    async def confirm_return(self, order_id: UUID, by: str) -> None:
        """A member of staff (`by`) put back what a robot carried of a cancelled list. Raises `Conflict` if the
        list is not cancelled, `NotFound`."""
        async with self._database.transaction() as connection:
            shopping = await list_rows.lock(connection, order_id)
            if shopping.status != "cancelled":
                raise Conflict(f"the shopping list of order {order_id} is not cancelled")
            if shopping.next == "give_back":
                await _give_back(connection, shopping, _by_staff(by, order_id), by)

    async def shopping_list(self, order_id: UUID) -> ListView:
        """The shopping list of an order. Raises `NotFound`."""
        async with self._database.transaction() as connection:
            return (await list_rows.find(connection, order_id)).view()

    async def lists(
        self, statuses: Sequence[ListStatus] | None = None, *, before: UUID | None = None, limit: int = 50
    ) -> list[ListView]:
        """Up to `limit` shopping lists, the newest order first; only in these statuses, and of orders older than
        `before`, if given."""
        async with self._database.transaction() as connection:
            return [shopping.view() for shopping in await list_rows.newest(connection, statuses, before, limit)]

    async def list_glances(self, order_ids: Iterable[UUID]) -> list[ListGlance]:
        """How far the lists of these orders are, of those that have one."""
        async with self._database.transaction() as connection:
            return await list_rows.glances(connection, order_ids)

    async def untaken(self, seconds: float) -> Untaken | None:
        """The lists that no robot has taken for longer than so many seconds; None if there are none."""
        async with self._database.transaction() as connection:
            return await list_rows.untaken(connection, seconds)

    async def how_many(self) -> dict[ListStatus, int]:
        """How many shopping lists there are in each state, of those that are not shopped yet."""
        async with self._database.transaction() as connection:
            return await list_rows.how_many(connection)

    async def robots(self) -> list[RobotView]:
        """All robots, by name."""
        async with self._database.transaction() as connection:
            return await robot_rows.views(connection)

    async def robots_at_work(self) -> list[RobotAtWork]:
        """All robots, by name, and how far each is with its list."""
        async with self._database.transaction() as connection:
            lists = await list_rows.duties(connection)
            return [
                lists[view.robot].work_of(view, quiet_seconds)
                if view.robot in lists
                else RobotAtWork(**dict(view), quiet_seconds=quiet_seconds)
                for view, quiet_seconds in await robot_rows.quiet(connection)
            ]

    async def robot(self, robot: str) -> RobotView:
        """One robot. Raises `NotFound`."""
        async with self._database.transaction() as connection:
            return await robot_rows.view(connection, robot)

    async def _sweep(self, robot: str) -> LostList | None:
        async with self._database.transaction() as connection:
            shopping = await _lock_list_of(connection, robot)
            status = await robot_rows.lock_if_silent(connection, robot, self.silent_after)
            if status is None or status == "retired":
                return None
            lost = [] if shopping is None else await _lose(connection, shopping)
            order_id = None if shopping is None else shopping.order_id
            left = await _leave(connection, robot, status)
            cause = Causation(correlation_id=order_id, causation_id=f"silence/{robot}")
            await _record(connection, *lost, *left, cause=cause)
            if shopping is None:
                return None
            return shopping.lost()


async def _duty(connection: AsyncConnection, robot: str) -> Duty | None:
    shopping = await list_rows.duty_of(connection, robot)
    return None if shopping is None else shopping.duty()


async def _lock_list_of(connection: AsyncConnection, robot: str) -> ShoppingList | None:
    """The list that a robot holds, locked."""
    order_id = await list_rows.held_by(connection, robot)
    if order_id is None:
        return None
    shopping = await list_rows.lock(connection, order_id)
    return shopping if shopping.holder == robot else None


async def _lose(connection: AsyncConnection, shopping: ShoppingList, by: str | None = None) -> list[Event]:
    """Take a list from its robot; it waits for another, at its old place."""
    await list_rows.save(connection, shopping.model_copy(update={"status": "released"}))
    return [ShoppingListReleased(order_id=shopping.order_id, robot=shopping.robot, by=by)]


async def _come(connection: AsyncConnection, robot: str) -> list[Event]:
    """Let a robot count as there, unless staff let it rest."""
    status = await robot_rows.set_status(connection, robot, "idle")
    return [RobotOnline(robot=robot)] if status == "idle" else []


async def _leave(connection: AsyncConnection, robot: str, status: str) -> list[Event]:
    """Let a robot of this status count as gone."""
    if status in ("offline", "retired"):
        return []
    await robot_rows.set_status(connection, robot, "offline")
    return [RobotOffline(robot=robot)] if status == "idle" else []


async def _give_back(
    connection: AsyncConnection, shopping: ShoppingList, cause: Causation, by: str | None = None
) -> None:
    assert shopping.robot is not None
    await list_rows.set_returned(connection, shopping.order_id)
    pieces = shopping.carried
    event = ItemsReturned(order_id=shopping.order_id, robot=shopping.robot, pieces=pieces, by=by)
    await _record(connection, event, cause=cause)


def _report(order_id: UUID, robot: str, item: ListItem, picked: int, missing: int) -> list[Event]:
    events: list[Event] = []
    if picked:
        events.append(ItemPicked(order_id=order_id, robot=robot, store=item.store, sku=item.sku, quantity=picked))
    if missing:
        events.append(
            ItemMissing(
                order_id=order_id, robot=robot, store=item.store, sku=item.sku, name=item.name, quantity=missing
            )
        )
    return events


def _refuse_if_closed(shopping: ShoppingList) -> None:
    if shopping.status == "cancelled":
        raise OrderClosed(f"the shopping list of order {shopping.order_id} has been cancelled")


def _refuse_if_lost(shopping: ShoppingList, robot: str) -> None:
    """What was reported may be reported again, also when the list is done with."""
    if shopping.robot != robot or shopping.status not in ("assigned", "collected", "completed"):
        raise ListLost(f"robot {robot} does not hold the shopping list of order {shopping.order_id}")


async def _record(connection: AsyncConnection, *events: Event, cause: Causation | None = None) -> None:
    """Record events; what happens outside of a saga's steps has a cause of its own."""
    if events:
        with caused_by(cause) if cause else nullcontext():
            await STORE.record(connection, [(_stream(event), event) for event in events])


def _by_staff(by: str, order_id: UUID | None = None) -> Causation:
    """A member of staff did it."""
    return Causation(correlation_id=order_id, causation_id=f"staff/{by}")


def _by(robot: str, order_id: UUID | None = None) -> Causation:
    """A robot did it."""
    return Causation(correlation_id=order_id, causation_id=f"robot/{robot}")


def _stream(event: Event) -> str:
    if isinstance(event, RobotRegistered | RobotOnline | RobotOffline | RobotHeld | RobotResumed | RobotRetired):
        return f"robot-{event.robot}"
    order_id: UUID = event.order_id  # type: ignore[attr-defined]
    return _list_stream(order_id)


def _list_stream(order_id: UUID) -> str:
    return f"list-{order_id}"

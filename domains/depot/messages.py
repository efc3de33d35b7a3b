"""What is said to Depot, what it answers, and the events it publishes."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import AwareDatetime, StringConstraints

from events.event import Event
from kernel.messages import Message, Pieces, PricedLine

RobotName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,60}$")]
"""It is part of the subject of a robot's events."""


ListStatus = Literal["scheduled", "released", "assigned", "collected", "completed", "cancelled"]
"""`scheduled`: made; `released`: waits for a robot; `assigned`: a robot has it; `collected`: the robot has
reported every item, some are missing, and it waits for word what to do about them; `completed`: all is at the
desk."""
RobotStatus = Literal["offline", "idle", "busy", "on_break", "retired"]
Doing = Literal["pick", "wait", "deliver", "give_back"]
"""What a robot does with its list: pick what is not reported, wait for word on what is missing, deliver, or put
back what it carries of a cancelled one."""


class Item(Message):
    """So many pieces of a product to pick."""

    sku: str
    name: str
    quantity: int


class PickedItem(Item):
    """An item as it is now. `picked` and `missing` are None until the robot has reported it; then they are
    `quantity` together."""

    picked: int | None = None
    missing: int | None = None


class Stop(Message):
    """A store to stop at, and what to pick there."""

    store: str
    items: list[Item]


# Commands


class ScheduleShopping(Message):
    """Make a shopping list with a stop for each store."""

    order_id: UUID
    lines: list[PricedLine]


class AssignList(Message):
    """Let the next robot that is ready have the list. `round` counts, from 1, how often a robot was waited for."""

    order_id: UUID
    round: int


class ShopList(Message):
    """Wait until the robot that has the list has reported every item. `round` counts from 1, as the saga does."""

    order_id: UUID
    round: int


class AmendList(Message):
    """The word on missing items: pick these instead, or nothing more. `round` counts the order's adjustments."""

    order_id: UUID
    round: int
    lines: list[PricedLine]


class CancelShopping(Message):
    """Drop the list. `reason` is the code of what ended the order."""

    order_id: UUID
    reason: str


# Replies


class Assignment(Message):
    """The robot that has the list."""

    robot: str


class ShoppingResult(Message):
    """How a robot left the list. `silent` names it if it was not heard of for too long: the list waits for
    another. Else every item was reported: `picked` and `missing` are all pieces so far by product; `completed` if
    they are at the desk, otherwise some are missing and the robot waits for word (`AmendList`)."""

    silent: str | None = None
    picked: list[Pieces] = []
    missing: list[Pieces] = []
    completed: bool = False


class CancelledShopping(Message):
    """What a robot still carries of a cancelled list; it takes that back to the shelves."""

    robot: str | None = None
    carried: list[Pieces] = []


class ListStop(Message):
    """A store to stop at, and how far the items there are."""

    store: str
    items: list[PickedItem]


class ListView(Message):
    """A shopping list as it is now."""

    order_id: UUID
    status: ListStatus
    robot: str | None
    stops: list[ListStop]
    released_at: AwareDatetime | None = None
    changed_at: AwareDatetime


class ListGlance(Message):
    """How far a shopping list is, as a board shows it. `pieces` are all that it asked for: so many `picked`, so
    many `missing`. `since` is when it was last released or assigned (or made), `version` that of its stream."""

    order_id: UUID
    status: ListStatus
    robot: str | None
    stores: list[str]
    pieces: int
    picked: int
    missing: int
    since: AwareDatetime
    version: int


class Untaken(Message):
    """Shopping lists that no robot takes: how many, the order of the one that waits longest, and since when."""

    lists: int
    order_id: UUID
    since: AwareDatetime


class RobotView(Message):
    """A robot as it is now. `order_id` is that of the list it holds, or of the cancelled one that it takes
    back. Staff (`held_by`) give it no list since `held_since`, if that is set."""

    robot: str
    status: RobotStatus
    order_id: UUID | None = None
    registered_at: AwareDatetime
    last_heard_at: AwareDatetime | None = None
    held_by: str | None = None
    held_since: AwareDatetime | None = None


class RobotAtWork(RobotView):
    """A robot, and how far it is. `quiet_seconds` is how long nothing was heard of it, null if never.

    Of the `pieces` on its list so many are `picked`, which it `carries`, and so many `missing`. `at` is the store
    of the last item that was reported, `heads_for` that of the next.
    """

    quiet_seconds: float | None = None
    doing: Doing | None = None
    at: str | None = None
    heads_for: str | None = None
    picked: int = 0
    missing: int = 0
    pieces: int = 0
    carries: list[Item] = []


# For the robots' gateways


class Duty(Message):
    """What a robot has to do next with the list that it holds: pick what is not reported, wait for word on what is
    missing, deliver; or give back what it `carried` when the list was cancelled, for that `reason`. None when it
    is done with it.

    `assign_round` and `shop_round` are the saga's steps that wait, or did; `result` is what the latter is to be
    told. `amended` counts the words on missing items. `trace_context` is that of the order.
    """

    held: ListView
    next: Doing | None
    amended: int = 0
    carried: list[Pieces] = []
    reason: str | None = None
    assign_round: int | None = None
    shop_round: int | None = None
    result: ShoppingResult | None = None
    trace_context: dict[str, str] | None = None


class Glance(Message):
    """How a robot stands, as much as tells whether there is news for it. `session` is its newest stream."""

    robot: str
    status: RobotStatus
    session: UUID | None = None
    order_id: UUID | None = None
    list_status: ListStatus | None = None
    amended: int | None = None


class Progress(Message):
    """How far a robot is with a list that a step of the saga waits for: `picked` of `total` pieces."""

    order_id: UUID
    robot: str
    shop_round: int
    picked: int
    total: int


class LostList(Message):
    """A list that was taken from a robot, and what the step of the saga is to be told, if one waits."""

    order_id: UUID
    shop_round: int | None
    result: ShoppingResult


class Recalled(Message):
    """Why a robot does not hold a list any more, and what it has to take back to the shelves. `lost` if the list
    waits for another."""

    order_id: UUID
    reason: str
    carried: list[Pieces] = []
    lost: LostList | None = None


# Events


class ShoppingListScheduled(Event):
    """A list waits to be released to the robots."""

    order_id: UUID
    stops: list[Stop]


class ShoppingListCancelled(Event):
    """The list is void. `reason` is the code of what ended the order."""

    order_id: UUID
    reason: str


class ShoppingListReleased(Event):
    """The list waits for a robot: the order was approved, or it was taken from the robot that had it (`robot`), by
    staff (`by`) or because the robot was silent for too long."""

    order_id: UUID
    robot: RobotName | None = None
    by: str | None = None


class ShoppingListAmended(Event):
    """There is word on missing items: these are to be picked instead, or nothing more."""

    order_id: UUID
    stops: list[Stop]


class ItemsReturned(Event):
    """What was carried of a cancelled list is back on the shelves. `by` names who says so, if it is not the
    robot."""

    order_id: UUID
    robot: RobotName
    pieces: list[Pieces]
    by: str | None = None


class ShoppingListAssigned(Event):
    """A robot took the list."""

    order_id: UUID
    robot: RobotName


class ItemPicked(Event):
    """A robot took pieces of a product from the shelf."""

    order_id: UUID
    robot: RobotName
    store: str
    sku: str
    quantity: int


class ItemMissing(Event):
    """A robot did not find so many pieces of a product."""

    order_id: UUID
    robot: RobotName
    store: str
    sku: str
    name: str
    quantity: int


class ShoppingListCompleted(Event):
    """The robot has brought what it found."""

    order_id: UUID
    robot: RobotName


class RobotRegistered(Event):
    """A robot was seen for the first time."""

    robot: RobotName


class RobotOnline(Event):
    """A robot is there and can be given a list."""

    robot: RobotName


class RobotOffline(Event):
    """A robot left, takes a break, or has not been heard of."""

    robot: RobotName


class RobotHeld(Event):
    """Staff let a robot rest: it is given no list, whatever it says itself. It keeps the one that it holds."""

    robot: RobotName
    by: str


class RobotResumed(Event):
    """Staff let a robot work again."""

    robot: RobotName
    by: str


class RobotRetired(Event):
    """A robot works no more."""

    robot: RobotName
    by: str


EVENTS = (
    ShoppingListScheduled,
    ShoppingListReleased,
    ShoppingListAssigned,
    ItemPicked,
    ItemMissing,
    ShoppingListAmended,
    ShoppingListCompleted,
    ShoppingListCancelled,
    ItemsReturned,
    RobotRegistered,
    RobotOnline,
    RobotOffline,
    RobotHeld,
    RobotResumed,
    RobotRetired,
)
"""Every event that Depot writes."""

STREAMS = {
    "list-{order_id}": (
        ShoppingListScheduled,
        ShoppingListReleased,
        ShoppingListAssigned,
        ItemPicked,
        ItemMissing,
        ShoppingListAmended,
        ShoppingListCompleted,
        ShoppingListCancelled,
        ItemsReturned,
    ),
    "robot-{robot}": (RobotRegistered, RobotOnline, RobotOffline, RobotHeld, RobotResumed, RobotRetired),
}
"""The streams of Depot, each named by a field of the events on it."""

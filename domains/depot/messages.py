"""What is said to Depot, what it answers, and the events it publishes."""

from typing import Annotated
from uuid import UUID

from pydantic import StringConstraints

from events.event import Event
from kernel.messages import Message, PricedLine

RobotName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,60}$")]
"""It is part of the subject of a robot's events."""


class Item(Message):
    """So many pieces of a product to pick."""

    sku: str
    name: str
    quantity: int


class Stop(Message):
    """A store to stop at, and what to pick there."""

    store: str
    items: list[Item]


# Commands


class ScheduleShopping(Message):
    """Make a shopping list with a stop for each store."""

    order_id: UUID
    lines: list[PricedLine]


class CancelShopping(Message):
    """Drop the list. `reason` is the code of what ended the order."""

    order_id: UUID
    reason: str


# Events


class ShoppingListScheduled(Event):
    """A list waits to be released to the robots."""

    order_id: UUID
    stops: list[Stop]


class ShoppingListCancelled(Event):
    """The list is void. `reason` is the code of what ended the order."""

    order_id: UUID
    reason: str


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


class RobotOnline(Event):
    """A robot is there and can be given a list."""

    robot: RobotName


class RobotOffline(Event):
    """A robot left, or has not been heard of."""

    robot: RobotName


EVENTS = (ShoppingListScheduled, ShoppingListCancelled)
"""Every event that Depot writes."""

ANNOUNCED = (ShoppingListAssigned, ItemPicked, ItemMissing, ShoppingListCompleted, RobotOnline, RobotOffline)
"""Events that the rest of the story will write; consumers may count on them already."""

STREAMS = {
    "list-{order_id}": (
        ShoppingListScheduled,
        ShoppingListCancelled,
        ShoppingListAssigned,
        ItemPicked,
        ItemMissing,
        ShoppingListCompleted,
    ),
    "robot-{robot}": (RobotOnline, RobotOffline),
}
"""The streams of Depot, each named by a field of the events on it."""

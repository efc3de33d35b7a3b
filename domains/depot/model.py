"""How an order becomes a shopping list, and how far a list is."""

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Final
from uuid import UUID

from pydantic import AwareDatetime

from domains.depot.messages import (
    Doing,
    Duty,
    Item,
    ListStatus,
    ListStop,
    ListView,
    LostList,
    PickedItem,
    Recalled,
    RobotAtWork,
    RobotView,
    ShoppingResult,
    Stop,
)
from kernel.messages import Message, Pieces, PricedLine

HELD: Final = ("assigned", "collected")
"""A robot has the list."""


def plan_stops(lines: Iterable[PricedLine], signs: Mapping[str, tuple[str, str]]) -> list[Stop]:
    """A stop for each store, by name; at each, the pieces of each product together, by sku.

    `signs` tells for each product, by sku, what its shelf says now: its name, and the name of its store. A robot
    looks for that. A product that is not in it is called what it was sold as.
    """
    stops: dict[str, dict[str, Item]] = {}
    for line in lines:
        name, store = signs.get(line.sku, (line.name, line.store))
        items = stops.setdefault(store, {})
        already = items[line.sku].quantity if line.sku in items else 0
        items[line.sku] = Item(sku=line.sku, name=name, quantity=already + line.quantity)
    return [
        Stop(store=store, items=[items[sku] for sku in sorted(items)]) for store, items in sorted(stops.items())
    ]


class ListItem(PickedItem):
    """An item of a list, with the stop that it is at, and the word on missing items that added it (0: none)."""

    stop: int
    store: str
    round: int

    @property
    def is_reported(self) -> bool:
        return self.picked is not None


class ShoppingList(Message):
    """A list as its rows have it; `ShoppingListRow` says what they mean."""

    order_id: UUID
    status: ListStatus
    robot: str | None
    released_at: AwareDatetime | None
    assign_round: int | None
    shop_round: int | None
    amended: int
    reason: str | None
    returned_at: AwareDatetime | None
    changed_at: AwareDatetime
    items: list[ListItem]
    trace_context: dict[str, str] | None = None

    @property
    def holder(self) -> str | None:
        """The robot that shops it."""
        return self.robot if self.status in HELD else None

    @property
    def is_reported(self) -> bool:
        return all(item.is_reported for item in self.items)

    @property
    def waits_for_word(self) -> bool:
        """Every item is reported, and some are missing that there was no word on yet."""
        return self.is_reported and any(item.missing and item.round == self.amended for item in self.items)

    @property
    def next(self) -> Doing | None:
        """What its robot has to do."""
        if self.status == "cancelled" and self.robot and self.returned_at is None:
            return "give_back"
        if self.holder is None:
            return None
        if not self.is_reported:
            return "pick"
        return "wait" if self.waits_for_word else "deliver"

    @property
    def last_stop(self) -> int:
        return max((item.stop for item in self.items), default=0)

    @property
    def picked(self) -> list[Pieces]:
        return _by_product((item.sku, item.picked) for item in self.items)

    @property
    def missing(self) -> list[Pieces]:
        return _by_product((item.sku, item.missing) for item in self.items)

    @property
    def carried(self) -> list[Pieces]:
        """What the robot that had it when it was cancelled carried: all that was picked, by whichever robot."""
        return self.picked if self.status == "cancelled" and self.robot else []

    def item(self, stop: int, sku: str) -> ListItem | None:
        """The item at this stop, if there is one."""
        return next((item for item in self.items if (item.stop, item.sku) == (stop, sku)), None)

    def reported(self, stop: int, sku: str, picked: int, missing: int) -> "ShoppingList":
        """The list with this said of an item; `collected` if that was the last and there has to be word."""
        items = [
            item.model_copy(update={"picked": picked, "missing": missing})
            if (item.stop, item.sku) == (stop, sku)
            else item
            for item in self.items
        ]
        return self.model_copy(update={"items": items}).as_held()

    def as_held(self, by: str | None = None) -> "ShoppingList":
        """The list with the status that it has in a robot's hands: `by` if it was in no one's."""
        status = "collected" if self.waits_for_word else "assigned"
        return self.model_copy(update={"status": status, "robot": by or self.robot})

    def result(self) -> ShoppingResult | None:
        """What the saga's step waits for, if it is there: everything is reported, or at the desk."""
        if self.status not in ("collected", "completed"):
            return None
        return ShoppingResult(picked=self.picked, missing=self.missing, completed=self.status == "completed")

    def silent(self) -> ShoppingResult:
        """What the saga's step is told when the robot was silent for too long, or recalled."""
        return ShoppingResult(silent=self.robot, picked=self.picked, missing=self.missing)

    def lost(self) -> LostList:
        """The list as it was taken from its robot."""
        return LostList(order_id=self.order_id, shop_round=self.shop_round, result=self.silent())

    def duty(self) -> Duty:
        """What its robot has to do with it."""
        return Duty(
            held=self.view(),
            next=self.next,
            amended=self.amended,
            carried=self.carried,
            reason=self.reason,
            assign_round=self.assign_round,
            shop_round=self.shop_round,
            result=self.result(),
            trace_context=self.trace_context,
        )

    def recalled(self, robot: str) -> Recalled:
        """Why this robot does not hold it any more."""
        if self.status != "cancelled":
            lost = self.lost() if self.status == "released" and self.robot == robot else None
            return Recalled(order_id=self.order_id, reason="list_lost", lost=lost)
        carried = self.carried if self.robot == robot and self.returned_at is None else []
        return Recalled(order_id=self.order_id, reason=self.reason or "cancelled", carried=carried)

    def work_of(self, robot: RobotView, quiet_seconds: float | None) -> RobotAtWork:
        """Its robot, and how far that is with it."""
        reported = [item.store for item in self.items if item.is_reported]
        names = {item.sku: item.name for item in self.items}
        return RobotAtWork(
            **dict(robot),
            quiet_seconds=quiet_seconds,
            doing=self.next,
            at=reported[-1] if reported else None,
            heads_for=next((item.store for item in self.items if not item.is_reported), None),
            picked=sum(item.picked or 0 for item in self.items),
            missing=sum(item.missing or 0 for item in self.items),
            pieces=sum(item.quantity for item in self.items),
            carries=[Item(sku=one.sku, name=names[one.sku], quantity=one.quantity) for one in self.picked],
        )

    def view(self) -> ListView:
        """The list as anybody may see it."""
        return ListView(
            order_id=self.order_id,
            status=self.status,
            robot=None if self.status == "released" else self.robot,
            stops=[
                ListStop(store=store, items=[PickedItem.model_validate(dict(item)) for item in items])
                for (_, store), items in groupby(self.items, lambda item: (item.stop, item.store))
            ],
            released_at=self.released_at,
            changed_at=self.changed_at,
        )


def _by_product(pieces: Iterable[tuple[str, int | None]]) -> list[Pieces]:
    total: Counter[str] = Counter()
    for sku, number in pieces:
        total[sku] += number or 0
    return [Pieces(sku=sku, quantity=number) for sku, number in sorted(total.items()) if number]

"""What a robot knows of the list that it shops, and what it finds in the shelves."""

import random
from collections.abc import Iterator

from api.generated.mallbots.automation.v1.automation_pb2 import Item, ItemReport, ShoppingList, Stop


def found(seed: int, order_id: str, sku: str, quantity: int, missing: float) -> int:
    """How many of `quantity` pieces the robot finds: with probability `missing` fewer than all, or none.

    The same seed finds the same for the same order and product.
    """
    dice = random.Random(f"{seed}/{order_id}/{sku}")  # noqa: S311 - it plays the shelf
    return dice.randrange(quantity) if dice.random() < missing else quantity


class Trip:
    """A list on its way. The gateway's word on what is reported counts, whenever it gives it."""

    def __init__(self, shopping: ShoppingList) -> None:
        self.order_id = shopping.order_id
        self.at: int | None = None
        """The number of the stop where the robot stands."""
        self._list = shopping
        self._told: bool | None = None

    @property
    def total(self) -> int:
        """The pieces on the list."""
        return sum(item.quantity for _, item in self._items())

    @property
    def picked(self) -> int:
        """The pieces that the robot carries."""
        return sum(item.picked for _, item in self._items())

    @property
    def may_deliver(self) -> bool:
        """Whether everything goes to the desk: the robot was told so, or nothing is left and nothing missing."""
        if self._told is not None:
            return self._told
        return all(item.reported and not item.missing for _, item in self._items())

    def change(self, shopping: ShoppingList) -> None:
        """The list is like this now. More to pick makes void what was said about delivering."""
        self._list = shopping
        if self.next_item() is not None:
            self._told = None

    def next_item(self) -> tuple[Stop, Item] | None:
        """The first item that is not reported, and where it is."""
        return next(((stop, item) for stop, item in self._items() if not item.reported), None)

    def is_reported(self, report: ItemReport) -> bool:
        """Whether the gateway has the item of this report on record."""
        return any(
            item.reported for stop, item in self._items() if (stop.number, item.sku) == (report.stop, report.sku)
        )

    def record(self, report: ItemReport) -> None:
        """The report is on record."""
        self.at = report.stop
        for stop, item in self._items():
            if (stop.number, item.sku) == (report.stop, report.sku):
                item.reported, item.picked, item.missing = True, report.picked, report.missing

    def wait(self) -> None:
        """Do not deliver before there is word."""
        self._told = False

    def deliver(self) -> None:
        """There is nothing more to pick."""
        self._told = True

    def _items(self) -> Iterator[tuple[Stop, Item]]:
        for stop in self._list.stops:
            for item in stop.items:
                yield stop, item

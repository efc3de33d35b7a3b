"""How an order becomes a shopping list."""

from collections.abc import Iterable, Mapping

from domains.depot.messages import Item, Stop
from kernel.messages import PricedLine


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

"""How an order becomes a shopping list."""

from collections.abc import Iterable

from domains.depot.messages import Item, Stop
from kernel.messages import PricedLine


def plan_stops(lines: Iterable[PricedLine]) -> list[Stop]:
    """A stop for each store, by name; at each, the pieces of each product together, by sku."""
    stops: dict[str, dict[str, Item]] = {}
    for line in lines:
        items = stops.setdefault(line.store, {})
        already = items[line.sku].quantity if line.sku in items else 0
        items[line.sku] = Item(sku=line.sku, name=line.name, quantity=already + line.quantity)
    return [
        Stop(store=store, items=[items[sku] for sku in sorted(items)]) for store, items in sorted(stops.items())
    ]

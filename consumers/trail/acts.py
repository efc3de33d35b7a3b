"""Each event of an order as an act: who did it, and what, in words that staff use."""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from domains.depot import messages as depot
from domains.orders import messages as orders
from domains.payments import messages as payments
from domains.published import PUBLISHED
from domains.stores import messages as stores
from events.event import Event
from events.recorded import RecordedEvent
from kernel.messages import DomainName, OrderLine, PricedLine
from kernel.wording import count, format_money

SAGA: Final = "the saga"
"""Who acts where no person, kiosk or robot does: the order's workflow."""


class Act(NamedTuple):
    """Who did what."""

    who: str
    what: str


def act_of(event: RecordedEvent) -> Act:
    """The act that an event tells of. One of a type that is not known yet is told by the name of its type."""
    published = PUBLISHED[event.domain]
    told = event.read_one_of((*published.events, *published.announced))
    act = _TELL[event.domain](told) if told else None
    return act or Act(SAGA, _words(event.type))


def _of_orders(event: Event) -> Act | None:
    match event:
        case orders.OrderPlaced(kiosk=kiosk, customer=customer, lines=lines):
            for_whom = f" for {customer}" if customer else ""
            return Act(f"kiosk {kiosk}", f"placed the order{for_whom}: {_pieces(lines)}")
        case orders.OrderApproved(pickup_code=code):
            return Act(SAGA, f"approved the order, pickup code {code}")
        case orders.OrderRejected(refusal=refusal):
            return Act(SAGA, f"rejected the order: {refusal.detail}")
        case orders.OrderCancelled(cancellation=cancellation):
            reason = f": {cancellation.reason}" if cancellation.reason else ""
            return Act(f"the {cancellation.by}", f"cancelled the order{reason}")
        case orders.OrderReadied():
            return Act(SAGA, "told that the order is ready")
        case orders.PickupReminded():
            return Act(SAGA, "reminded the customer")
        case orders.OrderCompleted():
            return Act(SAGA, "completed the order")
    return None


def _of_stores(event: Event) -> Act | None:
    match event:
        case stores.StockReserved(lines=lines):
            return Act(SAGA, f"reserved {_pieces(lines)}")
        case stores.StockReleased(lines=lines, reason=reason):
            return Act(SAGA, f"released {_pieces(lines)}: {_words(reason)}")
    return None


def _of_payments(event: Event) -> Act | None:
    match event:
        case payments.PaymentAuthorized(method=method, amount_cents=amount, currency=currency):
            where = "held on the card" if method == "card" else "due at pickup"
            return Act(SAGA, f"authorized the payment: {format_money(amount, currency)} {where}")
        case payments.PaymentDeclined(refusal=refusal):
            return Act("the payment provider", f"declined the payment: {refusal.detail}")
        case payments.PaymentVoided(reason=reason):
            return Act(SAGA, f"voided the payment: {_words(reason)}")
    return None


def _of_depot(event: Event) -> Act | None:
    match event:
        case depot.ShoppingListScheduled(stops=stops):
            return Act(SAGA, f"scheduled the shopping: {count(len(stops), 'stop')}")
        case depot.ShoppingListCancelled(reason=reason):
            return Act(SAGA, f"cancelled the shopping: {_words(reason)}")
        case depot.ShoppingListAssigned(robot=robot):
            return Act(f"robot {robot}", "took the shopping list")
        case depot.ItemPicked(robot=robot, sku=sku, quantity=quantity, store=store):
            return Act(f"robot {robot}", f"picked {quantity} of {sku} at {store}")
        case depot.ItemMissing(robot=robot, name=name, quantity=quantity, store=store):
            return Act(f"robot {robot}", f"did not find {quantity} of {name} at {store}")
        case depot.ShoppingListCompleted(robot=robot):
            return Act(f"robot {robot}", "brought what it found")
    return None


_TELL: Final[dict[DomainName, Callable[[Event], Act | None]]] = {
    "orders": _of_orders,
    "stores": _of_stores,
    "payments": _of_payments,
    "depot": _of_depot,
}


def _pieces(lines: Sequence[OrderLine | PricedLine]) -> str:
    return count(sum(line.quantity for line in lines), "item")


def _words(name: str) -> str:
    """A name for programs as words: `OrderExpired` is `order expired`, `payment_declined` `payment declined`."""
    spaced = "".join(f" {sign.lower()}" if sign.isupper() else sign for sign in name)
    return spaced.replace("_", " ").strip()

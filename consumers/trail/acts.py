"""Each event as an act: who did it, and what, in words that staff use."""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from consumers.wording import at, listed
from domains.depot import messages as depot
from domains.orders import messages as orders
from domains.payments import messages as payments
from domains.published import PUBLISHED
from domains.stores import messages as stores
from events.event import Event
from events.recorded import RecordedEvent
from kernel.messages import Cancellation, DomainName, OrderLine, Pieces, PricedLine, Substitution
from kernel.wording import count, format_money

SAGA: Final = "the saga"
"""Who acts where no person, kiosk or robot does: the workflow of an order, or of a refund."""
MALL: Final = "the mall"
"""Who acts where neither a person nor a workflow does."""
PROVIDER: Final = "the payment provider"

_PAID: Final[dict[payments.SettlementMethod, str]] = {
    "card": "on the card",
    "cash": "in cash",
    "desk_card": "by card at the desk",
}


class Act(NamedTuple):
    """Who did what."""

    who: str
    what: str


def act_of(event: RecordedEvent) -> Act:
    """The act that an event tells of. One that there are no words for (yet) is told by the name of its type."""
    told = event.read_one_of(PUBLISHED[event.domain].events)
    acts = (tell(told) for tell in _TELL[event.domain]) if told else ()
    return next(filter(None, acts), Act(SAGA, _words(event.type)))


def _of_orders(event: Event) -> Act | None:
    match event:
        case orders.OrderPlaced(kiosk=kiosk, customer=customer, lines=lines):
            for_whom = f" for {customer}" if customer else ""
            return Act(f"kiosk {kiosk}", f"placed the order{for_whom}: {_items(lines)}")
        case orders.OrderApproved(pickup_code=code):
            return Act(SAGA, f"approved the order, pickup code {code}")
        case orders.OrderRejected(refusal=refusal):
            return Act(SAGA, f"rejected the order: {refusal.detail}")
        case orders.OrderCancelled(cancellation=cancellation):
            return Act(_canceller(cancellation), f"cancelled the order{_because(cancellation.reason)}")
        case orders.OrderAdjusted(missing=missing, substituted=substituted):
            return Act(SAGA, f"adjusted the order: {_differences(missing, substituted)}")
        case orders.OrderReadied(pickup_until=until):
            return Act(SAGA, "told that the order is ready" + (f" until {at(until)}" if until else ""))
        case orders.PickupReminded(number=number):
            return Act(SAGA, f"reminded the customer (reminder {number})")
        case orders.OrderCompleted(by=by):
            return Act(_staff(by), "handed the order over")
        case orders.OrderExpired(expiry=expiry):
            return Act(SAGA, f"let the order expire: nobody came until {at(expiry.pickup_until)}")
        case orders.OrderRefunded(lines=lines, amount_cents=amount, currency=currency, reason=reason, by=by):
            money = format_money(amount, currency)
            return Act(_staff(by), f"began to give {money} back for {_items(lines)}{_because(reason)}")
        case orders.OrderRefundWithdrawn(reason=reason):
            return Act(SAGA, f"withdrew the refund{_because(_words(reason))}")
    return None


def _of_stock(event: Event) -> Act | None:
    match event:
        case stores.StockReserved(lines=lines):
            return Act(SAGA, f"reserved {_items(lines)}")
        case stores.StockAdjusted(missing=missing, substitutes=substitutes, lines=lines):
            return Act(SAGA, f"holds {_items(lines)} now{_because(_differences(missing, substitutes))}")
        case stores.StockReleased(lines=lines, reason=reason, carried=carried):
            but = f", but for {_items(carried)} that a robot carries" if carried else ""
            return Act(SAGA, f"released {_items(lines)}{but}: {_words(reason)}")
        case stores.StockReturned(pieces=pieces):
            return Act(MALL, f"released {_pieces(pieces)}, back on the shelf")
        case stores.StockConsumed(lines=lines):
            return Act(SAGA, f"took {_items(lines)} out of stock")
        case stores.StockFoundMissing(sku=sku, quantity=quantity):
            return Act(SAGA, f"took {quantity} of {sku} for missing: somebody should count")
        case stores.StockReceived(quantity=quantity, receipt=receipt, by=by):
            delivery = f" with {receipt}" if receipt else ""
            return Act(_staff(by), f"received {count(quantity, 'item')}{delivery}")
        case stores.StockCorrected(on_hand=on_hand, difference=difference, reason=reason, by=by):
            return Act(_staff(by), f"counted {count(on_hand, 'item')}, {difference:+}{_because(reason)}")
    return None


def _of_catalog(event: Event) -> Act | None:
    match event:
        case stores.StoreRenamed(name=name, by=by):
            return Act(_staff(by), f"renamed the store to {name}")
        case stores.StoreParticipationChanged(open=is_open, by=by):
            return Act(_staff(by), "opened the store" if is_open else "closed the store to new orders")
        case stores.ProductRenamed(name=name, brand=brand, by=by):
            return Act(_staff(by), f"renamed the product to {name}" + (f" ({brand})" if brand else ""))
        case stores.ProductPriceChanged(price_cents=price, currency=currency, by=by):
            return Act(_staff(by), f"changed the price to {format_money(price, currency)}")
        case stores.ProductRemoved(by=by):
            return Act(_staff(by), "ended the sale of the product")
        case stores.LowStockChanged(low_at=low_at, by=by):
            return Act(_staff(by), f"set that {low_at} are few" if low_at else "set that none are too few")
        case stores.AlternativesChanged(alternatives=alternatives, by=by):
            return Act(_staff(by), f"set the alternatives: {listed(alternatives) or 'none'}")
    return None


def _of_payments(event: Event) -> Act | None:
    match event:
        case payments.PaymentAuthorized(method=method, amount_cents=amount, currency=currency):
            where = "held on the card" if method == "card" else "due at pickup"
            return Act(SAGA, f"authorized the payment: {format_money(amount, currency)} {where}")
        case payments.PaymentDeclined(refusal=refusal):
            return Act(PROVIDER, f"declined the payment: {refusal.detail}")
        case payments.PaymentVoided(reason=reason):
            return Act(SAGA, f"voided the payment: {_words(reason)}")
        case payments.PaymentAdjusted(amount_cents=amount, currency=currency):
            return Act(SAGA, f"adjusted the payment: {format_money(amount, currency)}")
        case payments.PaymentHoldLapsed(reason=reason):
            return Act(PROVIDER, f"let go of the hold{_because(reason)}")
        case payments.PaymentCaptured(method=method, amount_cents=amount, currency=currency):
            cash = f" ({_cash(event)})" if event.tendered_cents is not None else ""
            return Act(SAGA, f"took {format_money(amount, currency)} {_PAID[method]}{cash}")
        case payments.PaymentRefunded(method=method, amount_cents=amount, currency=currency, reason=reason):
            return Act(SAGA, f"refunded {format_money(amount, currency)} {_PAID[method]}{_because(reason)}")
        case payments.PaymentRefundFailed(amount_cents=amount, currency=currency, reason=reason):
            return Act(PROVIDER, f"could not give {format_money(amount, currency)} back{_because(_words(reason))}")
    return None


def _of_lists(event: Event) -> Act | None:
    match event:
        case depot.ShoppingListScheduled(stops=stops):
            return Act(SAGA, f"scheduled the shopping: {count(len(stops), 'stop')}")
        case depot.ShoppingListReleased(robot=None):
            return Act(SAGA, "released the shopping list to the robots")
        case depot.ShoppingListReleased(robot=robot, by=by):
            return Act(_staff(by), f"took the shopping list from robot {robot}")
        case depot.ShoppingListAmended(stops=stops):
            items = [item for stop in stops for item in stop.items]
            more = f"pick {_items(items)} instead" if items else "bring what it has"
            return Act(SAGA, f"told the robot to {more}")
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
        case depot.ItemsReturned(robot=robot, pieces=pieces, by=None):
            return Act(f"robot {robot}", f"took {_pieces(pieces)} back to the shelf")
        case depot.ItemsReturned(robot=robot, pieces=pieces, by=by):
            return Act(_staff(by), f"took {_pieces(pieces)} of robot {robot} back to the shelf")
    return None


def _of_robots(event: Event) -> Act | None:
    match event:
        case depot.RobotRegistered(robot=robot):
            return Act(f"robot {robot}", "came for the first time")
        case depot.RobotOnline(robot=robot):
            return Act(f"robot {robot}", "is ready")
        case depot.RobotOffline(robot=robot):
            return Act(f"robot {robot}", "is away")
        case depot.RobotHeld(by=by):
            return Act(_staff(by), "let the robot rest")
        case depot.RobotResumed(by=by):
            return Act(_staff(by), "let the robot work again")
        case depot.RobotRetired(by=by):
            return Act(_staff(by), "retired the robot")
    return None


_TELL: Final[dict[DomainName, tuple[Callable[[Event], Act | None], ...]]] = {
    "orders": (_of_orders,),
    "stores": (_of_stock, _of_catalog),
    "payments": (_of_payments,),
    "depot": (_of_lists, _of_robots),
}


def _staff(name: str | None, otherwise: str = MALL) -> str:
    return f"staff {name}" if name else otherwise


def _canceller(cancellation: Cancellation) -> str:
    return _staff(cancellation.name, f"the {cancellation.by}")


def _because(reason: str) -> str:
    return f": {reason}" if reason else ""


def _items(lines: Sequence[OrderLine | PricedLine | Pieces | depot.Item]) -> str:
    return count(sum(line.quantity for line in lines), "item")


def _pieces(pieces: Sequence[Pieces]) -> str:
    return listed([f"{one.quantity} of {one.sku}" for one in pieces])


def _differences(missing: Sequence[Pieces], substitutes: Sequence[Substitution]) -> str:
    instead = [f"{one.line.quantity} of {one.line.sku} instead of {one.sku}" for one in substitutes]
    return "; ".join(filter(None, (f"{_pieces(missing)} missing" if missing else "", listed(instead))))


def _cash(captured: payments.PaymentCaptured) -> str:
    """What was given in cash, and given back."""
    tendered, change = (
        format_money(cents or 0, captured.currency) for cents in (captured.tendered_cents, captured.change_cents)
    )
    return f"{tendered} tendered, {change} change"


def _words(name: str) -> str:
    """A name for programs as words: `OrderExpired` is `order expired`, `payment_declined` `payment declined`."""
    spaced = "".join(f" {sign.lower()}" if sign.isupper() else sign for sign in name)
    return spaced.replace("_", " ").strip()

"""The rules of a reservation: what may be sold, and what it costs."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from domains.stores.messages import Reservation
from kernel.errors import Refusal, RefusalCode, Refused, RefusedLine
from kernel.messages import OrderLine, PricedLine


@dataclass(frozen=True)
class Offer:
    """A product as it can be had at this moment. `available` is in pieces."""

    name: str
    store: str
    store_open: bool
    unit_price_cents: int
    currency: str
    available: int


def pieces_by_sku(lines: Iterable[OrderLine | PricedLine]) -> dict[str, int]:
    """How many pieces of each product the lines ask for together, sorted by sku: the order of all locks."""
    pieces: Counter[str] = Counter()
    for line in lines:
        pieces[line.sku] += line.quantity
    return dict(sorted(pieces.items()))


def price(lines: Sequence[OrderLine], offers: Mapping[str, Offer], currency: str) -> Reservation:
    """Every line with its name, store and price, and their total. What has no price in `currency` is not sold.

    Raises `Refused` naming every line to blame, for the first rule broken of: `unknown_product`,
    `store_closed`, `insufficient_stock`.
    """
    wanted = pieces_by_sku(lines)
    offers = {sku: offer for sku, offer in offers.items() if offer.currency == currency}
    _refuse(
        "unknown_product",
        [RefusedLine(sku=sku, quantity=n) for sku, n in wanted.items() if sku not in offers],
    )
    _refuse(
        "store_closed",
        [RefusedLine(sku=sku, quantity=n) for sku, n in wanted.items() if not offers[sku].store_open],
    )
    _refuse(
        "insufficient_stock",
        [
            RefusedLine(sku=sku, quantity=n, available=offers[sku].available)
            for sku, n in wanted.items()
            if offers[sku].available < n
        ],
    )
    priced = [
        PricedLine(
            sku=line.sku,
            name=offers[line.sku].name,
            store=offers[line.sku].store,
            quantity=line.quantity,
            unit_price_cents=offers[line.sku].unit_price_cents,
        )
        for line in lines
    ]
    return Reservation.of(priced)


_SENTENCES: dict[RefusalCode, str] = {
    "unknown_product": "the mall does not sell",
    "store_closed": "the store is closed that sells",
    "insufficient_stock": "there is not enough left of",
}


def _refuse(code: RefusalCode, lines: list[RefusedLine]) -> None:
    if lines:
        skus = ", ".join(line.sku for line in lines)
        raise Refused(Refusal(code=code, detail=f"{_SENTENCES[code]} {skus}", lines=lines))

"""The rules of a reservation: what may be sold, what it costs, and what becomes of it when pieces are missing."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from domains.stores.messages import Reservation
from kernel.errors import Refusal, RefusalCode, Refused, RefusedLine
from kernel.messages import IfMissing, OrderLine, PricedLine, pieces_by_sku


@dataclass(frozen=True)
class Offer:
    """A product as it can be had at this moment. `sold` is whether it still is; `available` is in pieces, and few
    from `low_at` on."""

    name: str
    store: str
    store_open: bool
    unit_price_cents: int
    currency: str
    sold: bool
    available: int
    low_at: int

    def priced(self, sku: str, quantity: int) -> PricedLine:
        """A line of so many pieces."""
        return PricedLine(
            sku=sku,
            name=self.name,
            store=self.store,
            quantity=quantity,
            unit_price_cents=self.unit_price_cents,
        )


@dataclass(frozen=True)
class HeldLine:
    """A line of a reservation. A substitute stands `instead_of` the line of that number, since that `round`."""

    number: int
    line: PricedLine
    missing: int = 0
    instead_of: int | None = None
    round: int | None = None

    @property
    def ordered_as(self) -> int:
        """The number of the line as the customer asked for it."""
        return self.instead_of or self.number


def price(lines: Sequence[OrderLine], offers: Mapping[str, Offer], currency: str) -> Reservation:
    """Every line with its name, store and price, and their total. What has no price in `currency` is not sold.

    Raises `Refused` naming every line to blame, for the first rule broken of: `unknown_product`,
    `store_closed`, `insufficient_stock`.
    """
    wanted = pieces_by_sku(lines)
    offers = {sku: offer for sku, offer in offers.items() if offer.sold and offer.currency == currency}
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
    return Reservation.of([offers[line.sku].priced(line.sku, line.quantity) for line in lines])


_HURT: Final[Mapping[IfMissing, int]] = {"skip": 0, "substitute": 1, "cancel": 2}


def spread_missing(
    held: Iterable[HeldLine], missing: Mapping[str, int], asked: Mapping[int, OrderLine]
) -> dict[int, int]:
    """How many pieces each held line loses, by its number. Of the lines of one product the latest substitutes lose
    first, because what was ordered was looked for before them; then those whose loss hurts the customer least.
    `asked` is what was asked for, by the number of the line. More pieces than are held can not be missing."""
    left = Counter(missing)
    lost: dict[int, int] = {}
    for one in sorted(
        held, key=lambda one: (-(one.round or 0), _HURT[asked[one.ordered_as].if_missing], one.number)
    ):
        if pieces := min(one.line.quantity, left[one.line.sku]):
            lost[one.number] = pieces
            left[one.line.sku] -= pieces
    return lost


@dataclass(frozen=True)
class Substitutable:
    """What a line may have instead of its product, the first choice first. `sku` is what is missing of it, `line`
    is as it was ordered; `dearer` allows alternatives that cost more than that."""

    sku: str
    line: HeldLine
    quantity: int
    alternatives: Sequence[str]
    currency: str
    dearer: bool

    def fits(self, offer: Offer) -> bool:
        """Whether the customer would have it."""
        affordable = self.dearer or offer.unit_price_cents <= self.line.line.unit_price_cents
        return offer.sold and offer.store_open and offer.currency == self.currency and affordable


def substitute(
    wanted: Iterable[Substitutable], offers: Mapping[str, Offer]
) -> list[tuple[Substitutable, PricedLine]]:
    """Lines at today's prices instead of what is missing: all pieces of one alternative if one has enough,
    otherwise what there is of each in turn, which may be too few or none."""
    left = Counter({sku: offer.available for sku, offer in offers.items()})
    chosen: list[tuple[Substitutable, PricedLine]] = []
    for one in wanted:
        fitting = [sku for sku in one.alternatives if sku in offers and one.fits(offers[sku]) and left[sku] > 0]
        taken: dict[str, int] = {}
        for sku in next(([sku] for sku in fitting if left[sku] >= one.quantity), fitting):
            if pieces := min(left[sku], one.quantity - sum(taken.values())):
                taken[sku] = pieces
        left.subtract(taken)
        chosen += [(one, offers[sku].priced(sku, pieces)) for sku, pieces in taken.items()]
    return chosen


def is_low(available: int, low_at: int) -> bool:
    """Whether so few pieces can still be ordered that somebody should know."""
    return 0 < low_at >= available


_SENTENCES: dict[RefusalCode, str] = {
    "unknown_product": "the mall does not sell",
    "store_closed": "the store is closed that sells",
    "insufficient_stock": "there is not enough left of",
}


def _refuse(code: RefusalCode, lines: list[RefusedLine]) -> None:
    if lines:
        skus = ", ".join(line.sku for line in lines)
        raise Refused(Refusal(code=code, detail=f"{_SENTENCES[code]} {skus}", lines=lines))

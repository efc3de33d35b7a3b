"""What must come of one order, whatever is done to it: no database, no Temporal, no time.

An act is a generator: what happens up to a `yield` is one moment, and between two moments anything else may come.
It returns what whoever did it is told.
"""

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Final, Literal

from kernel.messages import IfMissing

Reply = str
Act = Callable[["Model"], Generator[None, None, Reply]]
By = Literal["customer", "staff", "operator"]
Robot = Literal["ada", "bob"]

ROBOTS: Final[tuple[Robot, ...]] = ("ada", "bob")
MOMENTS: Final = 4
"""An act has no more, its end included."""
STOCK: Final = 4
"""Pieces of each product."""
WINDOW, REMINDERS, WRONG_CODES = 24.0, (2.0, 20.0), 5
"""Hours at the desk until an order expires, and until its customer is reminded; wrong codes until it is shut."""


@dataclass(frozen=True)
class Product:
    cents: int
    alternatives: tuple[str, ...] = ()


PRODUCTS: Final = {
    "bread": Product(150),
    "map": Product(0, ("bread", "rose")),
    "mint": Product(250),
    "oolong": Product(400),
    "rose": Product(200, ("tea", "map")),
    "tea": Product(300, ("mint", "oolong")),
}
"""A map is free of charge, and some alternatives are dearer than what they stand for."""


@dataclass(frozen=True)
class Wish:
    """A line as the customer asked for it."""

    sku: str
    pieces: int
    if_missing: IfMissing
    dearer: bool


@dataclass
class Held:
    """A line as it is held now; `wish` is that of the customer, also of a substitute."""

    sku: str
    pieces: int
    wish: Wish
    is_found: bool = True

    @property
    def cents(self) -> int:
        return self.pieces * PRODUCTS[self.sku].cents


@dataclass
class Item:
    """An item of the shopping list, and what the robot said of it."""

    sku: str
    pieces: int
    round: int
    missing: int | None = None


@dataclass(frozen=True)
class Seen:
    """What anybody can see of the order. `held_cents` and `net_cents` are in the provider's books."""

    status: str
    lines: dict[str, int]
    cents: int
    saga: str
    shopping_list: str | None
    duties: dict[Robot, str | None]
    reserved: dict[str, int]
    on_hand: dict[str, int]
    payment: str | None
    taken_cents: int
    refunded_cents: int
    held_cents: int
    net_cents: int
    reminders: int


@dataclass
class Model:
    """One order of these wishes, to be paid by this card (None: at the desk), as it is now."""

    wishes: list[Wish]
    card: str | None
    status: str = "approved"
    held: list[Held] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    robot: Robot | None = None
    list_is_done: bool = False
    began: bool = False
    at_desk: bool = False
    round: int = 0
    carried_by: Robot | None = None
    carried: Counter[str] = field(default_factory=Counter)
    gone: Counter[str] = field(default_factory=Counter)
    is_held: bool = False
    held_cents: int = 0
    hours: float = 0
    wrong_codes: int = 0
    is_shut: bool = False
    handing_over: bool = False
    cancelled_meanwhile: bool = False
    paid_by: str | None = None
    paid_token: str | None = None
    taken_cents: int = 0
    refunded: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.held = [Held(wish.sku, wish.pieces, wish) for wish in self.wishes]
        self._list(self._pieces())
        if self._is_sold_out or (self.card == "tok_declined" and self.cents):
            self._end("rejected")
        elif self.card and self.cents:
            self.is_held, self.held_cents = True, self.cents

    # What can be seen

    @property
    def cents(self) -> int:
        return sum(one.cents for one in self.held)

    @property
    def is_open(self) -> bool:
        return self.status in ("approved", "ready")

    @property
    def refunded_cents(self) -> int:
        return sum(PRODUCTS[sku].cents * pieces for sku, pieces in self.refunded.items())

    def seen(self) -> Seen:
        """All of it."""
        was_approved = self.status != "rejected"
        payment: str | None = "voided"
        if self.is_open or self.status == "completed":
            payment = "authorized" if self.is_open else "captured"
        elif self._is_sold_out:
            payment = None
        return Seen(
            status=self.status,
            lines=dict(self._pieces()) if was_approved else {},
            cents=self.cents if was_approved else 0,
            saga="shopping" if self.status == "approved" and self.began else self.status,
            shopping_list=self._list_status if was_approved else None,
            duties={robot: self._duty(robot) for robot in ROBOTS},
            reserved=dict(self._pieces() if self.is_open else self.carried),
            on_hand={sku: STOCK - self.gone[sku] for sku in PRODUCTS},
            payment=payment,
            taken_cents=self.taken_cents,
            refunded_cents=self.refunded_cents,
            held_cents=self.held_cents if self.is_held else 0,
            net_cents=self.taken_cents - self.refunded_cents if self.paid_by != "cash" else 0,
            reminders=sum(after < self.hours for after in REMINDERS),
        )

    # What robots do

    def take(self, robot: Robot) -> Generator[None, None, Reply]:
        """It is there, and asks for a list."""
        if self._duty(robot) is None:
            if not self.is_open or self.robot or self.list_is_done:
                return "nothing"
            self.robot = robot
        reply = self._duty(robot)
        yield
        self.began = self.began or self.is_open
        self._give_word()
        return str(reply)

    def report(self, robot: Robot, missing: int) -> Generator[None, None, Reply]:
        """It does not find so many pieces of the next item; if there is none, it says the last again."""
        if not self._is_told_by(robot):
            return "not_found" if self.status == "rejected" else "list_lost"
        if item := self.next_item():
            item.missing = min(missing, item.pieces)
        yield
        self._give_word()
        return "ok"

    def finish(self, robot: Robot) -> Generator[None, None, Reply]:
        """It says that all is at the desk."""
        if not self._is_told_by(robot):
            return "not_found" if self.status == "rejected" else "list_lost"
        if self.list_is_done:
            return "ok"
        if self.next_item() or self._waits_for_word:
            return "conflict"
        self.list_is_done, self.robot, self.carried_by = True, None, robot
        yield
        if self.is_open:
            self.status = "ready"
        return "ok"

    def fall_silent(self, robot: Robot) -> Generator[None, None, Reply]:
        """It is not heard of for too long."""
        if self.robot == robot:
            self.robot = None
        yield
        return "ok"

    def give_back(self, robot: Robot) -> Generator[None, None, Reply]:
        """It says that everything is back on the shelves."""
        if self.status == "rejected":
            return "not_found"
        if self.robot == robot and self.is_open:
            return "conflict"
        if self._duty(robot) == "give_back":
            self.carried.clear()
        yield
        return "ok"

    # What people do

    def cancel(self, by: By) -> Generator[None, None, Reply]:
        """A customer can until a robot has the list, staff until the order is paid."""
        if not self.is_open:
            return "ok"
        if by == "customer" and self.began:
            return "shopping_began"
        if self.handing_over:
            self.cancelled_meanwhile = True
        else:
            self._end("cancelled")
        yield
        return "ok"

    def hand_over(self, is_right: bool, payment: str | None) -> Generator[None, None, Reply]:
        """Staff hand it over: with the right code or not, and paid by `cash`, too little cash (`short`), a card at
        the desk (its token), or as held."""
        if refusal := self._at_the_desk(is_right, payment):
            return refusal
        self.handing_over = True
        yield
        self.handing_over = False
        reply = self._pay(payment)
        if self.paid_by:
            self.status = "completed"
            self.gone = self._pieces()
        elif self.cancelled_meanwhile:
            self._end("cancelled")
        return reply

    def guess(self, times: int) -> Generator[None, None, Reply]:
        """Somebody tries so many wrong pickup codes, one after the other."""
        replies = []
        for _ in range(times):
            replies.append(str(self._at_the_desk(False, None)))
            yield
        return " ".join(replies)

    def repeat(self) -> Generator[None, None, Reply]:
        """The kiosk sends the order again."""
        yield
        return "ok"

    def refund(self, wanted: dict[str, int] | None) -> Generator[None, None, Reply]:
        """Give back these pieces, or all that is left."""
        left = self._pieces() - self.refunded
        pieces = Counter(wanted) if wanted is not None else left
        if self.status != "completed" or not pieces or pieces - left:
            return "not_refundable"
        cents = sum(PRODUCTS[sku].cents * number for sku, number in pieces.items())
        if cents and self.paid_by != "cash" and self.paid_token == "tok_refund_declined":
            return "not_refundable"
        self.refunded += pieces
        yield
        return f"{cents} refunded"

    def wait(self, hours: float) -> Generator[None, None, Reply]:
        """Nobody does anything for so long."""
        self.hours, self.is_shut = self.hours + hours, False
        if self.hours > WINDOW:
            self._end("expired")
        yield
        return "ok"

    # The rules

    @property
    def _is_sold_out(self) -> bool:
        return any(wanted > STOCK for wanted in self._pieces().values())

    @property
    def _list_status(self) -> str:
        if not (self.is_open or self.status == "completed"):
            return "cancelled"
        if self.list_is_done:
            return "completed"
        return "released" if self.robot is None else "collected" if self._waits_for_word else "assigned"

    def next_item(self) -> Item | None:
        """What the robot goes for next."""
        return next((item for item in self.items if item.missing is None), None)

    @property
    def _waits_for_word(self) -> bool:
        return not self.next_item() and any(item.missing and item.round == self.round for item in self.items)

    def _duty(self, robot: Robot) -> str | None:
        if not self.is_open:
            return "give_back" if self.carried_by == robot and self.carried else None
        if self.robot != robot:
            return None
        return "pick" if self.next_item() else "wait" if self._waits_for_word else "deliver"

    def _is_told_by(self, robot: Robot) -> bool:
        """Whether it holds the list, or brought it."""
        is_live = self.is_open or self.status == "completed"
        return is_live and robot == (self.carried_by if self.list_is_done else self.robot)

    def _pieces(self) -> Counter[str]:
        pieces: Counter[str] = Counter()
        for one in self.held:
            pieces[one.sku] += one.pieces
        return +pieces

    def _list(self, pieces: Counter[str]) -> None:
        self.items += [Item(sku, pieces[sku], self.round) for sku in sorted(pieces)]

    def _end(self, status: str) -> None:
        """Everything is undone; only what a robot carries is still held until it is back."""
        self.status, self.is_held = status, False
        if self.robot:
            self.carried_by = self.robot
            for item in self.items:
                if item.missing is not None and item.missing < item.pieces:
                    self.carried[item.sku] += item.pieces - item.missing

    def _give_word(self) -> None:
        """The robot has been everywhere and waits: do what the lines said about what is missing."""
        if not (self.is_open and self.robot and self._waits_for_word):
            return
        missing = Counter({item.sku: 0 for item in self.items})
        for item in self.items:
            missing[item.sku] += (item.missing or 0) if item.round == self.round else 0
        hurt = ("skip", "substitute", "cancel")
        lost: list[tuple[Held, int]] = []
        for one in sorted(self.held, key=lambda one: hurt.index(one.wish.if_missing)):
            if pieces := min(one.pieces, missing[one.sku]):
                missing[one.sku] -= pieces
                lost.append((one, pieces))
        if any(one.wish.if_missing == "cancel" for one, _ in lost):
            self._end("cancelled")
            return
        before = deepcopy(self.held)
        free = Counter(dict.fromkeys(PRODUCTS, STOCK)) - self._pieces()
        for one, pieces in lost:
            one.pieces, one.is_found = one.pieces - pieces, False
        substitutes: list[Held] = []
        for one, pieces in lost:
            if one.wish.if_missing == "substitute":
                substitutes += self._instead(one.wish, pieces, free)
        cents = self.cents + sum(one.cents for one in substitutes)
        if substitutes and not self._is_payable(cents):
            substitutes = []
        self.held += substitutes
        if not self._pieces():
            self.held = before
            self._end("cancelled")
            return
        self.round += 1
        if self.is_held:
            self.held_cents = self.cents
        self._list(sum((Counter({one.sku: one.pieces}) for one in substitutes), Counter()))

    def _instead(self, wish: Wish, pieces: int, free: Counter[str]) -> list[Held]:
        """All pieces of one alternative if one has enough, else what there is of each."""
        not_found = {one.sku for one in self.held if not one.is_found}
        fitting = [
            sku
            for sku in PRODUCTS[wish.sku].alternatives
            if sku not in not_found and (wish.dearer or PRODUCTS[sku].cents <= PRODUCTS[wish.sku].cents)
        ]
        chosen = []
        for sku in next(([sku] for sku in fitting if free[sku] >= pieces), fitting):
            if taken := min(free[sku], pieces):
                free[sku] -= taken
                pieces -= taken
                chosen.append(Held(sku, taken, wish))
        return chosen

    def _is_payable(self, cents: int) -> bool:
        if self.card is None:
            return True
        if not self.is_held:
            return cents == 0
        return self.card != "tok_no_increase" or cents <= self.held_cents

    def _at_the_desk(self, is_right: bool, payment: str | None) -> Reply | None:
        if not self.is_open or self.cancelled_meanwhile:
            return "order_closed"
        if self.status != "ready":
            return "not_ready"
        if self.handing_over:
            return "hand_over_under_way"
        if self.is_shut:
            return "too_many_attempts"
        if not is_right:
            self.wrong_codes += 1
            if self.wrong_codes == WRONG_CODES:
                self.wrong_codes, self.is_shut = 0, True
            return "wrong_pickup_code"
        self.wrong_codes = 0
        return "invalid_input" if payment is None and self.card is None and self.cents else None

    def _pay(self, payment: str | None) -> Reply:
        if payment is None:
            if self.cents:
                if self.card == "tok_hold_lapses" or not self.is_held:
                    self.is_held = False
                    return "hold_lapsed"
                if self.card == "tok_capture_declined":
                    return "payment_declined"
            return self._paid("card" if self.card else "cash", self.card)
        if payment == "short" and self.cents:
            return "invalid_input"
        # The hold is let go before anything else is taken.
        self.is_held = False
        if payment in ("cash", "short"):
            return self._paid("cash", None)
        if payment == "tok_declined" and self.cents:
            return "payment_declined"
        return self._paid("desk_card", payment)

    def _paid(self, by: str, token: str | None) -> Reply:
        self.is_held, self.paid_by, self.paid_token, self.taken_cents = False, by, token, self.cents
        return f"{self.cents} by {by}"


def outcomes(model: Model, acts: Sequence[Act]) -> list[tuple[list[Reply], Model]]:
    """What may come of these acts if they are done at the same time: what each is told, and the order then."""
    found: list[tuple[list[Reply], Model]] = []
    for moments in _interleavings(len(acts)):
        after = deepcopy(model)
        under_way = [act(after) for act in acts]
        told: dict[int, Reply] = {}
        for number in moments:
            if number not in told:
                try:
                    next(under_way[number])
                except StopIteration as end:
                    told[number] = end.value
        found.append(([told[number] for number in range(len(acts))], after))
    return found


def _interleavings(acts: int) -> Iterable[Sequence[int]]:
    """Every order in which the moments of one or two acts may happen."""
    if acts == 1:
        return [[0] * MOMENTS]
    places = range(2 * MOMENTS)
    return [[int(place in of_other) for place in places] for of_other in combinations(places, MOMENTS)]


def difference(one: Any, other: Any) -> dict[str, tuple[Any, Any]]:
    """The fields of two that are not the same."""
    return {
        name: (value, getattr(other, name)) for name, value in vars(one).items() if value != getattr(other, name)
    }

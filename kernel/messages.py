"""The few notions that every domain, workflow and gateway means the same thing by. Pure data, so that workflows
may import it."""

from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from kernel.errors import Refusal

DomainName = Literal["orders", "stores", "payments", "depot"]
"""A domain's name is its schema, its task queue and the prefix of its activities."""

Sku = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,40}$")]
Cents = Annotated[int, Field(ge=0, le=10_000_000_000)]
TotalCents = Annotated[int, Field(ge=0, le=10**15)]
"""A sum of `Cents` over all pieces that an order can have, with room to spare."""
Currency = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]
Quantity = Annotated[int, Field(ge=1, le=99)]
IfMissing = Literal["skip", "substitute", "cancel"]
PaymentMethod = Literal["card", "at_pickup"]


class Message(BaseModel):
    """A command, a reply or a part of one. Immutable; unknown fields are ignored, so that old code reads
    what newer code wrote."""

    model_config = ConfigDict(frozen=True)


class OrderLine(Message):
    """A line as the customer asked for it. `dearer_substitute` allows a substitute that costs more."""

    sku: Sku
    quantity: Quantity
    if_missing: IfMissing = "skip"
    dearer_substitute: bool = False


class PricedLine(Message):
    """A line as the store sold it. The price of one piece is fixed for the order from here on."""

    sku: Sku
    name: str
    store: str
    quantity: int
    unit_price_cents: Cents


class Pieces(Message):
    """So many pieces of a product."""

    sku: Sku
    quantity: int


def pieces_by_sku(lines: Iterable[OrderLine | PricedLine | Pieces]) -> dict[str, int]:
    """How many pieces of each product the lines have together, sorted by sku: the order of all locks."""
    pieces: Counter[str] = Counter()
    for line in lines:
        pieces[line.sku] += line.quantity
    return dict(sorted(pieces.items()))


class Substitution(Message):
    """Pieces of another product instead of missing ones of `sku`. `line` has their price."""

    sku: Sku
    line: PricedLine


class Cancellation(Message):
    """Somebody wants an order undone: who, and why in their words. The mall itself does when nothing of it, or not
    all that it must have, was found. `name` is the member of staff, if one did."""

    by: Literal["customer", "staff", "operator", "mall"]
    reason: str = Field("", max_length=500)
    name: str | None = None


class Expiry(Message):
    """Nobody came for an order within its pickup window, which ended then."""

    pickup_until: AwareDatetime


Reply = TypeVar("Reply")


class Done(Message, Generic[Reply]):
    """What an activity answers: its reply, and how many attempts it took."""

    attempts: int
    reply: Reply


class Failed(Message):
    """What a failed attempt of an activity leaves behind: which it was, why (in a line for operators, as a code of
    the error tree, and in words), the field that broke a rule, and the refusal if it was one."""

    attempts: int
    message: str
    code: str = "internal"
    detail: str = ""
    field: str | None = None
    refusal: Refusal | None = None

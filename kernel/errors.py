"""The tree of errors. Each kind is mapped once to HTTP (`api/problems.py`) and once to Temporal
(`activities/interceptor.py`); nothing else decides what an error means to the outside.

    MallError
    ├── InvalidInput     what was sent breaks a rule
    ├── Unauthenticated  no key, or not one of ours
    ├── Forbidden        the caller may not do that
    ├── NotFound         there is no such thing, or it is not the caller's
    ├── Conflict         the thing is in a state that forbids it
    ├── Refused          a business rule says no to an order; the saga undoes its steps
    ├── TooManyAttempts  shut for a while after too many wrong ones
    ├── Unavailable      a part is away; try again
    └── Misconfigured    a setting is wrong or missing
"""

from typing import ClassVar, Literal

from pydantic import BaseModel

RefusalCode = Literal[
    "unknown_product",
    "store_closed",
    "insufficient_stock",
    "payment_declined",
    "insufficient_funds",
    "hold_lapsed",
    "not_refundable",
    "order_cancelled",
]


class RefusedLine(BaseModel):
    """A line that an order was refused for. `available` is what could be sold, in pieces."""

    sku: str
    quantity: int
    available: int | None = None


class Refusal(BaseModel):
    """Why an order was refused: a code for programs, a sentence for people, the lines if some are to blame."""

    code: RefusalCode
    detail: str
    lines: list[RefusedLine] = []


class MallError(Exception):
    """The root. `code` is stable and for programs; the message is one sentence for people."""

    code: ClassVar[str] = "internal"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidInput(MallError):
    """What was sent breaks a rule. `field` names where, as a path such as `items[3].quantity`."""

    code = "invalid_input"

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class Unauthenticated(MallError):
    """The caller did not show a key, or not one of ours."""

    code = "unauthenticated"


class Forbidden(MallError):
    """The caller is known, and may not do that."""

    code = "forbidden"


class NotFound(MallError):
    """There is no such thing, or it is not the caller's."""

    code = "not_found"


class Conflict(MallError):
    """The thing is in a state that forbids what was asked."""

    code = "conflict"


class IdempotencyKeyReused(Conflict):
    """The same idempotency key came with another request."""

    code = "idempotency_key_reused"


class ShoppingBegan(Conflict):
    """A robot is shopping for the order, so the customer can not cancel it any more."""

    code = "shopping_began"


class NotReady(Conflict):
    """The order is not at the desk."""

    code = "not_ready"


class HandOverUnderWay(Conflict):
    """Another member of staff is handing the order over at this moment."""

    code = "hand_over_under_way"


class NotStuck(Conflict):
    """Nothing is stuck here, or not this, so there is nothing to retry or to skip."""

    code = "not_stuck"


class ListLost(Conflict):
    """The robot does not hold this shopping list (any more): it was silent for too long, or was recalled."""

    code = "list_lost"


class WrongPickupCode(InvalidInput):
    """This is not the order's pickup code."""

    code = "wrong_pickup_code"


class OrderClosed(Conflict):
    """The order has ended (or is being undone), so the step may not happen any more."""

    code = "order_closed"


class Refused(MallError):
    """A business rule says no to an order; `refusal` says which."""

    code = "refused"

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.detail)
        self.refusal = refusal


class TooManyAttempts(MallError):
    """There were too many wrong ones; it is shut for so many seconds."""

    code = "too_many_attempts"

    def __init__(self, message: str, retry_after_seconds: int = 60) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class Unavailable(MallError):
    """A part is away or too slow; trying again later is right."""

    code = "unavailable"


class ConcurrencyConflict(Unavailable):
    """Someone else appended to the stream first; load it again and decide again."""

    code = "concurrency_conflict"


class ProviderTimeout(Unavailable):
    """The payment provider did not answer in time; the call may have taken effect."""

    code = "provider_timeout"


class Misconfigured(MallError):
    """A setting is wrong or missing."""

    code = "misconfigured"

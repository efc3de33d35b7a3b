"""The tree of errors. Each kind is mapped once to HTTP (`api/problems.py`) and once to Temporal
(`activities/interceptor.py`); nothing else decides what an error means to the outside.

    MallError
    ├── InvalidInput     what was sent breaks a rule
    ├── Unauthenticated  no key, or not one of ours
    ├── NotFound         there is no such thing, or it is not the caller's
    ├── Conflict         the thing is in a state that forbids it
    ├── Refused          a business rule says no to an order; the saga undoes its steps
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


class NotFound(MallError):
    """There is no such thing, or it is not the caller's."""

    code = "not_found"


class Conflict(MallError):
    """The thing is in a state that forbids what was asked."""

    code = "conflict"


class IdempotencyKeyReused(Conflict):
    """The same idempotency key came with another request."""

    code = "idempotency_key_reused"


class OrderClosed(Conflict):
    """The order has ended (or is being undone), so the step may not happen any more."""

    code = "order_closed"


class Refused(MallError):
    """A business rule says no to an order; `refusal` says which."""

    code = "refused"

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.detail)
        self.refusal = refusal


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

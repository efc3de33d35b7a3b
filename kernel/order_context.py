"""The order that the work of this moment is about: log lines and spans name it."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final
from uuid import UUID

from opentelemetry import trace

ORDER_ID: Final = "mallbots.order_id"
"""The attribute of spans."""

_order: ContextVar[UUID | None] = ContextVar("order", default=None)


@contextmanager
def about_order(order_id: UUID | None) -> Iterator[None]:
    """What is logged and traced inside the block is about this order; without one, about what it was before."""
    if order_id is None:
        yield
        return
    trace.get_current_span().set_attribute(ORDER_ID, str(order_id))
    token = _order.set(order_id)
    try:
        yield
    finally:
        _order.reset(token)


def current_order() -> UUID | None:
    """The order that this is about, if it is known."""
    return _order.get()

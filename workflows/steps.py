"""Every step of an order beside its undo, with its timeouts and retries.

A step is an activity on its domain's task queue. An attempt that takes longer than `attempt` is given up and
repeated after `first` seconds, then twice as long each time, but never more than `longest`, without end: a step
that stays down keeps the order pending. Only a business refusal ends a step, and it is never retried.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Generic, TypeVar

from temporalio.common import RetryPolicy

from domains.depot.messages import Assignment, CancelledShopping, ShoppingResult
from domains.orders.messages import OrderAnswer, Refund
from domains.payments.messages import Receipt
from domains.stores.messages import Adjustment, Reservation
from kernel.messages import Done

Reply = TypeVar("Reply")

WORKFLOW_QUEUE: Final = "workflows"
PATIENCE: Final = timedelta(minutes=1)
"""How long a step or an undo is tried before the order is shown as stuck. It is tried on all the same."""


@dataclass(frozen=True)
class Step(Generic[Reply]):
    """One row of the table. `undo_if_cancelled` and `undo_if_expired` stand in for `undo` when somebody cancelled
    the order or nobody came for it; `undo_reply` is what each answers.

    A step that `waits` is completed from outside, by a robot: it may take hours without being stuck, and is
    dropped at once when the order is cancelled. A step with a `limit` is given up after so many seconds: its
    caller says what then.
    """

    activity: str
    reply: type[Done[Reply]]
    attempt: float
    first: float
    longest: float
    undo: str | None = None
    undo_if_cancelled: str | None = None
    undo_if_expired: str | None = None
    undo_reply: type[Done[Any]] = Done[None]
    waits: bool = False
    limit: float | None = None

    @property
    def task_queue(self) -> str:
        return self.activity.partition(".")[0]

    @property
    def attempt_timeout(self) -> timedelta:
        return timedelta(seconds=self.attempt)

    @property
    def undos(self) -> frozenset[str]:
        """The activities that undo it, whatever the cause."""
        undos = (self.undo, self.undo_if_cancelled, self.undo_if_expired)
        return frozenset(undo for undo in undos if undo is not None)

    @property
    def retry_policy(self) -> RetryPolicy:
        return RetryPolicy(
            initial_interval=timedelta(seconds=self.first),
            backoff_coefficient=2,
            maximum_interval=timedelta(seconds=self.longest),
        )


SILENCE: Final = timedelta(seconds=30)
"""A robot that was not heard of for so long loses its list, if the order does not say otherwise."""

# fmt: off
#                 step                 answers             seconds: attempt, first, longest      undo
PLACE     = Step("orders.place",       Done[None],                  10, 0.2,  60, undo="orders.reject",
                                                                      undo_if_cancelled="orders.cancel",
                                                                      undo_if_expired="orders.expire",
                                                                      undo_reply=Done[OrderAnswer])
RESERVE   = Step("stores.reserve",     Done[Reservation],           10, 0.2,  60, undo="stores.release")
AUTHORIZE = Step("payments.authorize", Done[None],                  20, 0.5,  60, undo="payments.void")
SCHEDULE  = Step("depot.schedule",     Done[None],                  10, 0.2,  60, undo="depot.cancel",
                                                                      undo_reply=Done[CancelledShopping | None])
APPROVE   = Step("orders.approve",     Done[OrderAnswer],           10, 0.2,  60)
ASSIGN    = Step("depot.assign",       Done[Assignment],           300, 0.2,  60, waits=True)
SHOP      = Step("depot.shop",         Done[ShoppingResult],     86400, 0.2,  60, waits=True)
READY     = Step("orders.ready",       Done[None],                  10, 0.2,  60)
CAPTURE   = Step("payments.capture",   Done[Receipt],               20, 0.5,   5, limit=30)
CONSUME   = Step("stores.consume",     Done[None],                  10, 0.2,  60)
COMPLETE  = Step("orders.complete",    Done[None],                  10, 0.2,  60)

ADJUST_STOCK     = Step("stores.adjust",           Done[Adjustment], 10, 0.2,  60)
ADJUST_PAYMENT   = Step("payments.adjust",         Done[None],       20, 0.5,  60)
DROP_SUBSTITUTES = Step("stores.drop_substitutes", Done[Adjustment], 10, 0.2,  60)
ADJUST_ORDER     = Step("orders.adjust",           Done[None],       10, 0.2,  60)
AMEND            = Step("depot.amend",             Done[None],       10, 0.2,  60)
REMIND           = Step("orders.remind",           Done[None],       10, 0.2,   5, limit=30)

REFUND_ORDER   = Step("orders.refund",   Done[Refund], 10, 0.2,  60, undo="orders.withdraw_refund")
REFUND_PAYMENT = Step("payments.refund", Done[None],   20, 0.5,  60)
# fmt: on

STORY: Final = (PLACE, RESERVE, AUTHORIZE, SCHEDULE, APPROVE, ASSIGN, SHOP, READY, CAPTURE, CONSUME, COMPLETE)
"""The steps of every order's saga."""
IF_MISSING: Final = (ADJUST_STOCK, ADJUST_PAYMENT, DROP_SUBSTITUTES, ADJUST_ORDER, AMEND)
"""What is done besides when a robot does not find something."""
REFUND: Final = (REFUND_ORDER, REFUND_PAYMENT)
"""The steps of a refund."""
UNDOS: Final = frozenset(undo for step in (*STORY, *REFUND) for undo in step.undos)
"""Every activity that undoes a step."""
SKIPPABLE: Final = frozenset(undo for step in STORY if step not in (PLACE, SCHEDULE) for undo in step.undos)
"""The undos that a person may let be skipped when they can never work. What undoes the first step ends the order
in Orders: without it the order would be live for ever. Without that of the shopping robots would go on with it."""

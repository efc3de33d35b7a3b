"""Every step of an order beside its undo, with its timeouts and retries.

A step is an activity on its domain's task queue. An attempt that takes longer than `attempt` is given up and
repeated after `first` seconds, then twice as long each time, but never more than `longest`, without end: a step
that stays down keeps the order pending. Only a business refusal ends a step, and it is never retried.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Generic, TypeVar

from temporalio.common import RetryPolicy

from domains.orders.messages import OrderAnswer
from domains.stores.messages import Reservation
from kernel.messages import Done

Reply = TypeVar("Reply")

WORKFLOW_QUEUE: Final = "workflows"
PATIENCE: Final = timedelta(minutes=1)
"""How long a step or an undo is tried before the order is shown as stuck. It is tried on all the same."""


@dataclass(frozen=True)
class Step(Generic[Reply]):
    """One row of the table. `undo_if_cancelled` stands in for `undo` when somebody cancelled the order;
    `undo_reply` is what either answers."""

    activity: str
    reply: type[Done[Reply]]
    attempt: float
    first: float
    longest: float
    undo: str | None = None
    undo_if_cancelled: str | None = None
    undo_reply: type[Done[Any]] = Done[None]

    @property
    def task_queue(self) -> str:
        return self.activity.partition(".")[0]

    @property
    def attempt_timeout(self) -> timedelta:
        return timedelta(seconds=self.attempt)

    @property
    def retry_policy(self) -> RetryPolicy:
        return RetryPolicy(
            initial_interval=timedelta(seconds=self.first),
            backoff_coefficient=2,
            maximum_interval=timedelta(seconds=self.longest),
        )


# fmt: off
#                 step                 answers                 seconds: attempt, first, longest      undo
PLACE     = Step("orders.place",       Done[None],                      10, 0.2,  60, undo="orders.reject",
                                                                          undo_if_cancelled="orders.cancel",
                                                                          undo_reply=Done[OrderAnswer])
RESERVE   = Step("stores.reserve",     Done[Reservation],               10, 0.2,  60, undo="stores.release")
AUTHORIZE = Step("payments.authorize", Done[None],                      20, 0.5,  60, undo="payments.void")
SCHEDULE  = Step("depot.schedule",     Done[None],                      10, 0.2,  60, undo="depot.cancel")
APPROVE   = Step("orders.approve",     Done[OrderAnswer],               10, 0.2,  60)
# fmt: on

STORY: Final = (PLACE, RESERVE, AUTHORIZE, SCHEDULE, APPROVE)

"""What is said to the order's workflow, and what it tells of itself."""

from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from pydantic import BaseModel

from domains.orders.messages import Refund
from domains.payments.messages import DeskPayment, Payment, Receipt
from kernel.errors import Refusal
from kernel.messages import Cancellation, Expiry, Message, OrderLine, Pieces
from workflows.steps import SILENCE

Cause = Refusal | Cancellation | Expiry
"""Why a saga is undone."""


class PickupRules(Message):
    """How long an order waits at the desk until it expires, and after which times its customer is reminded."""

    window: timedelta = timedelta(hours=24)
    reminders: list[timedelta] = [timedelta(hours=2), timedelta(hours=20)]


class OrderRequest(Message):
    """An order as a kiosk sent it, with the rules of the mall for it. `order_id` is made once for each idempotency
    key; `silence` is how long a robot may be silent until it loses the list."""

    order_id: UUID
    kiosk: str
    customer: str | None
    lines: list[OrderLine]
    payment: Payment
    currency: str
    pickup: PickupRules = PickupRules()
    silence: timedelta = SILENCE


class OrderOutcome(Message):
    """How an order ended: completed with a receipt, or undone for a cause."""

    order_id: UUID
    status: Literal["completed", "rejected", "cancelled", "expired"]
    cause: Cause | None = None
    receipt: Receipt | None = None


class HandOver(Message):
    """A member of staff hands the order over to whoever says its pickup code. `payment` is what is paid at the
    desk; without one the card's hold is captured."""

    pickup_code: str
    payment: DeskPayment | None = None
    by: str


class SkipUndo(Message):
    """A person (`by`) says that this undo can never work, and why the saga is to go on without it."""

    activity: str
    reason: str
    by: str


class RefundOutcome(Message):
    """How a refund ended: what was given back, or why nothing was. `asked` is what was asked for."""

    refund_id: UUID
    asked: list[Pieces] | None
    refund: Refund | None = None
    refusal: Refusal | None = None


StepState = Literal["planned", "running", "done", "refused", "failed", "cancelled", "skipped"]


class ActionAccount(BaseModel):
    """One activity's part in the saga: `error` is the last failure known, also of one that is being retried or was
    skipped. `attempts` counts from when somebody last let it be retried at once; `next_attempt_at` is told while
    it waits for the next."""

    activity: str
    state: StepState = "planned"
    attempts: int = 0
    started_at: datetime | None = None
    finished_at: datetime | None = None
    error: str | None = None
    next_attempt_at: datetime | None = None
    skipped_by: str | None = None
    skipped_because: str | None = None


class StepAccount(ActionAccount):
    """A step of the saga; `undo` is there once it is registered, which is before the step begins."""

    undo: ActionAccount | None = None


class SagaAccount(BaseModel):
    """The workflow's own account of an order: every step in the order of the story, and why it is undone. `picked`
    of `pieces` were brought or reported so far, as far as the workflow was told."""

    order_id: UUID
    status: Literal[
        "pending",
        "approved",
        "shopping",
        "ready",
        "handing_over",
        "undoing",
        "completed",
        "rejected",
        "cancelled",
        "expired",
    ]
    stuck: str | None = None
    cause: Cause | None = None
    robot: str | None = None
    picked: int | None = None
    pieces: int | None = None
    pickup_until: datetime | None = None
    steps: list[StepAccount]


class RefundAccount(BaseModel):
    """The workflow's own account of a refund."""

    order_id: UUID
    refund_id: UUID
    stuck: str | None = None
    steps: list[StepAccount]

"""What is said to the order's workflow, and what it tells of itself."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import BaseModel

from domains.payments.messages import Payment
from kernel.errors import Refusal
from kernel.messages import Cancellation, Message, OrderLine

Cause = Refusal | Cancellation
"""Why a saga is undone."""


class OrderRequest(Message):
    """An order as a kiosk sent it. `order_id` is made once for each idempotency key."""

    order_id: UUID
    kiosk: str
    customer: str | None
    lines: list[OrderLine]
    payment: Payment
    currency: str


class OrderOutcome(Message):
    """How an order ended."""

    order_id: UUID
    status: Literal["rejected", "cancelled"]
    cause: Cause


StepState = Literal["planned", "running", "done", "refused", "cancelled"]


class ActionAccount(BaseModel):
    """One activity's part in the saga: `error` is the last failure known, also of one that is being retried."""

    activity: str
    state: StepState = "planned"
    attempts: int = 0
    started_at: datetime | None = None
    finished_at: datetime | None = None
    error: str | None = None


class StepAccount(ActionAccount):
    """A step of the saga; `undo` is there once it is registered, which is before the step begins."""

    undo: ActionAccount | None = None


class SagaAccount(BaseModel):
    """The workflow's own account of an order: every step in the order of the story, and why it is undone."""

    order_id: UUID
    status: Literal["pending", "approved", "undoing", "rejected", "cancelled"]
    stuck: str | None = None
    cause: Cause | None = None
    steps: list[StepAccount]

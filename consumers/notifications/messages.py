"""What a customer is told, and how far the telling is."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from kernel.messages import Message

NotificationKind = Literal[
    "received", "adjusted", "ready", "reminder", "expired", "cancelled", "refunded", "refund_failed"
]
NotificationStatus = Literal["pending", "sent", "failed"]


class Notification(Message):
    """One thing to tell a customer. `id` is that of the event it comes from, `created_at` is when that was
    recorded, and `text` is for people. The pickup code is there once the order has one."""

    id: UUID
    kind: NotificationKind
    order_id: UUID
    customer: str
    kiosk: str
    pickup_code: str | None
    text: str
    created_at: datetime


class NotificationView(Notification):
    """A notification as operators see it. `due_at` is when it is tried (again) while it is pending, `error` why
    the last attempt failed."""

    status: NotificationStatus
    attempts: int
    due_at: datetime
    sent_at: datetime | None
    error: str | None

"""The tables of the notifications."""

from datetime import datetime
from typing import Any, Final, get_args
from uuid import UUID

from sqlalchemy import CheckConstraint, DateTime, Index, SmallInteger, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from consumers.notifications.messages import NotificationKind
from events.tables import consumer_tables

SCHEMA: Final = "notifications"


def _now_by_default() -> Any:
    return Field(
        default=None,
        sa_type=DateTime(timezone=True),
        nullable=False,
        sa_column_kwargs={"server_default": func.now()},
    )


def _empty_by_default() -> Any:
    return Field(
        default={}, sa_type=JSONB, nullable=False, sa_column_kwargs={"server_default": text("'{}'::jsonb")}
    )


class OrderCopyRow(SQLModel, table=True):
    """What a notification tells of an order: a copy, fed by the events of Orders. It has the `names` of products
    by sku, and the cents of `refunds` by their ids."""

    __tablename__ = "orders"
    __table_args__ = {"schema": SCHEMA}

    order_id: UUID = Field(primary_key=True)
    customer: str | None
    kiosk: str
    pickup_code: str | None = None
    currency: str | None = None
    names: dict[str, str] = _empty_by_default()
    refunds: dict[str, int] = _empty_by_default()


class NotificationRow(SQLModel, table=True):
    """A notification, which is also the outbox of its job.

    It is tried when it is pending and due; whoever tries it first moves `due_at` to when it may be tried by
    another, so that no two try it at once. `handed_out_at` is when its job was last known to be on the work queue,
    `resends` how often somebody sent it again, `trace_context` the trace of the event that it tells of.
    """

    __tablename__ = "notifications"
    __table_args__ = (
        CheckConstraint(f"kind IN {get_args(NotificationKind)}", name="known_kind"),
        CheckConstraint("status IN ('pending', 'sent', 'failed')", name="known_status"),
        Index("ix_notifications_pending", "handed_out_at", postgresql_where=text("status = 'pending'")),
        Index("ix_notifications_order", "order_id", "id"),
        Index("ix_notifications_failed", "id", postgresql_where=text("status = 'failed'")),
        {"schema": SCHEMA},
    )

    id: UUID = Field(primary_key=True)
    kind: str
    order_id: UUID = Field(foreign_key="notifications.orders.order_id")
    customer: str
    kiosk: str
    pickup_code: str | None = None
    text: str
    created_at: datetime = Field(sa_type=DateTime(timezone=True))
    status: str = Field(default="pending", sa_column_kwargs={"server_default": "pending"})
    attempts: int = Field(default=0, sa_type=SmallInteger, sa_column_kwargs={"server_default": "0"})
    resends: int = Field(default=0, sa_type=SmallInteger, sa_column_kwargs={"server_default": "0"})
    due_at: datetime | None = _now_by_default()
    handed_out_at: datetime | None = Field(default=None, sa_type=DateTime(timezone=True))
    sent_at: datetime | None = Field(default=None, sa_type=DateTime(timezone=True))
    error: str | None = None
    trace_context: dict[str, Any] | None = Field(default=None, sa_type=JSONB)


CONSUMERS: Final = consumer_tables(SCHEMA)

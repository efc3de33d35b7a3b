"""The tables of Analytics: facts under the keys of the business, so that an event that comes twice changes
nothing. They are summed up when they are read."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, DateTime, Index
from sqlmodel import Field, SQLModel

from events.tables import consumer_tables

SCHEMA = "analytics"


def _maybe_at() -> Any:
    return Field(default=None, sa_type=DateTime(timezone=True))


class OrderRow(SQLModel, table=True):
    """When an order reached each point of its story. `sold_version` is that of the event whose lines it sells."""

    __tablename__ = "orders"
    __table_args__ = (Index("ix_orders_placed_at", "placed_at"), {"schema": SCHEMA})

    order_id: UUID = Field(primary_key=True)
    kiosk: str
    currency: str
    placed_at: datetime = Field(sa_type=DateTime(timezone=True))
    approved_at: datetime | None = _maybe_at()
    rejected_at: datetime | None = _maybe_at()
    refusal_code: str | None = None
    cancelled_at: datetime | None = _maybe_at()
    ready_at: datetime | None = _maybe_at()
    completed_at: datetime | None = _maybe_at()
    expired_at: datetime | None = _maybe_at()
    sold_version: int | None = None


class SaleLineRow(SQLModel, table=True):
    """A line of an approved order that has not ended without a sale, as it can be had."""

    __tablename__ = "sale_lines"
    __table_args__ = (Index("ix_sale_lines_sold_at", "sold_at"), {"schema": SCHEMA})

    order_id: UUID = Field(primary_key=True)
    line: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    store: str
    sku: str
    quantity: int
    cents: int = Field(sa_type=BigInteger)
    currency: str
    sold_at: datetime = Field(sa_type=DateTime(timezone=True))


class RefundLineRow(SQLModel, table=True):
    """Pieces that money was given back for, unless that was withdrawn. `sold_at` is when they had been sold."""

    __tablename__ = "refund_lines"
    __table_args__ = (Index("ix_refund_lines_sold_at", "sold_at"), {"schema": SCHEMA})

    refund_id: UUID = Field(primary_key=True)
    line: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    order_id: UUID
    store: str
    sku: str
    quantity: int
    cents: int = Field(sa_type=BigInteger)
    currency: str
    sold_at: datetime = Field(sa_type=DateTime(timezone=True))
    withdrawn_at: datetime | None = _maybe_at()


class MissingItemRow(SQLModel, table=True):
    """Pieces that a robot did not find."""

    __tablename__ = "missing_items"
    __table_args__ = (Index("ix_missing_items_missing_at", "missing_at"), {"schema": SCHEMA})

    event_id: UUID = Field(primary_key=True)
    order_id: UUID
    store: str
    sku: str
    name: str
    quantity: int
    missing_at: datetime = Field(sa_type=DateTime(timezone=True))


class PickRow(SQLModel, table=True):
    """Pieces that a robot picked."""

    __tablename__ = "picks"
    __table_args__ = (Index("ix_picks_picked_at", "picked_at"), {"schema": SCHEMA})

    event_id: UUID = Field(primary_key=True)
    robot: str
    quantity: int
    picked_at: datetime = Field(sa_type=DateTime(timezone=True))


class RobotShiftRow(SQLModel, table=True):
    """From when to when a robot was online. `version` is that of the event that says so, in the robot's stream."""

    __tablename__ = "robot_shifts"
    __table_args__ = {"schema": SCHEMA}

    robot: str = Field(primary_key=True)
    version: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    online_at: datetime = Field(sa_type=DateTime(timezone=True))
    offline_at: datetime | None = _maybe_at()


class RobotListRow(SQLModel, table=True):
    """From when to when a robot had an order's list. `version` is that of the event that says so, in the list's
    stream: a list that a robot loses is given to another."""

    __tablename__ = "robot_lists"
    __table_args__ = {"schema": SCHEMA}

    order_id: UUID = Field(primary_key=True)
    version: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    robot: str
    assigned_at: datetime = Field(sa_type=DateTime(timezone=True))
    ended_at: datetime | None = _maybe_at()
    completed: bool = False


CONSUMERS = consumer_tables(SCHEMA)

"""The table of the audit trail."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import DateTime, Index
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from events.tables import consumer_tables

SCHEMA = "trail"


class EntryRow(SQLModel, table=True):
    """One event, told as an act of somebody. `order_id` is that of the order that it is about, if of one."""

    __tablename__ = "entries"
    __table_args__ = (
        Index("ix_entries_order_id", "order_id", "recorded_at"),
        Index("ix_entries_stream", "stream", "version"),
        {"schema": SCHEMA},
    )

    event_id: UUID = Field(primary_key=True)
    order_id: UUID | None = None
    recorded_at: datetime = Field(sa_type=DateTime(timezone=True))
    who: str
    what: str
    domain: str
    event: str
    stream: str
    version: int
    causation_id: str | None = None
    data: dict[str, Any] = Field(sa_type=JSONB)


CONSUMERS = consumer_tables(SCHEMA)

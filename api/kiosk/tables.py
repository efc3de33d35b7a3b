"""The tables of the kiosk gateway: who may order, and what each kiosk has ordered under which key."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import DateTime, Index, func
from sqlmodel import Field, SQLModel

from api.keys import ApiKeyColumns

SCHEMA = "kiosks"


class ApiKeyRow(ApiKeyColumns, table=True):
    """A key of a kiosk."""

    __tablename__ = "api_keys"
    __table_args__ = (Index("ix_api_keys_name", "name"), {"schema": SCHEMA})


class IdempotencyKeyRow(SQLModel, table=True):
    """The one order that a kiosk's idempotency key stands for; also the record of whose order it is."""

    __tablename__ = "idempotency_keys"
    __table_args__ = {"schema": SCHEMA}

    kiosk: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    request_hash: str
    order_id: UUID = Field(unique=True)
    created_at: datetime | None = Field(
        default=None,
        sa_type=DateTime(timezone=True),
        nullable=False,
        sa_column_kwargs={"server_default": func.now()},
    )

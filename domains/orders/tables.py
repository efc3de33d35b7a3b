"""The tables of Orders: the event store, and one row an order to find orders by."""

from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import BigInteger, DateTime, Index, func, literal_column, text
from sqlmodel import Field, SQLModel

from events.store import EventRow, event_table_args
from events.tables import archive_tables, consumer_tables, relay_tables
from kernel.messages import DomainName

SCHEMA: Final[DomainName] = "orders"


class OrdersEvent(EventRow, table=True):
    """The event store of Orders, and its outbox."""

    __tablename__ = "events"
    __table_args__ = event_table_args(SCHEMA)


class OrderRow(SQLModel, table=True):
    """A projection of an order's stream, written with its events. `version` is the stream's."""

    __tablename__ = "orders"
    __table_args__ = (
        Index(
            "uq_orders_open_pickup_code",
            "pickup_code",
            unique=True,
            postgresql_where=text("status IN ('approved', 'ready')"),
        ),
        Index("ix_orders_pickup_code", "pickup_code"),
        Index("ix_orders_status", "status"),
        Index(
            "ix_orders_customer",
            func.lower(literal_column("customer")).label("name"),
            postgresql_ops={"name": "text_pattern_ops"},
        ),
        Index("ix_orders_kiosk", "kiosk", "id"),
        {"schema": SCHEMA},
    )

    id: UUID = Field(primary_key=True)
    kiosk: str
    customer: str | None
    status: str
    currency: str
    total_cents: int | None = Field(default=None, sa_type=BigInteger)
    pickup_code: str | None = None
    version: int
    placed_at: datetime = Field(sa_type=DateTime(timezone=True))
    updated_at: datetime | None = Field(
        default=None,
        sa_type=DateTime(timezone=True),
        nullable=False,
        sa_column_kwargs={"server_default": func.now()},
    )


class ProductCopyRow(SQLModel, table=True):
    """Orders' copy of a product's name, fed by the events of Stores."""

    __tablename__ = "products"
    __table_args__ = {"schema": SCHEMA}

    sku: str = Field(primary_key=True)
    name: str


ARCHIVE = archive_tables(SCHEMA)
RELAY = relay_tables(SCHEMA)
CONSUMERS = consumer_tables(SCHEMA)

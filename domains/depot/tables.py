"""The tables of Depot."""

from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import CheckConstraint, DateTime, func
from sqlmodel import Field, SQLModel

from events.store import EventRow, event_table_args
from events.tables import consumer_tables, relay_tables
from kernel.messages import DomainName

SCHEMA: Final[DomainName] = "depot"


class DepotEvent(EventRow, table=True):
    """The event store of Depot, and its outbox."""

    __tablename__ = "events"
    __table_args__ = event_table_args(SCHEMA)


class ShoppingListRow(SQLModel, table=True):
    """The list of an order: `scheduled`, or `cancelled` (also before it was scheduled, so that a schedule that
    comes late finds the door shut)."""

    __tablename__ = "shopping_lists"
    __table_args__ = (
        CheckConstraint("status IN ('scheduled', 'cancelled')", name="known_status"),
        {"schema": SCHEMA},
    )

    order_id: UUID = Field(primary_key=True)
    status: str
    changed_at: datetime | None = Field(
        default=None,
        sa_type=DateTime(timezone=True),
        nullable=False,
        sa_column_kwargs={"server_default": func.now()},
    )


class ShoppingListItemRow(SQLModel, table=True):
    """So many pieces of a product to pick. `stop` counts the stores of a list from 1."""

    __tablename__ = "shopping_list_items"
    __table_args__ = (CheckConstraint("quantity > 0", name="quantity_positive"), {"schema": SCHEMA})

    order_id: UUID = Field(primary_key=True, foreign_key="depot.shopping_lists.order_id")
    stop: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    sku: str = Field(primary_key=True)
    store: str
    name: str
    quantity: int


class StoreCopyRow(SQLModel, table=True):
    """Depot's copy of a store, fed by the events of Stores."""

    __tablename__ = "stores"
    __table_args__ = {"schema": SCHEMA}

    store_id: UUID = Field(primary_key=True)
    name: str


class ProductCopyRow(SQLModel, table=True):
    """Depot's copy of a product, fed by the events of Stores."""

    __tablename__ = "products"
    __table_args__ = {"schema": SCHEMA}

    sku: str = Field(primary_key=True)
    store_id: UUID
    name: str


RELAY = relay_tables(SCHEMA)
CONSUMERS = consumer_tables(SCHEMA)

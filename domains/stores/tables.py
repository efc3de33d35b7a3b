"""The tables of Stores. Stock has a table of its own: its rows are locked and rewritten by every order."""

from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Computed, DateTime, Index, func
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlmodel import Field, SQLModel

from events.store import EventRow, event_table_args
from events.tables import relay_tables
from kernel.messages import DomainName

SCHEMA: Final[DomainName] = "stores"
# PostgreSQL's own parser keeps "14.5" and "salsa/dip" as one word each; people do not.
WORDS = r"to_tsvector('simple', regexp_replace(name || ' ' || brand, '[\W_]+', ' ', 'g'))"


class StoresEvent(EventRow, table=True):
    """The event store of Stores, and its outbox."""

    __tablename__ = "events"
    __table_args__ = event_table_args(SCHEMA)


class StoreRow(SQLModel, table=True):
    """A store of the mall."""

    __tablename__ = "stores"
    __table_args__ = {"schema": SCHEMA}

    id: UUID = Field(primary_key=True)
    name: str = Field(unique=True)
    open: bool


class ProductRow(SQLModel, table=True):
    """A product of a store; `search` holds its words."""

    __tablename__ = "products"
    __table_args__ = (
        Index("ix_products_search", "search", postgresql_using="gin"),
        Index("ix_products_store_id_sku", "store_id", "sku"),
        CheckConstraint("price_cents >= 0", name="price_not_negative"),
        {"schema": SCHEMA},
    )

    sku: str = Field(primary_key=True)
    store_id: UUID = Field(foreign_key="stores.stores.id")
    name: str
    brand: str
    price_cents: int = Field(sa_type=BigInteger)
    currency: str
    search: str | None = Field(
        default=None,
        sa_type=TSVECTOR,
        sa_column_args=(Computed(WORDS, persisted=True),),
    )


class StockRow(SQLModel, table=True):
    """How many pieces of a product are on the shelf, and how many of these are held for orders."""

    __tablename__ = "stock"
    __table_args__ = (
        CheckConstraint("reserved BETWEEN 0 AND on_hand", name="reserved_within_on_hand"),
        {"schema": SCHEMA},
    )

    sku: str = Field(primary_key=True, foreign_key="stores.products.sku")
    on_hand: int
    reserved: int = 0


class ReservationRow(SQLModel, table=True):
    """What Stores knows of an order: `held`, or `released` (also before anything was held, so that a reserve
    that comes late finds the door shut)."""

    __tablename__ = "reservations"
    __table_args__ = (
        CheckConstraint("status IN ('held', 'released')", name="known_status"),
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


class ReservationLineRow(SQLModel, table=True):
    """A line held for an order as it was asked for, with the name and price that it was given."""

    __tablename__ = "reservation_lines"
    __table_args__ = (
        Index("ix_reservation_lines_sku", "sku"),
        CheckConstraint("quantity > 0", name="quantity_positive"),
        {"schema": SCHEMA},
    )

    order_id: UUID = Field(primary_key=True, foreign_key="stores.reservations.order_id")
    line: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    sku: str = Field(foreign_key="stores.products.sku")
    name: str
    store: str
    quantity: int
    unit_price_cents: int = Field(sa_type=BigInteger)


RELAY = relay_tables(SCHEMA)

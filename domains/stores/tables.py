"""The tables of Stores. Stock has a table of its own: its rows are locked and rewritten by every order."""

from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Computed, DateTime, Index, String, false, func, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TSVECTOR
from sqlmodel import Field, SQLModel

from events.store import EventRow, event_table_args
from events.tables import archive_tables, consumer_tables, relay_tables
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
    """A product of a store; `search` holds its words, `alternatives` are skus. One that is `removed` is not sold
    any more, and stays for the orders that have it."""

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
    alternatives: list[str] = Field(sa_type=ARRAY(String), sa_column_kwargs={"server_default": text("'{}'")})
    removed: bool = Field(default=False, sa_column_kwargs={"server_default": false()})
    search: str | None = Field(
        default=None,
        sa_type=TSVECTOR,
        sa_column_args=(Computed(WORDS, persisted=True),),
    )


class StockRow(SQLModel, table=True):
    """How many pieces of a product are on the shelf, and how many of these are held for orders. When no more than
    `low_at` are left beside them, they are few; 0 never says so."""

    __tablename__ = "stock"
    __table_args__ = (
        CheckConstraint("low_at >= 0", name="low_at_not_negative"),
        CheckConstraint("reserved BETWEEN 0 AND on_hand", name="reserved_within_on_hand"),
        {"schema": SCHEMA},
    )

    sku: str = Field(primary_key=True, foreign_key="stores.products.sku")
    on_hand: int
    reserved: int = 0
    low_at: int = Field(default=5, sa_column_kwargs={"server_default": text("5")})


class ReservationRow(SQLModel, table=True):
    """What Stores knows of an order: `held`, `consumed`, or `released` (also before anything was held, so that a
    reserve that comes late finds the door shut)."""

    __tablename__ = "reservations"
    __table_args__ = (
        CheckConstraint("status IN ('held', 'released', 'consumed')", name="known_status"),
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
    """A line held for an order, with the name and price that it was given. `line` counts the lines as they were
    asked for from 1, and on with their substitutes. `missing` pieces of it were not found; a line of 0 pieces is
    not held any more. A substitute says for which line it stands, and of which round of adjustment it is."""

    __tablename__ = "reservation_lines"
    __table_args__ = (
        Index("ix_reservation_lines_sku", "sku"),
        CheckConstraint("quantity >= 0", name="quantity_not_negative"),
        CheckConstraint("missing >= 0", name="missing_not_negative"),
        {"schema": SCHEMA},
    )

    order_id: UUID = Field(primary_key=True, foreign_key="stores.reservations.order_id")
    line: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    sku: str = Field(foreign_key="stores.products.sku")
    name: str
    store: str
    quantity: int
    unit_price_cents: int = Field(sa_type=BigInteger)
    missing: int = Field(default=0, sa_column_kwargs={"server_default": text("0")})
    instead_of: int | None = None
    round: int | None = None


class AdjustmentRow(SQLModel, table=True):
    """What was answered to an adjustment, for its repeats."""

    __tablename__ = "adjustments"
    __table_args__ = {"schema": SCHEMA}

    order_id: UUID = Field(primary_key=True, foreign_key="stores.reservations.order_id")
    round: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    reply: dict[str, Any] = Field(sa_type=JSONB)


class CarriedRow(SQLModel, table=True):
    """Pieces of an order that ended: a robot carried `quantity` of them then, and `returned` are back on the
    shelf, which may be told before the end of the order is. What is not back yet is still reserved."""

    __tablename__ = "carried"
    __table_args__ = (
        CheckConstraint("quantity >= 0", name="quantity_not_negative"),
        {"schema": SCHEMA},
    )

    order_id: UUID = Field(primary_key=True, foreign_key="stores.reservations.order_id")
    sku: str = Field(primary_key=True)
    quantity: int
    returned: int


class ReceiptRow(SQLModel, table=True):
    """A delivery of a product, so that a repeat is the same delivery."""

    __tablename__ = "receipts"
    __table_args__ = {"schema": SCHEMA}

    sku: str = Field(primary_key=True, foreign_key="stores.products.sku")
    receipt: str = Field(primary_key=True)
    quantity: int
    received_by: str
    received_at: datetime | None = Field(
        default=None,
        sa_type=DateTime(timezone=True),
        nullable=False,
        sa_column_kwargs={"server_default": func.now()},
    )


ARCHIVE = archive_tables(SCHEMA)
RELAY = relay_tables(SCHEMA)
CONSUMERS = consumer_tables(SCHEMA)

"""The tables of Depot."""

from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import CheckConstraint, DateTime, Index, func, text
from sqlmodel import Field, SQLModel

from events.store import EventRow, event_table_args
from events.tables import archive_tables, consumer_tables, relay_tables
from kernel.messages import DomainName

SCHEMA: Final[DomainName] = "depot"


class DepotEvent(EventRow, table=True):
    """The event store of Depot, and its outbox."""

    __tablename__ = "events"
    __table_args__ = event_table_args(SCHEMA)


class RobotRow(SQLModel, table=True):
    """A robot. Whether it is busy, its list says. `session` is its newest stream.

    `status` is what the robot itself wants; since `held_since`, if that is set, `held_by` of the staff lets it
    rest.
    """

    __tablename__ = "robots"
    __table_args__ = (
        CheckConstraint("status IN ('offline', 'idle', 'on_break', 'retired')", name="known_status"),
        {"schema": SCHEMA},
    )

    name: str = Field(primary_key=True)
    status: str
    session: UUID | None = None
    registered_at: datetime | None = Field(
        default=None,
        sa_type=DateTime(timezone=True),
        nullable=False,
        sa_column_kwargs={"server_default": func.now()},
    )
    last_heard_at: datetime | None = Field(default=None, sa_type=DateTime(timezone=True))
    held_by: str | None = None
    held_since: datetime | None = Field(default=None, sa_type=DateTime(timezone=True))


class ShoppingListRow(SQLModel, table=True):
    """The list of an order; `cancelled` also before it was scheduled, so that a schedule that comes late finds the
    door shut.

    `robot` is who has it; of a released one, who lost it; of a cancelled one, who had it then, and has to take
    back what it carries until `returned_at`. `assign_round` and `shop_round` are the steps that were told to
    wait. `amended` counts the words on missing items. `reason` is why it was cancelled. `recalled_at` is when
    staff took it from its robot last.
    """

    __tablename__ = "shopping_lists"
    __table_args__ = (
        CheckConstraint(
            "status IN ('scheduled', 'released', 'assigned', 'collected', 'completed', 'cancelled')",
            name="known_status",
        ),
        Index(
            "ix_shopping_lists_released",
            "released_at",
            "order_id",
            postgresql_where=text("status = 'released'"),
        ),
        Index(
            "uq_shopping_lists_robot",
            "robot",
            unique=True,
            postgresql_where=text(
                "status IN ('assigned', 'collected') OR (status = 'cancelled' AND returned_at IS NULL)"
            ),
        ),
        Index("ix_shopping_lists_status", "status", "order_id"),
        {"schema": SCHEMA},
    )

    order_id: UUID = Field(primary_key=True)
    status: str
    robot: str | None = Field(default=None, foreign_key="depot.robots.name")
    released_at: datetime | None = Field(default=None, sa_type=DateTime(timezone=True))
    assign_round: int | None = None
    shop_round: int | None = None
    amended: int = Field(default=0, sa_column_kwargs={"server_default": text("0")})
    reason: str | None = None
    returned_at: datetime | None = Field(default=None, sa_type=DateTime(timezone=True))
    recalled_at: datetime | None = Field(default=None, sa_type=DateTime(timezone=True))
    changed_at: datetime | None = Field(
        default=None,
        sa_type=DateTime(timezone=True),
        nullable=False,
        sa_column_kwargs={"server_default": func.now()},
    )


class ShoppingListItemRow(SQLModel, table=True):
    """So many pieces of a product to pick, and what became of them. `stop` counts the stops of a list from 1;
    `round` is the word on missing items that added it, 0 if it was there from the start."""

    __tablename__ = "shopping_list_items"
    __table_args__ = (
        CheckConstraint("quantity > 0", name="quantity_positive"),
        CheckConstraint(
            "(picked IS NULL AND missing IS NULL)"
            " OR (picked >= 0 AND missing >= 0 AND picked + missing = quantity)",
            name="reported_in_full",
        ),
        {"schema": SCHEMA},
    )

    order_id: UUID = Field(primary_key=True, foreign_key="depot.shopping_lists.order_id")
    stop: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    sku: str = Field(primary_key=True)
    store: str
    name: str
    quantity: int
    round: int = Field(default=0, sa_column_kwargs={"server_default": text("0")})
    picked: int | None = None
    missing: int | None = None


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


ARCHIVE = archive_tables(SCHEMA)
RELAY = relay_tables(SCHEMA)
CONSUMERS = consumer_tables(SCHEMA)

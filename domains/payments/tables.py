"""The tables of Payments: the event store, one row a payment to find payments by, and what has to be known to take
money once."""

from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import BigInteger, DateTime, Index, false, func
from sqlmodel import Field, SQLModel

from events.store import EventRow, event_table_args
from events.tables import archive_tables, relay_tables
from kernel.messages import DomainName

SCHEMA: Final[DomainName] = "payments"


class PaymentsEvent(EventRow, table=True):
    """The event store of Payments, and its outbox."""

    __tablename__ = "events"
    __table_args__ = event_table_args(SCHEMA)


class PaymentRow(SQLModel, table=True):
    """A projection of a payment's stream, written with its events. `version` is the stream's; `authorized_cents`
    is what is held or due now."""

    __tablename__ = "payments"
    __table_args__ = {"schema": SCHEMA}

    order_id: UUID = Field(primary_key=True)
    status: str
    method: str | None = None
    authorized_cents: int | None = Field(default=None, sa_type=BigInteger)
    currency: str | None = None
    hold_lapsed: bool = Field(default=False, sa_column_kwargs={"server_default": false()})
    captured_cents: int = Field(default=0, sa_type=BigInteger, sa_column_kwargs={"server_default": "0"})
    settled_by: str | None = None
    refunded_cents: int = Field(default=0, sa_type=BigInteger, sa_column_kwargs={"server_default": "0"})
    version: int


class DeskRow(SQLModel, table=True):
    """The latest attempt to take money for an order, and whether any more may follow; see `Desk`."""

    __tablename__ = "desks"
    __table_args__ = {"schema": SCHEMA}

    order_id: UUID = Field(primary_key=True)
    attempt: int
    closed: bool


class ProviderEventRow(SQLModel, table=True):
    """An event of the payment provider that had its effect."""

    __tablename__ = "provider_events"
    __table_args__ = {"schema": SCHEMA}

    id: str = Field(primary_key=True)
    noted_at: datetime | None = Field(
        default=None,
        sa_type=DateTime(timezone=True),
        nullable=False,
        sa_column_kwargs={"server_default": func.now()},
    )


class StripeIntentRow(SQLModel, table=True):
    """A PaymentIntent at Stripe: the hold of an order, or a charge at the desk (in which `attempt`). It is written
    before the card is used, so that none is ever lost."""

    __tablename__ = "stripe_intents"
    __table_args__ = (Index("ix_stripe_intents_order_id", "order_id"), {"schema": SCHEMA})

    idempotency_key: str = Field(primary_key=True)
    intent_id: str = Field(unique=True)
    order_id: UUID
    attempt: int | None = None
    amount_cents: int = Field(sa_type=BigInteger)
    currency: str


ARCHIVE = archive_tables(SCHEMA)
RELAY = relay_tables(SCHEMA)

"""The tables of Payments: the event store, and one row a payment to find payments by."""

from typing import Final
from uuid import UUID

from sqlalchemy import BigInteger
from sqlmodel import Field, SQLModel

from events.store import EventRow, event_table_args
from events.tables import relay_tables
from kernel.messages import DomainName

SCHEMA: Final[DomainName] = "payments"


class PaymentsEvent(EventRow, table=True):
    """The event store of Payments, and its outbox."""

    __tablename__ = "events"
    __table_args__ = event_table_args(SCHEMA)


class PaymentRow(SQLModel, table=True):
    """A projection of a payment's stream, written with its events. `version` is the stream's."""

    __tablename__ = "payments"
    __table_args__ = {"schema": SCHEMA}

    order_id: UUID = Field(primary_key=True)
    status: str
    method: str | None = None
    authorized_cents: int | None = Field(default=None, sa_type=BigInteger)
    currency: str | None = None
    version: int


RELAY = relay_tables(SCHEMA)

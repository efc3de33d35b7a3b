"""The tables of Payments: the event store, and one row a payment to find payments by."""

from uuid import UUID

from sqlalchemy import BigInteger, UniqueConstraint
from sqlmodel import Field, SQLModel

from events.store import EventRow

SCHEMA = "payments"


class PaymentsEvent(EventRow, table=True):
    """The event store of Payments."""

    __tablename__ = "events"
    __table_args__ = (UniqueConstraint("stream", "version"), {"schema": SCHEMA})


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

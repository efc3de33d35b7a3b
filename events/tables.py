"""The tables of those who publish and of those who consume; whoever has one derives its own table from it."""

from datetime import datetime
from types import new_class
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, DateTime, Index, SmallInteger, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.schema import SchemaItem
from sqlmodel import Field, SQLModel


def _now_by_default() -> Any:
    return Field(
        default=None,
        sa_type=DateTime(timezone=True),
        nullable=False,
        sa_column_kwargs={"server_default": func.now()},
    )


class RelayPositionRow(SQLModel):
    """One row: the last event of the domain that is in the stream, and which stream that is."""

    id: int = Field(primary_key=True, sa_type=SmallInteger, sa_column_kwargs={"autoincrement": False})
    stream_created_at: datetime = Field(sa_type=DateTime(timezone=True))
    transaction_id: int = Field(sa_type=BigInteger)
    position: int = Field(sa_type=BigInteger)
    published_at: datetime | None = _now_by_default()


class ConsumerPositionRow(SQLModel):
    """The last event of a domain's log whose effect a consumer has, for each partition of its streams. `sequence`
    is where it was in JetStream's stream then: a hint where to read on."""

    consumer: str = Field(primary_key=True)
    partition: int = Field(primary_key=True, sa_type=SmallInteger)
    domain: str = Field(primary_key=True)
    transaction_id: int = Field(sa_type=BigInteger)
    position: int = Field(sa_type=BigInteger)
    sequence: int = Field(sa_type=BigInteger)
    moved_at: datetime | None = _now_by_default()


class DeadLetterRow(SQLModel):
    """An event that a consumer could not handle, with its error; or, without one, an event that waits behind it in
    its stream."""

    consumer: str = Field(primary_key=True)
    event_id: UUID = Field(primary_key=True)
    partition: int = Field(sa_type=SmallInteger)
    domain: str
    transaction_id: int = Field(sa_type=BigInteger)
    position: int = Field(sa_type=BigInteger)
    stream: str
    version: int
    type: str
    schema_version: int = Field(sa_type=SmallInteger)
    data: dict[str, Any] = Field(sa_type=JSONB)
    correlation_id: UUID | None = None
    causation_id: str | None = None
    trace_context: dict[str, Any] | None = Field(default=None, sa_type=JSONB)
    recorded_at: datetime = Field(sa_type=DateTime(timezone=True))
    attempts: int
    error: str | None = None
    set_aside_at: datetime | None = _now_by_default()
    retry_asked_at: datetime | None = Field(default=None, sa_type=DateTime(timezone=True))


class ArchivedEventRow(SQLModel):
    """An event that was moved out of `events`. The table has a partition for each month of `recorded_at`, which is
    why that is a part of its key."""

    position: int = Field(sa_type=BigInteger)
    id: UUID
    stream: str = Field(primary_key=True)
    version: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    type: str
    schema_version: int = Field(sa_type=SmallInteger)
    data: dict[str, Any] = Field(sa_type=JSONB)
    correlation_id: UUID | None = None
    causation_id: str | None = None
    trace_context: dict[str, Any] | None = Field(default=None, sa_type=JSONB)
    transaction_id: int = Field(sa_type=BigInteger)
    recorded_at: datetime = Field(primary_key=True, sa_type=DateTime(timezone=True))


class ArchivedStreamRow(SQLModel):
    """A stream that has archived events: `version` is that of the last of them."""

    stream: str = Field(primary_key=True)
    version: int


def archive_tables(schema: str) -> tuple[type[SQLModel], ...]:
    """The tables of a domain's archived events. (`all_events`, a view, has these and those of `events`.)"""
    return (
        _table(
            schema,
            "archived_events",
            ArchivedEventRow,
            Index("ix_archived_events_log", "transaction_id", "position"),
        ),
        _table(schema, "archived_streams", ArchivedStreamRow),
    )


def relay_tables(schema: str) -> tuple[type[SQLModel], ...]:
    """The table of a domain's relay."""
    return (_table(schema, "relay_position", RelayPositionRow, CheckConstraint("id = 1", name="one_row")),)


def consumer_tables(schema: str) -> tuple[type[SQLModel], ...]:
    """The tables of the consumers that keep what they know in `schema`."""
    index = Index("ix_dead_letters_stream", "consumer", "stream")
    return (
        _table(schema, "consumer_positions", ConsumerPositionRow),
        _table(schema, "dead_letters", DeadLetterRow, index),
    )


def _table(schema: str, name: str, columns: type[SQLModel], *rules: SchemaItem) -> type[SQLModel]:
    members = {
        "__module__": f"domains.{schema}",
        "__tablename__": name,
        "__table_args__": (*rules, {"schema": schema}),
    }
    return new_class(f"{schema}_{name}", (columns,), {"table": True}, lambda names: names.update(members))

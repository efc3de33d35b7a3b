"""The tables of the staff gateway: who is let in, and what they did."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, DateTime, Index, String, Text, UniqueConstraint, func, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel import Field, SQLModel

from api.keys import ApiKeyColumns

SCHEMA = "staff"


class ApiKeyRow(ApiKeyColumns, table=True):
    """A key of a service, with its roles."""

    __tablename__ = "api_keys"
    __table_args__ = (
        Index("ix_api_keys_name", "name"),
        CheckConstraint(
            "roles <@ ARRAY['desk', 'store', 'manager', 'operator']::text[] AND cardinality(roles) > 0"
        ),
        {"schema": SCHEMA},
    )

    roles: list[str] = Field(sa_type=ARRAY(Text), nullable=False)


class ActRow(SQLModel, table=True):
    """What somebody did, or was not let do. Its id tells when, too: the newest is the largest."""

    __tablename__ = "acts"
    __table_args__ = (
        Index("ix_acts_subject", "subject", "id"),
        CheckConstraint("outcome IN ('done', 'refused')"),
        {"schema": SCHEMA},
    )

    id: UUID = Field(primary_key=True)
    at: datetime | None = Field(
        default=None,
        sa_type=DateTime(timezone=True),
        nullable=False,
        sa_column_kwargs={"server_default": func.now()},
    )
    by: str
    act: str
    subject: str | None = None
    detail: str
    outcome: str


class AccountRow(SQLModel, table=True):
    """A member of staff. Who signs in by a provider has its `issuer` and `subject`, the others a password."""

    __tablename__ = "accounts"
    __table_args__ = (
        UniqueConstraint("issuer", "subject"),
        Index("ix_accounts_lower_name", text("lower(name)"), unique=True),
        {"schema": SCHEMA},
    )

    name: str = Field(primary_key=True)
    roles: list[str] = Field(sa_type=ARRAY(String))
    password_hash: str | None = None
    issuer: str | None = None
    subject: str | None = None
    created_at: datetime | None = Field(
        default=None,
        sa_type=DateTime(timezone=True),
        nullable=False,
        sa_column_kwargs={"server_default": func.now()},
    )
    disabled_at: datetime | None = Field(default=None, sa_type=DateTime(timezone=True))


class SessionRow(SQLModel, table=True):
    """A browser that somebody signed in with, known only by the hash of its token."""

    __tablename__ = "sessions"
    __table_args__ = (Index("ix_sessions_account", "account"), {"schema": SCHEMA})

    token_hash: str = Field(primary_key=True)
    account: str = Field(foreign_key="staff.accounts.name")
    created_at: datetime | None = Field(
        default=None,
        sa_type=DateTime(timezone=True),
        nullable=False,
        sa_column_kwargs={"server_default": func.now()},
    )
    last_seen_at: datetime | None = Field(
        default=None,
        sa_type=DateTime(timezone=True),
        nullable=False,
        sa_column_kwargs={"server_default": func.now()},
    )


class FailedSignInsRow(SQLModel, table=True):
    """How often signing in failed for a name or from an address (`who`), and until when it is shut for that."""

    __tablename__ = "failed_sign_ins"
    __table_args__ = {"schema": SCHEMA}

    who: str = Field(primary_key=True)
    failures: int
    last_at: datetime = Field(sa_type=DateTime(timezone=True))
    shut_until: datetime = Field(sa_type=DateTime(timezone=True))

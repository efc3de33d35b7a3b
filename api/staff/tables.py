"""The tables of the staff gateway: who is let in."""

from datetime import datetime

from sqlalchemy import DateTime, Index, func
from sqlmodel import Field, SQLModel

SCHEMA = "staff"


class ApiKeyRow(SQLModel, table=True):
    """A key that was given to a member of staff, known only by its hash. A revoked one stays, so that it never
    works again."""

    __tablename__ = "api_keys"
    __table_args__ = (Index("ix_api_keys_name", "name"), {"schema": SCHEMA})

    key_hash: str = Field(primary_key=True)
    name: str
    created_at: datetime | None = Field(
        default=None,
        sa_type=DateTime(timezone=True),
        nullable=False,
        sa_column_kwargs={"server_default": func.now()},
    )
    revoked_at: datetime | None = Field(default=None, sa_type=DateTime(timezone=True))

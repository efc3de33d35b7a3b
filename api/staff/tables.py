"""The table of the staff gateway: who is let in."""

from sqlalchemy import Index

from api.keys import ApiKeyColumns

SCHEMA = "staff"


class ApiKeyRow(ApiKeyColumns, table=True):
    """A key of a member of staff."""

    __tablename__ = "api_keys"
    __table_args__ = (Index("ix_api_keys_name", "name"), {"schema": SCHEMA})

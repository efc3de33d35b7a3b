"""The table of the robots' gateway: who is let in."""

from sqlalchemy import Index

from api.keys import ApiKeyColumns

SCHEMA = "robots"


class ApiKeyRow(ApiKeyColumns, table=True):
    """A robot's token."""

    __tablename__ = "api_keys"
    __table_args__ = (Index("ix_api_keys_name", "name"), {"schema": SCHEMA})

"""The migrations make exactly the tables that the code knows."""

from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection
from sqlmodel import SQLModel

import api.kiosk.tables
import api.robots.tables
import api.staff.tables
import consumers.analytics.tables
import consumers.notifications.tables
import consumers.trail.tables
import domains.depot.tables
import domains.orders.tables
import domains.payments.sandbox
import domains.payments.tables
import domains.stores.tables
from kernel.database import Database
from mallbots.migrations import migrate_database
from mallbots.settings import DATABASES, DatabaseName

# Each adds its tables to SQLModel.metadata when it is imported.
TABLES = (
    api.kiosk.tables,
    api.robots.tables,
    api.staff.tables,
    consumers.notifications.tables,
    consumers.analytics.tables,
    consumers.trail.tables,
    domains.depot.tables,
    domains.orders.tables,
    domains.payments.sandbox,
    domains.payments.tables,
    domains.stores.tables,
)


@pytest.mark.parametrize("name", DATABASES)
async def test_a_migrated_database_has_the_tables_of_the_code(database: Database, name: DatabaseName) -> None:
    def compare(connection: Connection) -> list[Any]:
        def mine(item: Any, item_name: str | None, kind: str, *_: Any) -> bool:
            return kind != "table" or (item.schema == name and item_name != "alembic_version")

        options = {"include_schemas": True, "include_object": mine, "compare_server_default": True}
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), SQLModel.metadata))

    async with database.engine.connect() as connection:
        assert await connection.run_sync(compare) == []


@pytest.mark.parametrize("name", DATABASES)
async def test_a_migration_repeated_changes_nothing(migrated_url: str, name: DatabaseName) -> None:
    await migrate_database(name, migrated_url)

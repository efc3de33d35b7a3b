"""Alembic's entry: run revisions on the connection that `migrate_database` opened."""

from alembic import context

config = context.config
context.configure(
    connection=config.attributes["connection"],
    version_table="alembic_version",
    version_table_schema=config.attributes["schema"],
)
with context.begin_transaction():
    context.run_migrations()

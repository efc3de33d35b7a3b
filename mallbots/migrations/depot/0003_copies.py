"""Depot keeps the names of stores and products, from the events of Stores."""

from alembic import op

from mallbots.migrations.consumer_tables import create_consumer_tables

revision = "depot_0003"
down_revision = "depot_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for statement in create_consumer_tables("depot"):
        op.execute(statement)
    op.execute("""
    CREATE TABLE depot.stores (
        store_id  uuid PRIMARY KEY,
        name      varchar NOT NULL
    )
    """)
    op.execute("""
    CREATE TABLE depot.products (
        sku       varchar PRIMARY KEY,
        store_id  uuid NOT NULL,
        name      varchar NOT NULL
    )
    """)

"""Orders keeps the names of products, from the events of Stores."""

from alembic import op

from mallbots.migrations.consumer_tables import create_consumer_tables

revision = "orders_0003"
down_revision = "orders_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for statement in create_consumer_tables("orders"):
        op.execute(statement)
    op.execute("""
    CREATE TABLE orders.products (
        sku   varchar PRIMARY KEY,
        name  varchar NOT NULL
    )
    """)

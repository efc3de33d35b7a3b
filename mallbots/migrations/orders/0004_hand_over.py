"""Orders become ready, and keep their pickup code until they are handed over."""

from alembic import op

revision = "orders_0004"
down_revision = "orders_0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("DROP INDEX orders.uq_orders_open_pickup_code")
    op.execute("""
    CREATE UNIQUE INDEX uq_orders_open_pickup_code ON orders.orders (pickup_code)
        WHERE status IN ('approved', 'ready')
    """)
    op.execute("CREATE INDEX ix_orders_pickup_code ON orders.orders (pickup_code)")

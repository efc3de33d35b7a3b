"""Staff find orders by customer and by kiosk."""

from alembic import op

revision = "orders_0005"
down_revision = "orders_0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # The operator class is for LIKE 'beginning%', whatever the database's language is.
    op.execute("CREATE INDEX ix_orders_customer ON orders.orders (lower(customer) text_pattern_ops)")
    op.execute("CREATE INDEX ix_orders_kiosk ON orders.orders (kiosk, id)")

"""Staff see what the customer of an order was told."""

from alembic import op

revision = "notifications_0003"
down_revision = "notifications_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE INDEX ix_notifications_order ON notifications.notifications (order_id, id)")
    op.execute("CREATE INDEX ix_notifications_failed ON notifications.notifications (id) WHERE status = 'failed'")

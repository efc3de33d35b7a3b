"""Customers are told of what is missing, expired and refunded, too."""

from alembic import op

revision = "notifications_0002"
down_revision = "notifications_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
    ALTER TABLE notifications.orders
        ADD COLUMN currency varchar,
        ADD COLUMN names jsonb NOT NULL DEFAULT '{}',
        ADD COLUMN refunds jsonb NOT NULL DEFAULT '{}'
    """)
    op.execute("""
    ALTER TABLE notifications.notifications
        DROP CONSTRAINT known_kind,
        ADD CONSTRAINT known_kind CHECK (kind IN (
            'received', 'adjusted', 'ready', 'reminder', 'expired', 'cancelled', 'refunded', 'refund_failed'
        ))
    """)

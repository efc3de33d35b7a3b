"""A notification is sent in the trace of the event that it tells of."""

from alembic import op

revision = "notifications_0004"
down_revision = "notifications_0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE notifications.notifications ADD COLUMN trace_context jsonb")

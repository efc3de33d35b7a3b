"""The trail of a product, a store and a robot, too."""

from alembic import op

revision = "trail_0002"
down_revision = "trail_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE trail.entries ALTER COLUMN order_id DROP NOT NULL")
    op.execute("CREATE INDEX ix_entries_stream ON trail.entries (stream, version)")

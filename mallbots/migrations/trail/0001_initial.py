"""The first schema of the audit trail."""

from alembic import op

from mallbots.migrations.consumer_tables import create_consumer_tables

revision = "trail_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    for statement in create_consumer_tables("trail"):
        op.execute(statement)

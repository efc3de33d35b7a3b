"""The first schema of Analytics."""

from alembic import op

from mallbots.migrations.consumer_tables import create_consumer_tables

revision = "analytics_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    for statement in create_consumer_tables("analytics"):
        op.execute(statement)

"""Depot publishes its events."""

from alembic import op

from mallbots.migrations.relay_table import make_outbox

revision = "depot_0002"
down_revision = "depot_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for statement in make_outbox("depot"):
        op.execute(statement)

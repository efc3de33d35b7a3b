"""Payments publishes its events."""

from alembic import op

from mallbots.migrations.relay_table import make_outbox

revision = "payments_0002"
down_revision = "payments_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for statement in make_outbox("payments"):
        op.execute(statement)

"""Orders publishes its events."""

from alembic import op

from mallbots.migrations.relay_table import make_outbox

revision = "orders_0002"
down_revision = "orders_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for statement in make_outbox("orders"):
        op.execute(statement)

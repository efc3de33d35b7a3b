"""The oldest events of Orders may be archived, by month."""

from alembic import op

from mallbots.migrations.archive_tables import create_archive

revision = "orders_0006"
down_revision = "orders_0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for statement in create_archive("orders"):
        op.execute(statement)

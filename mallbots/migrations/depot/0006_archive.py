"""The oldest events of Depot may be archived, by month."""

from alembic import op

from mallbots.migrations.archive_tables import create_archive

revision = "depot_0006"
down_revision = "depot_0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for statement in create_archive("depot"):
        op.execute(statement)

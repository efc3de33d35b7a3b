"""The oldest events of Stores may be archived, by month."""

from alembic import op

from mallbots.migrations.archive_tables import create_archive

revision = "stores_0004"
down_revision = "stores_0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for statement in create_archive("stores"):
        op.execute(statement)

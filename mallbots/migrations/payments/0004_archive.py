"""The oldest events of Payments may be archived, by month."""

from alembic import op

from mallbots.migrations.archive_tables import create_archive

revision = "payments_0004"
down_revision = "payments_0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for statement in create_archive("payments"):
        op.execute(statement)

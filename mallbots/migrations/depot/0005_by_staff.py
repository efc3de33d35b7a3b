"""Staff recall robots from their lists and let them rest."""

from alembic import op

revision = "depot_0005"
down_revision = "depot_0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
    ALTER TABLE depot.robots
        ADD COLUMN held_by varchar,
        ADD COLUMN held_since timestamptz
    """)
    op.execute("ALTER TABLE depot.shopping_lists ADD COLUMN recalled_at timestamptz")

"""A key names its holder as `name`, as it does in every gateway."""

from alembic import op

revision = "kiosks_0002"
down_revision = "kiosks_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE kiosks.api_keys RENAME COLUMN kiosk TO name")
    op.execute("ALTER INDEX kiosks.ix_api_keys_kiosk RENAME TO ix_api_keys_name")

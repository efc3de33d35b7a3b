"""The first schema of the robots' gateway."""

from alembic import op

revision = "robots_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
    CREATE TABLE robots.api_keys (
        key_hash    varchar PRIMARY KEY,
        name        varchar NOT NULL,
        created_at  timestamptz NOT NULL DEFAULT now(),
        revoked_at  timestamptz
    )
    """)
    op.execute("CREATE INDEX ix_api_keys_name ON robots.api_keys (name)")

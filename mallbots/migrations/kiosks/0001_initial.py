"""The first schema of the kiosk gateway."""

from alembic import op

revision = "kiosks_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
    CREATE TABLE kiosks.api_keys (
        key_hash    varchar PRIMARY KEY,
        kiosk       varchar NOT NULL,
        created_at  timestamptz NOT NULL DEFAULT now(),
        revoked_at  timestamptz
    )
    """)
    op.execute("CREATE INDEX ix_api_keys_kiosk ON kiosks.api_keys (kiosk)")
    op.execute("""
    CREATE TABLE kiosks.idempotency_keys (
        kiosk         varchar NOT NULL,
        key           varchar NOT NULL,
        request_hash  varchar NOT NULL,
        order_id      uuid NOT NULL UNIQUE,
        created_at    timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (kiosk, key)
    )
    """)

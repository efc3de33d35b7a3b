"""The first schema of the sandbox payment provider."""

from alembic import op

revision = "sandbox_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
    CREATE TABLE sandbox.holds (
        id               uuid PRIMARY KEY,
        idempotency_key  varchar NOT NULL UNIQUE,
        order_id         uuid NOT NULL,
        token            varchar NOT NULL,
        amount_cents     bigint NOT NULL,
        currency         varchar NOT NULL,
        status           varchar NOT NULL,
        calls            integer NOT NULL,
        created_at       timestamptz NOT NULL DEFAULT now()
    )
    """)
    op.execute("CREATE INDEX ix_holds_order_id ON sandbox.holds (order_id)")

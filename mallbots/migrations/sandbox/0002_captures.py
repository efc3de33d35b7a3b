"""The sandbox payment provider captures and refunds, and takes cards at the desk."""

from alembic import op

revision = "sandbox_0002"
down_revision = "sandbox_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
    ALTER TABLE sandbox.holds
        ADD COLUMN attempt integer,
        ADD COLUMN asked_cents bigint,
        ADD COLUMN captured_cents bigint NOT NULL DEFAULT 0,
        ADD COLUMN refunded_cents bigint NOT NULL DEFAULT 0
            CONSTRAINT refunded_was_captured CHECK (refunded_cents BETWEEN 0 AND captured_cents)
    """)
    op.execute("""
    CREATE TABLE sandbox.requests (
        idempotency_key  varchar PRIMARY KEY,
        id               uuid NOT NULL,
        kind             varchar NOT NULL,
        hold_id          uuid NOT NULL REFERENCES sandbox.holds,
        amount_cents     bigint NOT NULL,
        calls            integer NOT NULL,
        answer           jsonb
    )
    """)
    op.execute("""
    CREATE TABLE sandbox.desks (
        order_id  uuid PRIMARY KEY,
        attempt   integer NOT NULL,
        closed    boolean NOT NULL
    )
    """)

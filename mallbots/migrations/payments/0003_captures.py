"""Payments are captured, refunded and taken at the desk; what Stripe keeps for an order is known by its order."""

from alembic import op

revision = "payments_0003"
down_revision = "payments_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
    ALTER TABLE payments.payments
        ADD COLUMN hold_lapsed boolean NOT NULL DEFAULT false,
        ADD COLUMN captured_cents bigint NOT NULL DEFAULT 0,
        ADD COLUMN settled_by varchar,
        ADD COLUMN refunded_cents bigint NOT NULL DEFAULT 0
            CONSTRAINT refunded_was_captured CHECK (refunded_cents BETWEEN 0 AND captured_cents)
    """)
    op.execute("""
    CREATE TABLE payments.desks (
        order_id  uuid PRIMARY KEY,
        attempt   integer NOT NULL,
        closed    boolean NOT NULL
    )
    """)
    op.execute("""
    CREATE TABLE payments.provider_events (
        id        varchar PRIMARY KEY,
        noted_at  timestamptz NOT NULL DEFAULT now()
    )
    """)
    op.execute("""
    CREATE TABLE payments.stripe_intents (
        idempotency_key  varchar PRIMARY KEY,
        intent_id        varchar NOT NULL UNIQUE,
        order_id         uuid NOT NULL,
        attempt          integer,
        amount_cents     bigint NOT NULL,
        currency         varchar NOT NULL
    )
    """)
    op.execute("CREATE INDEX ix_stripe_intents_order_id ON payments.stripe_intents (order_id)")

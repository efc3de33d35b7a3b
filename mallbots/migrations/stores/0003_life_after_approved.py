"""Reservations are adjusted, consumed, and carried back to the shelf; staff do the stores' daily work."""

from alembic import op

from mallbots.migrations.consumer_tables import create_consumer_tables

revision = "stores_0003"
down_revision = "stores_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for statement in create_consumer_tables("stores"):
        op.execute(statement)
    op.execute("""
    ALTER TABLE stores.products
        ADD COLUMN alternatives varchar[] NOT NULL DEFAULT '{}',
        ADD COLUMN removed boolean NOT NULL DEFAULT false
    """)
    op.execute("""
    ALTER TABLE stores.stock
        ADD COLUMN low_at integer NOT NULL DEFAULT 5
            CONSTRAINT low_at_not_negative CHECK (low_at >= 0)
    """)
    op.execute("""
    ALTER TABLE stores.reservations
        DROP CONSTRAINT known_status,
        ADD CONSTRAINT known_status CHECK (status IN ('held', 'released', 'consumed'))
    """)
    op.execute("""
    ALTER TABLE stores.reservation_lines
        ADD COLUMN missing integer NOT NULL DEFAULT 0
            CONSTRAINT missing_not_negative CHECK (missing >= 0),
        ADD COLUMN instead_of integer,
        ADD COLUMN round integer,
        DROP CONSTRAINT quantity_positive,
        ADD CONSTRAINT quantity_not_negative CHECK (quantity >= 0)
    """)
    op.execute("""
    CREATE TABLE stores.adjustments (
        order_id  uuid NOT NULL REFERENCES stores.reservations,
        round     integer NOT NULL,
        reply     jsonb NOT NULL,
        PRIMARY KEY (order_id, round)
    )
    """)
    op.execute("""
    CREATE TABLE stores.carried (
        order_id  uuid NOT NULL REFERENCES stores.reservations,
        sku       varchar NOT NULL,
        quantity  integer NOT NULL CONSTRAINT quantity_not_negative CHECK (quantity >= 0),
        returned  integer NOT NULL,
        PRIMARY KEY (order_id, sku)
    )
    """)
    op.execute("""
    CREATE TABLE stores.receipts (
        sku          varchar NOT NULL REFERENCES stores.products,
        receipt      varchar NOT NULL,
        quantity     integer NOT NULL,
        received_by  varchar NOT NULL,
        received_at  timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (sku, receipt)
    )
    """)

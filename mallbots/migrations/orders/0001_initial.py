"""The first schema of Orders."""

from alembic import op

from mallbots.migrations.events_table import create_events_table

revision = "orders_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(create_events_table("orders"))
    op.execute("""
    CREATE TABLE orders.orders (
        id           uuid PRIMARY KEY,
        kiosk        varchar NOT NULL,
        customer     varchar,
        status       varchar NOT NULL,
        currency     varchar NOT NULL,
        total_cents  bigint,
        pickup_code  varchar,
        version      integer NOT NULL,
        placed_at    timestamptz NOT NULL,
        updated_at   timestamptz NOT NULL DEFAULT now()
    )
    """)
    op.execute("CREATE INDEX ix_orders_status ON orders.orders (status)")
    op.execute("""
    CREATE UNIQUE INDEX uq_orders_open_pickup_code ON orders.orders (pickup_code)
        WHERE status = 'approved'
    """)

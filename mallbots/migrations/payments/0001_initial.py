"""The first schema of Payments."""

from alembic import op

from mallbots.migrations.events_table import create_events_table

revision = "payments_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(create_events_table("payments"))
    op.execute("""
    CREATE TABLE payments.payments (
        order_id          uuid PRIMARY KEY,
        status            varchar NOT NULL,
        method            varchar,
        authorized_cents  bigint,
        currency          varchar,
        version           integer NOT NULL
    )
    """)

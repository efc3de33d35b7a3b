"""What is sold is what could be had, and not what expired or was refunded."""

from alembic import op

revision = "analytics_0002"
down_revision = "analytics_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE analytics.orders ADD COLUMN expired_at timestamptz, ADD COLUMN sold_version integer")
    op.execute("""
    CREATE TABLE analytics.refund_lines (
        refund_id     uuid NOT NULL,
        line          integer NOT NULL,
        order_id      uuid NOT NULL,
        store         varchar NOT NULL,
        sku           varchar NOT NULL,
        quantity      integer NOT NULL,
        cents         bigint NOT NULL,
        currency      varchar NOT NULL,
        sold_at       timestamptz NOT NULL,
        withdrawn_at  timestamptz,
        PRIMARY KEY (refund_id, line)
    )
    """)
    op.execute("CREATE INDEX ix_refund_lines_sold_at ON analytics.refund_lines (sold_at)")

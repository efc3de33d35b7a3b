"""The first schema of Analytics."""

from alembic import op

from mallbots.migrations.consumer_tables import create_consumer_tables

revision = "analytics_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    for statement in create_consumer_tables("analytics"):
        op.execute(statement)
    op.execute("""
    CREATE TABLE analytics.orders (
        order_id      uuid PRIMARY KEY,
        kiosk         varchar NOT NULL,
        currency      varchar NOT NULL,
        placed_at     timestamptz NOT NULL,
        approved_at   timestamptz,
        rejected_at   timestamptz,
        refusal_code  varchar,
        cancelled_at  timestamptz,
        ready_at      timestamptz,
        completed_at  timestamptz
    )
    """)
    op.execute("CREATE INDEX ix_orders_placed_at ON analytics.orders (placed_at)")
    op.execute("""
    CREATE TABLE analytics.sale_lines (
        order_id  uuid NOT NULL,
        line      integer NOT NULL,
        store     varchar NOT NULL,
        sku       varchar NOT NULL,
        quantity  integer NOT NULL,
        cents     bigint NOT NULL,
        currency  varchar NOT NULL,
        sold_at   timestamptz NOT NULL,
        PRIMARY KEY (order_id, line)
    )
    """)
    op.execute("CREATE INDEX ix_sale_lines_sold_at ON analytics.sale_lines (sold_at)")
    op.execute("""
    CREATE TABLE analytics.missing_items (
        event_id    uuid PRIMARY KEY,
        order_id    uuid NOT NULL,
        store       varchar NOT NULL,
        sku         varchar NOT NULL,
        name        varchar NOT NULL,
        quantity    integer NOT NULL,
        missing_at  timestamptz NOT NULL
    )
    """)
    op.execute("CREATE INDEX ix_missing_items_missing_at ON analytics.missing_items (missing_at)")
    op.execute("""
    CREATE TABLE analytics.picks (
        event_id   uuid PRIMARY KEY,
        robot      varchar NOT NULL,
        quantity   integer NOT NULL,
        picked_at  timestamptz NOT NULL
    )
    """)
    op.execute("CREATE INDEX ix_picks_picked_at ON analytics.picks (picked_at)")
    op.execute("""
    CREATE TABLE analytics.robot_shifts (
        robot       varchar NOT NULL,
        version     integer NOT NULL,
        online_at   timestamptz NOT NULL,
        offline_at  timestamptz,
        PRIMARY KEY (robot, version)
    )
    """)
    op.execute("""
    CREATE TABLE analytics.robot_lists (
        order_id     uuid NOT NULL,
        version      integer NOT NULL,
        robot        varchar NOT NULL,
        assigned_at  timestamptz NOT NULL,
        ended_at     timestamptz,
        completed    boolean NOT NULL,
        PRIMARY KEY (order_id, version)
    )
    """)

"""The first schema of the audit trail."""

from alembic import op

from mallbots.migrations.consumer_tables import create_consumer_tables

revision = "trail_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    for statement in create_consumer_tables("trail"):
        op.execute(statement)
    op.execute("""
    CREATE TABLE trail.entries (
        event_id      uuid PRIMARY KEY,
        order_id      uuid NOT NULL,
        recorded_at   timestamptz NOT NULL,
        who           varchar NOT NULL,
        what          varchar NOT NULL,
        domain        varchar NOT NULL,
        event         varchar NOT NULL,
        stream        varchar NOT NULL,
        version       integer NOT NULL,
        causation_id  varchar,
        data          jsonb NOT NULL
    )
    """)
    op.execute("CREATE INDEX ix_entries_order_id ON trail.entries (order_id, recorded_at)")

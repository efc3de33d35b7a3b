"""The first schema of the notifications."""

from alembic import op

from mallbots.migrations.consumer_tables import create_consumer_tables

revision = "notifications_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    for statement in create_consumer_tables("notifications"):
        op.execute(statement)
    op.execute("""
    CREATE TABLE notifications.orders (
        order_id     uuid PRIMARY KEY,
        customer     varchar,
        kiosk        varchar NOT NULL,
        pickup_code  varchar
    )
    """)
    op.execute("""
    CREATE TABLE notifications.notifications (
        id             uuid PRIMARY KEY,
        kind           varchar NOT NULL
                       CONSTRAINT known_kind CHECK (kind IN ('received', 'ready', 'reminder', 'cancelled')),
        order_id       uuid NOT NULL REFERENCES notifications.orders,
        customer       varchar NOT NULL,
        kiosk          varchar NOT NULL,
        pickup_code    varchar,
        text           varchar NOT NULL,
        created_at     timestamptz NOT NULL,
        status         varchar NOT NULL DEFAULT 'pending'
                       CONSTRAINT known_status CHECK (status IN ('pending', 'sent', 'failed')),
        attempts       smallint NOT NULL DEFAULT 0,
        resends        smallint NOT NULL DEFAULT 0,
        due_at         timestamptz NOT NULL DEFAULT now(),
        handed_out_at  timestamptz,
        sent_at        timestamptz,
        error          varchar
    )
    """)
    op.execute(
        "CREATE INDEX ix_notifications_pending ON notifications.notifications (handed_out_at)"
        " WHERE status = 'pending'"
    )

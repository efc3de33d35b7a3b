"""The first schema of Depot."""

from alembic import op

from mallbots.migrations.events_table import create_events_table

revision = "depot_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(create_events_table("depot"))
    op.execute("""
    CREATE TABLE depot.shopping_lists (
        order_id    uuid PRIMARY KEY,
        status      varchar NOT NULL CONSTRAINT known_status CHECK (status IN ('scheduled', 'cancelled')),
        changed_at  timestamptz NOT NULL DEFAULT now()
    )
    """)
    op.execute("""
    CREATE TABLE depot.shopping_list_items (
        order_id  uuid NOT NULL REFERENCES depot.shopping_lists,
        stop      integer NOT NULL,
        sku       varchar NOT NULL,
        store     varchar NOT NULL,
        name      varchar NOT NULL,
        quantity  integer NOT NULL CONSTRAINT quantity_positive CHECK (quantity > 0),
        PRIMARY KEY (order_id, stop, sku)
    )
    """)

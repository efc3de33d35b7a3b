"""Robots shop the lists."""

from alembic import op

revision = "depot_0004"
down_revision = "depot_0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Hundreds of rows are rewritten every other second, in place if there is room.
    op.execute("""
    CREATE TABLE depot.robots (
        name           varchar PRIMARY KEY,
        status         varchar NOT NULL CONSTRAINT known_status
                       CHECK (status IN ('offline', 'idle', 'on_break', 'retired')),
        session        uuid,
        registered_at  timestamptz NOT NULL DEFAULT now(),
        last_heard_at  timestamptz
    ) WITH (fillfactor = 50)
    """)
    op.execute("""
    ALTER TABLE depot.shopping_lists
        DROP CONSTRAINT known_status,
        ADD CONSTRAINT known_status CHECK
            (status IN ('scheduled', 'released', 'assigned', 'collected', 'completed', 'cancelled')),
        ADD COLUMN robot varchar REFERENCES depot.robots,
        ADD COLUMN released_at timestamptz,
        ADD COLUMN assign_round integer,
        ADD COLUMN shop_round integer,
        ADD COLUMN amended integer NOT NULL DEFAULT 0,
        ADD COLUMN reason varchar,
        ADD COLUMN returned_at timestamptz
    """)
    op.execute("""
    ALTER TABLE depot.shopping_list_items
        ADD COLUMN round integer NOT NULL DEFAULT 0,
        ADD COLUMN picked integer,
        ADD COLUMN missing integer,
        ADD CONSTRAINT reported_in_full CHECK (
            (picked IS NULL AND missing IS NULL)
            OR (picked >= 0 AND missing >= 0 AND picked + missing = quantity)
        )
    """)
    op.execute("""
    CREATE INDEX ix_shopping_lists_released ON depot.shopping_lists (released_at, order_id)
        WHERE status = 'released'
    """)
    op.execute("""
    CREATE UNIQUE INDEX uq_shopping_lists_robot ON depot.shopping_lists (robot)
        WHERE status IN ('assigned', 'collected') OR (status = 'cancelled' AND returned_at IS NULL)
    """)
    op.execute("CREATE INDEX ix_shopping_lists_status ON depot.shopping_lists (status, order_id)")

"""Services have roles, and what staff do that no event tells is on record."""

from alembic import op

revision = "staff_0003"
down_revision = "staff_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Until now a key let its holder do everything.
    op.execute("""
    ALTER TABLE staff.api_keys
        ADD COLUMN roles text[] NOT NULL DEFAULT ARRAY['desk', 'store', 'manager', 'operator'],
        ADD CHECK (roles <@ ARRAY['desk', 'store', 'manager', 'operator'] AND cardinality(roles) > 0)
    """)
    op.execute("ALTER TABLE staff.api_keys ALTER COLUMN roles DROP DEFAULT")
    op.execute("""
    CREATE TABLE staff.acts (
        id       uuid PRIMARY KEY,
        at       timestamptz NOT NULL DEFAULT now(),
        by       varchar NOT NULL,
        act      varchar NOT NULL,
        subject  varchar,
        detail   varchar NOT NULL,
        outcome  varchar NOT NULL CHECK (outcome IN ('done', 'refused'))
    )
    """)
    op.execute("CREATE INDEX ix_acts_subject ON staff.acts (subject, id)")

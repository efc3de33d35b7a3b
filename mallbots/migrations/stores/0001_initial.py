"""The first schema of Stores."""

from alembic import op

from mallbots.migrations.events_table import create_events_table

revision = "stores_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(create_events_table("stores"))
    op.execute("""
    CREATE TABLE stores.stores (
        id    uuid PRIMARY KEY,
        name  varchar NOT NULL UNIQUE,
        open  boolean NOT NULL
    )
    """)
    op.execute(r"""
    CREATE TABLE stores.products (
        sku          varchar PRIMARY KEY,
        store_id     uuid NOT NULL REFERENCES stores.stores,
        name         varchar NOT NULL,
        brand        varchar NOT NULL,
        price_cents  bigint NOT NULL CONSTRAINT price_not_negative CHECK (price_cents >= 0),
        currency     varchar NOT NULL,
        search       tsvector GENERATED ALWAYS AS (
            to_tsvector('simple', regexp_replace(name || ' ' || brand, '[\W_]+', ' ', 'g'))
        ) STORED
    )
    """)
    op.execute("CREATE INDEX ix_products_search ON stores.products USING gin (search)")
    op.execute("CREATE INDEX ix_products_store_id_sku ON stores.products (store_id, sku)")
    op.execute("""
    CREATE TABLE stores.stock (
        sku       varchar PRIMARY KEY REFERENCES stores.products,
        on_hand   integer NOT NULL,
        reserved  integer NOT NULL,
        CONSTRAINT reserved_within_on_hand CHECK (reserved BETWEEN 0 AND on_hand)
    )
    """)
    op.execute("""
    CREATE TABLE stores.reservations (
        order_id    uuid PRIMARY KEY,
        status      varchar NOT NULL CONSTRAINT known_status CHECK (status IN ('held', 'released')),
        changed_at  timestamptz NOT NULL DEFAULT now()
    )
    """)
    op.execute("""
    CREATE TABLE stores.reservation_lines (
        order_id          uuid NOT NULL REFERENCES stores.reservations,
        line              integer NOT NULL,
        sku               varchar NOT NULL REFERENCES stores.products,
        name              varchar NOT NULL,
        store             varchar NOT NULL,
        quantity          integer NOT NULL CONSTRAINT quantity_positive CHECK (quantity > 0),
        unit_price_cents  bigint NOT NULL,
        PRIMARY KEY (order_id, line)
    )
    """)
    op.execute("CREATE INDEX ix_reservation_lines_sku ON stores.reservation_lines (sku)")

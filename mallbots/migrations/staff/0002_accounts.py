"""People: accounts, their sessions, and failed sign-ins."""

from alembic import op

revision = "staff_0002"
down_revision = "staff_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
    CREATE TABLE staff.accounts (
        name           varchar PRIMARY KEY,
        roles          varchar[] NOT NULL,
        password_hash  varchar,
        issuer         varchar,
        subject        varchar,
        created_at     timestamptz NOT NULL DEFAULT now(),
        disabled_at    timestamptz,
        UNIQUE (issuer, subject)
    )
    """)
    op.execute("CREATE UNIQUE INDEX ix_accounts_lower_name ON staff.accounts (lower(name))")
    op.execute("""
    CREATE TABLE staff.sessions (
        token_hash    varchar PRIMARY KEY,
        account       varchar NOT NULL REFERENCES staff.accounts (name),
        created_at    timestamptz NOT NULL DEFAULT now(),
        last_seen_at  timestamptz NOT NULL DEFAULT now()
    )
    """)
    op.execute("CREATE INDEX ix_sessions_account ON staff.sessions (account)")
    op.execute("""
    CREATE TABLE staff.failed_sign_ins (
        who         varchar PRIMARY KEY,
        failures    integer NOT NULL,
        last_at     timestamptz NOT NULL,
        shut_until  timestamptz NOT NULL
    )
    """)

"""What makes a domain's `events` table an outbox. Frozen: later changes are revisions."""

from collections.abc import Iterator


def make_outbox(schema: str) -> Iterator[str]:
    """The DDL, a statement each. What is there already was written by transactions that have ended, so the order
    of its numbers stands."""
    yield f"""
    ALTER TABLE {schema}.events
        ADD COLUMN trace_context jsonb,
        ADD COLUMN transaction_id bigint NOT NULL DEFAULT 0
    """
    yield f"""
    ALTER TABLE {schema}.events
        ALTER COLUMN transaction_id SET DEFAULT (pg_current_xact_id()::text)::bigint
    """
    yield f"CREATE UNIQUE INDEX ix_events_log ON {schema}.events (transaction_id, position)"
    yield f"""
    CREATE TABLE {schema}.relay_position (
        id                 smallint PRIMARY KEY CONSTRAINT one_row CHECK (id = 1),
        stream_created_at  timestamptz NOT NULL,
        transaction_id     bigint NOT NULL,
        position           bigint NOT NULL,
        published_at       timestamptz NOT NULL DEFAULT now()
    )
    """

"""The first version of the tables that every consumer's schema has. Frozen: later changes are revisions."""

from collections.abc import Iterator


def create_consumer_tables(schema: str) -> Iterator[str]:
    """The DDL of the positions and dead letters of the consumers in a schema, a statement each."""
    yield f"""
    CREATE TABLE {schema}.consumer_positions (
        consumer        varchar NOT NULL,
        partition       smallint NOT NULL,
        domain          varchar NOT NULL,
        transaction_id  bigint NOT NULL,
        position        bigint NOT NULL,
        sequence        bigint NOT NULL,
        moved_at        timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (consumer, partition, domain)
    )
    """
    yield f"""
    CREATE TABLE {schema}.dead_letters (
        consumer        varchar NOT NULL,
        event_id        uuid NOT NULL,
        partition       smallint NOT NULL,
        domain          varchar NOT NULL,
        transaction_id  bigint NOT NULL,
        position        bigint NOT NULL,
        stream          varchar NOT NULL,
        version         integer NOT NULL,
        type            varchar NOT NULL,
        schema_version  smallint NOT NULL,
        data            jsonb NOT NULL,
        correlation_id  uuid,
        causation_id    varchar,
        trace_context   jsonb,
        recorded_at     timestamptz NOT NULL,
        attempts        integer NOT NULL,
        error           varchar,
        set_aside_at    timestamptz NOT NULL DEFAULT now(),
        retry_asked_at  timestamptz,
        PRIMARY KEY (consumer, event_id)
    )
    """
    yield f"CREATE INDEX ix_dead_letters_stream ON {schema}.dead_letters (consumer, stream)"

"""The first version of the `events` table that every domain has. Frozen: later changes are revisions."""


def create_events_table(schema: str) -> str:
    """The DDL of a domain's event store."""
    return f"""
    CREATE TABLE {schema}.events (
        position        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        id              uuid NOT NULL UNIQUE,
        stream          varchar NOT NULL,
        version         integer NOT NULL,
        type            varchar NOT NULL,
        schema_version  smallint NOT NULL,
        data            jsonb NOT NULL,
        correlation_id  uuid,
        causation_id    varchar,
        recorded_at     timestamptz NOT NULL DEFAULT now(),
        UNIQUE (stream, version)
    )
    """

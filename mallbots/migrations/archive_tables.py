"""The first version of a domain's archive of events. Frozen: later changes are revisions."""

from collections.abc import Iterator

_COLUMNS = (
    "position, id, stream, version, type, schema_version, data, correlation_id, causation_id, recorded_at,"
    " trace_context, transaction_id"
)


def create_archive(schema: str) -> Iterator[str]:
    """The DDL, a statement each. No index over all months can be unique, as each has its own; what keeps versions
    unique is the table of streams."""
    yield f"""
    CREATE TABLE {schema}.archived_events (
        position        bigint NOT NULL,
        id              uuid NOT NULL,
        stream          varchar NOT NULL,
        version         integer NOT NULL,
        type            varchar NOT NULL,
        schema_version  smallint NOT NULL,
        data            jsonb NOT NULL,
        correlation_id  uuid,
        causation_id    varchar,
        recorded_at     timestamptz NOT NULL,
        trace_context   jsonb,
        transaction_id  bigint NOT NULL,
        PRIMARY KEY (stream, version, recorded_at)
    ) PARTITION BY RANGE (recorded_at)
    """
    yield f"CREATE INDEX ix_archived_events_log ON {schema}.archived_events (transaction_id, position)"
    yield f"""
    CREATE TABLE {schema}.archived_streams (
        stream   varchar PRIMARY KEY,
        version  integer NOT NULL
    )
    """
    # By way of the streams, so that whoever looks for one that is not archived visits no month.
    yield f"""
    CREATE VIEW {schema}.all_events AS
        SELECT {_COLUMNS} FROM {schema}.events
        UNION ALL
        SELECT {_COLUMNS.replace("stream, version", "stream, archived_events.version")}
            FROM {schema}.archived_streams JOIN {schema}.archived_events USING (stream)
    """

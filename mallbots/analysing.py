"""Analytics as a process. It makes its own tables, and makes them anew when somebody dropped any of them."""

import asyncio
import logging
from typing import Final

from consumers.analytics import tables
from consumers.analytics.consumer import CONSUMER
from consumers.analytics.tables import SCHEMA
from kernel.database import Database
from kernel.errors import Unavailable
from kernel.locks import lock_key
from mallbots.consuming import ALL_ROLES, consume
from mallbots.migrations import migrate_database
from mallbots.processes import run_process
from mallbots.settings import Settings

_PAUSE: Final = 1.0

_END_MEMBERS: Final = (
    "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    " AND (classid::bigint << 32) | objid::bigint = $1"
)

_log = logging.getLogger(__name__)


def run(settings: Settings, *, rebuild: bool = False) -> None:
    """Run Analytics until SIGTERM or Ctrl-C; with `rebuild` it forgets all and reads every event again."""
    run_process(settings, "analytics", analyse(settings, rebuild=rebuild))


async def analyse(settings: Settings, *, rebuild: bool = False) -> None:
    """Run Analytics until cancelled, through every outage."""
    trouble = ""
    while True:
        try:
            await prepare(settings, rebuild=rebuild)
            break
        except Unavailable as error:
            if error.message != trouble:
                trouble = error.message
                _log.warning("analytics: %s; it begins when that is over", trouble)
        await asyncio.sleep(_PAUSE)
    await consume(settings, [ALL_ROLES["analytics"]])


async def prepare(settings: Settings, *, rebuild: bool = False) -> None:
    """See to it that all tables are there. If any is missing, or with `rebuild`, all are made anew, and empty:
    what is left would not fit what was dropped. Raises `Unavailable`."""
    url = settings.database_url("analytics")
    database = Database("analytics", url, pool_size=1)
    try:
        async with database.session() as session:
            # One at a time; the lock goes with the session.
            await session.execute("SELECT pg_advisory_lock($1)", lock_key("analytics", "prepare"))
            rows = await session.fetch("SELECT tablename FROM pg_tables WHERE schemaname = $1", SCHEMA)
            anew = rebuild or not _all_tables() <= {row["tablename"] for row in rows}
            await migrate_database("analytics", url, anew=anew)
            if anew:
                # Whoever is at work goes by a position that is no more, and would not see it until the next event:
                # without the session that makes it a member of the consumer's group it begins again.
                member = lock_key("consumer", CONSUMER.schema, CONSUMER.name)
                await session.execute(_END_MEMBERS, member)
    finally:
        await database.close()


def _all_tables() -> set[str]:
    ours = {table.name for table in tables.OrderRow.metadata.sorted_tables if table.schema == SCHEMA}
    return {*ours, "alembic_version"}

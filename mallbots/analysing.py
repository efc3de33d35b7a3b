"""Analytics as a process. It makes its own tables, and makes them anew when somebody dropped any of them."""

from consumers.analytics import tables
from consumers.analytics.tables import SCHEMA
from kernel.database import Database
from kernel.locks import lock_key
from mallbots.consuming import ALL_ROLES, consume
from mallbots.migrations import migrate_database
from mallbots.processes import run_process
from mallbots.settings import Settings


def run(settings: Settings, *, rebuild: bool = False) -> None:
    """Run Analytics until SIGTERM or Ctrl-C; with `rebuild` it forgets all and reads every event again."""
    run_process(settings, analyse(settings, rebuild=rebuild))


async def analyse(settings: Settings, *, rebuild: bool = False) -> None:
    """Run Analytics until cancelled."""
    await prepare(settings, rebuild=rebuild)
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
            found = await session.fetch("SELECT tablename FROM pg_tables WHERE schemaname = $1", SCHEMA)
            known = {table.name for table in tables.OrderRow.metadata.sorted_tables if table.schema == SCHEMA}
            if rebuild or known - {row["tablename"] for row in found}:
                await session.execute(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")
            await migrate_database("analytics", url)
    finally:
        await database.close()

"""What a mall of each release left in its databases, and how a database becomes what it was then.

`tests/data/releases/<number>/<revision>.jsonl` are the rows of a database at that revision, as the code of that
release wrote them; `keys.json` beside them has what they keep only as hashes. A release that has new revisions
adds a folder; none is ever changed. (Transactions are numbered anew from 1, as any server has come that far.)
"""

import json
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from alembic import command
from sqlalchemy import Connection, text

from kernel.database import Database
from mallbots.migrations import alembic_config
from mallbots.settings import DATABASES, DatabaseName

RELEASES = Path(__file__).parents[1] / "data" / "releases"


@dataclass(frozen=True)
class Past:
    """A database as a release left it."""

    name: DatabaseName
    release: int

    def __str__(self) -> str:
        return self.revision

    @property
    def rows(self) -> Path:
        """The file of its rows."""
        return next((RELEASES / str(self.release)).glob(f"{self.name}_*.jsonl"))

    @property
    def revision(self) -> str:
        """The revision that it had."""
        return self.rows.stem

    @property
    def keys(self) -> dict[str, Any]:
        """The keys and the password that the rows have the hashes of."""
        found: dict[str, Any] = json.loads((RELEASES / str(self.release) / "keys.json").read_text())
        return found


def _pasts(name: DatabaseName) -> list[Past]:
    """A database at each revision that was released, the oldest first; with the newest rows that there are."""
    found = [Past(name, int(path.parent.name)) for path in RELEASES.glob(f"*/{name}_*.jsonl")]
    found.sort(key=lambda past: past.release)
    return list({past.revision: past for past in found}.values())


PASTS = {name: _pasts(name) for name in DATABASES}


async def bring_back(database: Database, past: Past) -> None:
    """Make a database anew, as it was then."""

    def make(connection: Connection) -> None:
        connection.execute(text(f"DROP SCHEMA IF EXISTS {past.name} CASCADE"))
        connection.execute(text(f"CREATE SCHEMA {past.name}"))
        config = alembic_config(past.name)
        config.attributes["connection"] = connection
        command.upgrade(config, past.revision)
        write_rows(connection, past)

    async with database.engine.begin() as connection:
        await connection.run_sync(make)


def write_rows(connection: Connection, past: Past) -> None:
    """Write the rows of a release, as its code would, into the schema that there is."""
    lines = [json.loads(line) for line in past.rows.read_text().splitlines()]
    for table, group in groupby(lines, key=lambda line: next(iter(line))):
        rows = [row[table] for row in group]
        columns = ", ".join(dict.fromkeys(column for row in rows for column in row))
        name = f"{past.name}.{table}"
        connection.execute(
            text(
                f"INSERT INTO {name} ({columns}) OVERRIDING SYSTEM VALUE"
                f" SELECT {columns} FROM jsonb_populate_recordset(NULL::{name}, CAST(:rows AS jsonb))"
            ),
            {"rows": json.dumps(rows)},
        )
        if table == "events":
            number = f"SELECT setval(pg_get_serial_sequence('{name}', 'position'), max(position)) FROM {name}"
            connection.execute(text(number))


async def rows_of(database: Database, name: DatabaseName) -> dict[str, list[dict[str, Any]]]:
    """Every row of a database, by table; what is NULL is left out."""
    tables = (
        "SELECT relname FROM pg_class WHERE relnamespace = CAST(:name AS regnamespace) AND relkind = 'r'"
        " AND NOT relispartition AND relname <> 'alembic_version' ORDER BY relname"
    )
    async with database.transaction() as connection:
        found = {}
        for table in (await connection.execute(text(tables), {"name": name})).scalars():
            rows = await connection.execute(
                text(f"SELECT jsonb_strip_nulls(to_jsonb(one))::text FROM {name}.{table} AS one")
            )
            found[table] = [json.loads(row) for row in rows.scalars()]
        return found

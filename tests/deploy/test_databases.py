"""deploy/postgres/databases.sh: a role and a database for each URL, on any server."""

import asyncio
from pathlib import Path
from typing import Final

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from kernel.ids import new_id
from mallbots.embedded import postgres_binary

SCRIPT: Final = Path(__file__).parents[2] / "deploy/postgres/databases.sh"


@pytest.mark.parametrize("rights", ["SUPERUSER", "CREATEROLE CREATEDB"])
async def test_each_role_gets_its_database_from_a_superuser_and_from_the_admin_of_a_managed_server(
    postgres: str, tmp_path: Path, rights: str
) -> None:
    admin, mall = f"admin_{new_id().hex}", f"mall_{new_id().hex}"
    server = create_async_engine(postgres, isolation_level="AUTOCOMMIT")
    async with server.connect() as connection:
        await connection.execute(text(f"CREATE ROLE {admin} LOGIN PASSWORD 'secret' {rights}"))
    address = make_url(postgres).set(drivername="postgresql", username=admin)._replace(password=None)
    own = make_url(postgres).set(username=mall, password="letmein", database=mall)
    (tmp_path / "postgres_password").write_text("secret")
    (tmp_path / "temporal_database_password").write_text("hidden")
    url = own.render_as_string(hide_password=False)
    (tmp_path / "mallbots_orders_database_url").write_text(f"{url}?sslmode=prefer")
    script = SCRIPT.read_text().replace("/run/secrets", str(tmp_path)).replace("temporal", f"temporal_{mall}")
    script = script.replace(f"temporal_{mall}_database_password", "temporal_database_password")
    environment = {
        "SERVER_URL": address.render_as_string(hide_password=False),
        "PATH": f"{postgres_binary('psql').parent}:/usr/bin:/bin",
    }
    for _ in range(2):
        ran = await asyncio.create_subprocess_exec(
            "sh", "-c", script, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        output, errors = await ran.communicate()
        assert (ran.returncode, output) == (0, b"every role has its database\n"), errors.decode()
    role = create_async_engine(own)
    async with role.connect() as connection:
        await connection.execute(text("CREATE SCHEMA orders"))
    await role.dispose()
    async with server.connect() as connection:
        names = text("SELECT datname FROM pg_database WHERE datname LIKE '%' || :mall || '%'")
        found = await connection.scalars(names, {"mall": mall})
        assert set(found) == {mall, f"temporal_{mall}", f"temporal_{mall}_visibility"}
    await server.dispose()

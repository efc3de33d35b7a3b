"""What tests share: real servers, each started once a session."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, NumberDataPoint
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

from domains.depot.service import Depot
from domains.orders.service import Orders
from domains.payments.sandbox import Sandbox
from domains.payments.service import Payments
from domains.stores.service import Stores
from kernel.database import Database
from mallbots.embedded import running_postgres
from mallbots.migrations import migrate_database
from mallbots.settings import DATABASES
from tests.directories import server_directory

_MALL = "tests/end_to_end"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record-histories", metavar="DIR", help="write the histories of recorded stories there")
    parser.addoption("--baskets", metavar="FILE", help="the baskets of the run under fire, instead of a few")
    parser.addoption("--catalog", metavar="FILE", help="the products of those baskets")
    parser.addoption("--kills", type=int, default=1, help="how often NATS and the relay are killed in that run")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "recorded: --record-histories keeps this story's history")


class _ByServers(LoadScopeScheduling):  # type: ignore[misc]
    """Modules are the units that processes share; all that need the one mall are one unit."""

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        return _MALL if module.startswith(_MALL) else module


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Two processes share the tests so that each starts a server at most once."""
    return _ByServers(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins first."""
    items.sort(key=lambda item: not item.nodeid.startswith((_MALL, "tests/test_up.py")))


@pytest.fixture(scope="session")
def metrics_told() -> Callable[[str], dict[str, float]]:
    """What a metric stands at, by the values of its labels; of a histogram, how many it was told of."""
    reader = InMemoryMetricReader()
    metrics.set_meter_provider(MeterProvider([reader]))

    def told(name: str) -> dict[str, float]:
        data = reader.get_metrics_data()
        found = [
            metric
            for resource in (data.resource_metrics if data else [])
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
        ]
        return {
            ",".join(map(str, (point.attributes or {}).values())): (
                point.value if isinstance(point, NumberDataPoint) else point.count
            )
            for metric in found
            for point in metric.data.data_points
        }

    return told


@pytest.fixture(scope="session")
async def postgres() -> AsyncIterator[str]:
    """A PostgreSQL server; the URL of its admin database."""
    with server_directory() as data_dir:
        async with running_postgres(Path(data_dir), durable=False) as url:
            yield url


async def create_database(postgres: str, template: str = "template1") -> str:
    """A new database made from a template; its URL."""
    engine = create_async_engine(postgres, isolation_level="AUTOCOMMIT")
    name = f"test_{uuid4().hex}"
    async with engine.connect() as connection:
        await connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {template}"))
    await engine.dispose()
    return make_url(postgres).set(database=name).render_as_string(hide_password=False)


@pytest.fixture(scope="session")
async def template(postgres: str) -> str:
    """The name of a database with every schema in it, to make others from."""
    url = await create_database(postgres)
    for schema in DATABASES:
        await migrate_database(schema, url)
    name = make_url(url).database
    assert name is not None
    return name


@pytest.fixture(scope="session")
async def migrated_url(postgres: str, template: str) -> str:
    """A database with every schema in it, as new."""
    return await create_database(postgres, template)


@pytest.fixture
async def fresh_database(postgres: str, template: str) -> AsyncIterator[Database]:
    """A database with every schema in it that no other test uses."""
    opened = Database("fresh", await create_database(postgres, template), pool_size=20)
    yield opened
    await opened.close()


@pytest.fixture(scope="session")
async def database(migrated_url: str) -> AsyncIterator[Database]:
    """A database with every schema in it. Tests share it: each uses orders and products of its own."""
    opened = Database("test", migrated_url, pool_size=50)
    yield opened
    await opened.close()


@pytest.fixture(scope="session")
def orders(database: Database) -> Orders:
    return Orders(database)


@pytest.fixture(scope="session")
def stores(database: Database) -> Stores:
    return Stores(database)


@pytest.fixture(scope="session")
def sandbox(database: Database) -> Sandbox:
    return Sandbox(database, timeout=0.05)


@pytest.fixture(scope="session")
def payments(database: Database, sandbox: Sandbox) -> Payments:
    return Payments(database, sandbox)


@pytest.fixture(scope="session")
def depot(database: Database) -> Depot:
    return Depot(database)

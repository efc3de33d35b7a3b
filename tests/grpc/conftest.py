"""What the tests of gRPC share."""

from collections.abc import AsyncIterator

import pytest
from grpc import aio

from api.access import STAFF_ROLES
from kernel.database import Database
from kernel.ids import new_id
from tests.conftest import create_database
from tests.grpc.serving import Mall, serving


@pytest.fixture(scope="session")
async def own_database(postgres: str, template: str) -> AsyncIterator[Database]:
    """A database whose lists no other tests hand out."""
    opened = Database("grpc", await create_database(postgres, template), pool_size=10)
    yield opened
    await opened.close()


@pytest.fixture
def mall(own_database: Database) -> Mall:
    return Mall(own_database)


@pytest.fixture
async def address(mall: Mall) -> AsyncIterator[str]:
    """Where the mall's gateways are."""
    async with serving(mall) as (address, _):
        yield address


@pytest.fixture
async def channel(address: str) -> AsyncIterator[aio.Channel]:
    """A way there, by no key."""
    async with aio.insecure_channel(address) as channel:
        yield channel


@pytest.fixture
async def bea(mall: Mall) -> str:
    """The key of a service that may do everything and is called `bea`."""
    return await mall.service_keys.issue("bea", STAFF_ROLES)


@pytest.fixture
def robot() -> str:
    """The name of a robot that no other test knows."""
    return f"robot-{new_id().hex[-12:]}"


@pytest.fixture
async def token(mall: Mall, robot: str) -> str:
    """That robot's token."""
    return await mall.robot_tokens.issue(robot)

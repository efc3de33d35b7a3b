"""Shopping lists in the hands of robots, for tests that hand lists out: each needs a depot without any other."""

from uuid import UUID

from sqlalchemy import text

from domains.depot.messages import AssignList, ScheduleShopping
from domains.depot.service import Depot
from kernel.database import Database
from kernel.ids import new_id
from tests.samples import priced


async def empty(database: Database) -> None:
    """Let there be no list and no robot."""
    async with database.transaction() as connection:
        await connection.execute(
            text("TRUNCATE depot.shopping_lists, depot.shopping_list_items, depot.robots, depot.events")
        )


def schedule() -> ScheduleShopping:
    """A list with two stops: a rose of Floral, then five teas of Grocery."""
    return ScheduleShopping(
        order_id=new_id(), lines=[priced("tea"), priced("rose", 1, store="Floral"), priced("tea", 3)]
    )


async def released(depot: Depot) -> UUID:
    """The order of such a list, which waits for a robot."""
    command = schedule()
    await depot.schedule(command)
    assert await depot.assign(AssignList(order_id=command.order_id, round=1)) is None
    return command.order_id


async def fall_silent(database: Database, robot: str, seconds: float = 31) -> None:
    """Let a robot have been heard of so long ago for the last time."""
    async with database.transaction() as connection:
        await connection.execute(
            text(
                "UPDATE depot.robots SET last_heard_at = now() - make_interval(secs => :age) WHERE name = :robot"
            ),
            {"robot": robot, "age": seconds},
        )

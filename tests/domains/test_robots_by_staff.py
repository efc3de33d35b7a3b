"""Robots by staff: recalled from a list, let rest, resumed; each act with the name of whoever did it."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from domains.depot.messages import AssignList, Item, RobotAtWork, ShopList
from domains.depot.service import Depot
from kernel.database import Database
from kernel.errors import Conflict, ListLost, NotFound
from kernel.ids import new_id
from tests.conftest import create_database
from tests.robots.lists import empty, released


@pytest.fixture(scope="module")
async def database_of_its_own(postgres: str, template: str) -> AsyncIterator[Database]:
    opened = Database("depot", await create_database(postgres, template))
    yield opened
    await opened.close()


@pytest.fixture
async def own_database(database_of_its_own: Database) -> Database:
    await empty(database_of_its_own)
    return database_of_its_own


@pytest.fixture
def mall(own_database: Database) -> Depot:
    """A depot that no other test hands lists out of."""
    return Depot(own_database)


async def takes(depot: Depot, robot: str) -> UUID | None:
    """The order of the list that the robot has now that it asked for one."""
    await depot.online(robot)
    duty = await depot.take_list(robot)
    return duty.held.order_id if duty else None


async def told(database: Database, stream: str) -> list[tuple[str, Any]]:
    """The events of a stream, each with who of the staff did it."""
    query = text("SELECT type, data ->> 'by' AS who FROM depot.events WHERE stream = :stream ORDER BY version")
    async with database.transaction() as connection:
        return [(row.type, row.who) for row in await connection.execute(query, {"stream": stream})]


async def a_while_later(database: Database) -> None:
    async with database.transaction() as connection:
        await connection.execute(
            text("UPDATE depot.shopping_lists SET recalled_at = recalled_at - interval '11 seconds'")
        )


async def test_a_recalled_list_goes_to_another_robot_which_goes_on_where_the_first_one_stopped(
    mall: Depot, own_database: Database
) -> None:
    order_id = await released(mall)
    assert await takes(mall, "robot-1") == order_id
    await mall.report_item("robot-1", order_id, 1, "rose", picked=1, missing=0)
    assert await mall.shop(ShopList(order_id=order_id, round=1)) is None
    await mall.online("robot-2")

    for _ in range(2):
        assert (await mall.recall("robot-1", order_id, "bea")).status == "idle"
    assert await takes(mall, "robot-1") is None
    with pytest.raises(ListLost):
        await mall.report_item("robot-1", order_id, 2, "tea", picked=5, missing=0)
    recalled = await mall.recalled("robot-1", order_id)
    assert (recalled.reason, recalled.carried) == ("list_lost", [])
    assert recalled.lost is not None
    assert (recalled.lost.shop_round, recalled.lost.result.silent) == (1, "robot-1")

    assert await takes(mall, "robot-2") == order_id
    assert (await mall.recalled("robot-1", order_id)).lost is None
    await mall.report_item("robot-2", order_id, 2, "tea", picked=5, missing=0)
    assert (await mall.finish("robot-2", order_id)).next is None
    assert await told(own_database, f"list-{order_id}") == [
        ("ShoppingListScheduled", None),
        ("ShoppingListReleased", None),
        ("ShoppingListAssigned", None),
        ("ItemPicked", None),
        ("ShoppingListReleased", "bea"),
        ("ShoppingListAssigned", None),
        ("ItemPicked", None),
        ("ShoppingListCompleted", None),
    ]


async def test_the_only_robot_may_have_its_list_again_and_so_may_one_whose_list_no_other_takes(
    mall: Depot, own_database: Database
) -> None:
    order_id = await released(mall)
    await takes(mall, "robot-1")
    await mall.recall("robot-1", order_id, "bea")
    assert await takes(mall, "robot-1") == order_id

    # One that is at work, or rests, is none that could have it.
    await mall.online("robot-2")
    await mall.hold("robot-2", "bea")
    await mall.recall("robot-1", order_id, "bea")
    assert await takes(mall, "robot-1") == order_id

    await mall.resume("robot-2", "bea")
    await mall.recall("robot-1", order_id, "bea")
    assert await takes(mall, "robot-1") is None
    await a_while_later(own_database)
    assert await takes(mall, "robot-1") == order_id


async def test_a_robot_keeps_the_list_that_it_was_not_recalled_from(mall: Depot) -> None:
    lost, kept = await released(mall), await released(mall)
    await takes(mall, "robot-1")
    await mall.online("robot-2")
    await mall.recall("robot-1", lost, "bea")
    assert await takes(mall, "robot-1") == kept
    assert (await mall.recall("robot-1", lost, "bea")).order_id == kept
    with pytest.raises(NotFound):
        await mall.recall("nobody", lost, "bea")
    with pytest.raises(NotFound):
        await mall.recall("robot-1", new_id(), "bea")


async def test_a_robot_that_rests_finishes_its_list_and_gets_no_other_until_it_is_resumed(
    mall: Depot, own_database: Database
) -> None:
    first = await released(mall)
    await takes(mall, "robot-1")
    for _ in range(2):
        held = await mall.hold("robot-1", "bea")
        assert (held.status, held.held_by) == ("busy", "bea")
    await mall.report_item("robot-1", first, 1, "rose", picked=1, missing=0)
    await mall.report_item("robot-1", first, 2, "tea", picked=5, missing=0)
    await mall.finish("robot-1", first)

    second = await released(mall)
    # Neither its own word nor a new stream ends its rest.
    await mall.ready("robot-1")
    stream = new_id()
    await mall.online("robot-1", stream)
    await mall.offline("robot-1", stream)
    await mall.online("robot-1")
    await mall.ready("robot-1")
    assert await takes(mall, "robot-1") is None
    assert (await mall.robot("robot-1")).status == "on_break"
    for _ in range(2):
        resumed = await mall.resume("robot-1", "cy")
        assert (resumed.status, resumed.held_by, resumed.held_since) == ("idle", None, None)
    assert await takes(mall, "robot-1") == second
    assert await told(own_database, "robot-robot-1") == [
        ("RobotRegistered", None),
        ("RobotOnline", None),
        ("RobotHeld", "bea"),
        ("RobotOffline", None),
        ("RobotResumed", "cy"),
        ("RobotOnline", None),
    ]


async def test_a_robot_that_is_on_a_break_of_its_own_is_still_so_when_staff_let_it_work_again(
    mall: Depot, own_database: Database
) -> None:
    await mall.online("robot-1")
    await mall.hold("robot-1", "bea")
    await mall.on_break("robot-1")
    assert (await mall.resume("robot-1", "bea")).status == "on_break"
    await mall.ready("robot-1")
    assert (await mall.robot("robot-1")).status == "idle"
    assert [name for name, _ in await told(own_database, "robot-robot-1")][1:] == [
        "RobotOnline",
        "RobotHeld",
        "RobotOffline",
        "RobotResumed",
        "RobotOnline",
    ]


async def test_a_robot_is_retired_by_somebody_once_and_does_not_rest(mall: Depot, own_database: Database) -> None:
    order_id = await released(mall)
    await takes(mall, "robot-1")
    for _ in range(2):
        await mall.retire("robot-1", "bea")
    assert await told(own_database, "robot-robot-1") == [
        ("RobotRegistered", None),
        ("RobotOnline", None),
        ("RobotOffline", None),
        ("RobotRetired", "bea"),
    ]
    assert (await told(own_database, f"list-{order_id}"))[-1] == ("ShoppingListReleased", "bea")
    for command in (mall.hold, mall.resume):
        with pytest.raises(Conflict, match="robot robot-1 is retired"):
            await command("robot-1", "bea")
        with pytest.raises(NotFound):
            await command("nobody", "bea")


async def test_staff_see_where_each_robot_is_and_what_it_carries(mall: Depot) -> None:
    order_id = await released(mall)
    await takes(mall, "robot-1")
    await mall.register("robot-2")

    async def seen() -> RobotAtWork:
        busy, new = await mall.robots_at_work()
        assert (new.status, new.quiet_seconds, new.order_id, new.pieces) == ("offline", None, None, 0)
        assert (busy.status, busy.order_id, busy.pieces) == ("busy", order_id, 6)
        assert busy.quiet_seconds is not None
        assert 0 <= busy.quiet_seconds < 10
        assert busy.last_heard_at is not None
        assert (datetime.now(UTC) - busy.last_heard_at).total_seconds() < 10
        return busy

    one = await seen()
    assert (one.doing, one.at, one.heads_for, one.picked, one.carries) == ("pick", None, "Floral", 0, [])
    await mall.report_item("robot-1", order_id, 1, "rose", picked=1, missing=0)
    one = await seen()
    assert (one.doing, one.at, one.heads_for, one.picked) == ("pick", "Floral", "Grocery", 1)
    await mall.report_item("robot-1", order_id, 2, "tea", picked=3, missing=2)
    one = await seen()
    assert (one.doing, one.at, one.heads_for, one.picked, one.missing) == ("wait", "Grocery", None, 4, 2)
    assert one.carries == [
        Item(sku="rose", name="rose", quantity=1),
        Item(sku="tea", name="tea", quantity=3),
    ]


async def test_the_saga_finds_a_recalled_list_with_the_robot_that_has_it_now(mall: Depot) -> None:
    order_id = await released(mall)
    await takes(mall, "robot-1")
    await mall.online("robot-2")
    await mall.recall("robot-1", order_id, "bea")
    result = await mall.shop(ShopList(order_id=order_id, round=1))
    assert result is not None
    assert result.silent == "robot-1"
    await takes(mall, "robot-2")
    assignment = await mall.assign(AssignList(order_id=order_id, round=2))
    assert assignment is not None
    assert assignment.robot == "robot-2"

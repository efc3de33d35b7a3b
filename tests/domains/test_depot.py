"""Depot: an order becomes a shopping list, which one robot after the other may shop, each list once."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from domains.depot.messages import (
    AmendList,
    AssignList,
    Assignment,
    CancelledShopping,
    CancelShopping,
    Duty,
    Item,
    ShopList,
    ShoppingResult,
    Stop,
)
from domains.depot.model import plan_stops
from domains.depot.service import STORE, Depot
from kernel.database import Database
from kernel.errors import (
    Conflict,
    Forbidden,
    InvalidInput,
    ListLost,
    MallError,
    NotFound,
    OrderClosed,
    Unavailable,
)
from kernel.ids import new_id
from kernel.messages import Pieces
from tests.conftest import create_database
from tests.robots.lists import empty, fall_silent, released, schedule
from tests.samples import priced

LIST_EVENTS = "SELECT type FROM depot.events WHERE stream = :stream ORDER BY version"


@pytest.fixture(scope="module")
async def database_of_its_own(postgres: str, template: str) -> AsyncIterator[Database]:
    opened = Database("depot", await create_database(postgres, template), pool_size=20)
    yield opened
    await opened.close()


@pytest.fixture
async def own_database(database_of_its_own: Database) -> Database:
    """A database without any list or robot."""
    await empty(database_of_its_own)
    return database_of_its_own


@pytest.fixture
def mall(own_database: Database) -> Depot:
    """A depot that no other test hands lists out of; a robot is silent after half a minute."""
    return Depot(own_database)


async def taken(depot: Depot, robot: str = "robot-1") -> UUID:
    """The order of a list that a robot has just taken."""
    order_id = await released(depot)
    await depot.online(robot)
    duty = await depot.take_list(robot)
    assert duty is not None
    assert duty.held.order_id == order_id
    return order_id


async def report(depot: Depot, robot: str, order_id: UUID, rose: int | None = 1, tea: int | None = 5) -> Duty:
    """The robot reports so many picked, the rest missing."""
    duty = None
    for stop, sku, quantity, picked in ((1, "rose", 1, rose), (2, "tea", 5, tea)):
        if picked is not None:
            duty = await depot.report_item(robot, order_id, stop, sku, picked=picked, missing=quantity - picked)
    assert duty is not None
    return duty


async def list_of(database: Database, order_id: UUID) -> tuple[str, int, list[str]]:
    """The list's status, its number of items, and the events of its stream."""
    values = {"order_id": order_id, "stream": f"list-{order_id}"}
    async with database.transaction() as connection:
        status = await connection.execute(
            text("SELECT status FROM depot.shopping_lists WHERE order_id = :order_id"), values
        )
        items = await connection.execute(
            text("SELECT count(*) FROM depot.shopping_list_items WHERE order_id = :order_id"), values
        )
        events = await connection.execute(text(LIST_EVENTS), values)
        return status.scalar_one(), items.scalar_one(), [row.type for row in events]


async def events_of(database: Database, stream: str) -> list[str]:
    async with database.transaction() as connection:
        return [row.type for row in await connection.execute(text(LIST_EVENTS), {"stream": stream})]


async def again_if_unavailable(call: Callable[[], Awaitable[Any]]) -> Any:
    """As every caller does."""
    while True:
        try:
            return await call()
        except Unavailable:
            continue


# Made and dropped


def test_a_list_has_one_stop_for_each_store_and_one_item_for_each_product() -> None:
    assert plan_stops(schedule().lines, {}) == [
        Stop(store="Floral", items=[Item(sku="rose", name="rose", quantity=1)]),
        Stop(store="Grocery", items=[Item(sku="tea", name="tea", quantity=5)]),
    ]


async def test_a_list_scheduled_twice_is_one_list(depot: Depot, database: Database) -> None:
    command = schedule()
    for _ in range(2):
        await depot.schedule(command)
    assert await list_of(database, command.order_id) == ("scheduled", 2, ["ShoppingListScheduled"])


async def test_a_list_cancelled_twice_is_cancelled_once(depot: Depot, database: Database) -> None:
    command = schedule()
    await depot.schedule(command)
    for _ in range(2):
        await depot.cancel(CancelShopping(order_id=command.order_id, reason="payment_declined"))
    status, _, events = await list_of(database, command.order_id)
    assert (status, events) == ("cancelled", ["ShoppingListScheduled", "ShoppingListCancelled"])


async def test_a_schedule_that_comes_after_its_cancel_is_refused(depot: Depot, database: Database) -> None:
    command = schedule()
    for _ in range(2):
        await depot.cancel(CancelShopping(order_id=command.order_id, reason="cancelled by customer"))
    with pytest.raises(OrderClosed):
        await depot.schedule(command)
    assert await list_of(database, command.order_id) == ("cancelled", 0, ["ShoppingListCancelled"])


async def test_no_step_of_the_saga_goes_on_with_a_cancelled_list(depot: Depot) -> None:
    command = schedule()
    await depot.cancel(CancelShopping(order_id=command.order_id, reason="cancelled"))
    for step in (
        depot.assign(AssignList(order_id=command.order_id, round=1)),
        depot.shop(ShopList(order_id=command.order_id, round=1)),
        depot.amend(AmendList(order_id=command.order_id, round=1, lines=[])),
    ):
        with pytest.raises(OrderClosed):
            await step


# Handed out


async def test_the_list_that_has_waited_longest_goes_first(mall: Depot) -> None:
    orders = [await released(mall) for _ in range(3)]
    handed_out = []
    for number in range(3):
        await mall.online(f"robot-{number}")
        duty = await mall.take_list(f"robot-{number}")
        assert duty is not None
        handed_out.append(duty.held.order_id)
    assert handed_out == orders
    await mall.online("late")
    assert await mall.take_list("late") is None


async def test_a_list_that_a_silent_robot_lost_keeps_its_place(mall: Depot, own_database: Database) -> None:
    first = await taken(mall)
    await released(mall)
    await fall_silent(own_database, "robot-1")
    await mall.sweep()
    await mall.online("robot-2")
    duty = await mall.take_list("robot-2")
    assert duty is not None
    assert duty.held.order_id == first


async def test_a_robot_that_holds_a_list_gets_the_same_again(mall: Depot) -> None:
    order_id = await taken(mall)
    await released(mall)
    again = await mall.take_list("robot-1")
    assert again is not None
    assert again.held.order_id == order_id


async def test_only_a_robot_that_is_ready_gets_a_list(mall: Depot, own_database: Database) -> None:
    await released(mall)
    with pytest.raises(NotFound):
        await mall.take_list("robot-1")
    await mall.register("robot-1")
    assert await mall.take_list("robot-1") is None
    await mall.online("robot-1")
    await mall.on_break("robot-1")
    assert await mall.take_list("robot-1") is None
    await mall.ready("robot-1")
    assert await mall.take_list("robot-1") is not None
    assert await events_of(own_database, "robot-robot-1") == [
        "RobotRegistered",
        "RobotOnline",
        "RobotOffline",
        "RobotOnline",
    ]


async def test_twenty_robots_of_many_gateways_get_each_list_once(own_database: Database, mall: Depot) -> None:
    gateways = [Depot(own_database) for _ in range(3)]
    orders = {await released(mall) for _ in range(15)}
    robots = [f"robot-{number}" for number in range(20)]
    await asyncio.gather(*map(mall.online, robots))

    async def shop(number: int, robot: str) -> list[UUID]:
        shopped = []
        for attempt in range(3):
            depot = gateways[(number + attempt) % 3]
            # Two streams of one robot, which asks twice.
            duties = await asyncio.gather(
                *(again_if_unavailable(partial(depot.take_list, robot)) for _ in range(2))
            )
            orders = {duty.held.order_id for duty in duties if duty}
            assert len(orders) <= 1
            if not orders:
                break
            order_id = orders.pop()
            await report(depot, robot, order_id)
            await depot.finish(robot, order_id)
            shopped.append(order_id)
        return shopped

    shopped = [order for orders in await asyncio.gather(*map(shop, range(20), robots)) for order in orders]
    # Whoever came while all were being looked at went home.
    for depot in gateways:
        await depot.online("last")
        while duty := await depot.take_list("last"):
            await report(depot, "last", duty.held.order_id)
            await depot.finish("last", duty.held.order_id)
            shopped.append(duty.held.order_id)
    assert len(shopped) == 15
    assert set(shopped) == orders


# Shopped


async def test_a_list_is_shopped_item_by_item_and_delivered(mall: Depot, own_database: Database) -> None:
    order_id = await taken(mall)
    assert await mall.assign(AssignList(order_id=order_id, round=1)) == Assignment(robot="robot-1")
    assert await mall.shop(ShopList(order_id=order_id, round=1)) is None
    assert (await report(mall, "robot-1", order_id, tea=None)).next == "pick"
    with pytest.raises(Conflict):
        await mall.finish("robot-1", order_id)
    duty = await report(mall, "robot-1", order_id, rose=None)
    assert (duty.next, duty.shop_round, duty.result) == ("deliver", 1, None)
    duty = await mall.finish("robot-1", order_id)
    result = ShoppingResult(picked=[Pieces(sku="rose", quantity=1), Pieces(sku="tea", quantity=5)], completed=True)
    assert (duty.next, duty.shop_round, duty.result) == (None, 1, result)
    assert await mall.shop(ShopList(order_id=order_id, round=1)) == result
    assert (await list_of(own_database, order_id))[2] == [
        "ShoppingListScheduled",
        "ShoppingListReleased",
        "ShoppingListAssigned",
        "ItemPicked",
        "ItemPicked",
        "ShoppingListCompleted",
    ]
    assert (await mall.robot("robot-1")).status == "idle"


async def test_a_report_sent_twice_counts_once_and_another_one_is_refused(
    mall: Depot, own_database: Database
) -> None:
    order_id = await taken(mall)
    for _ in range(2):
        await report(mall, "robot-1", order_id, rose=None, tea=3)
    with pytest.raises(Conflict):
        await report(mall, "robot-1", order_id, rose=None, tea=5)
    events = (await list_of(own_database, order_id))[2]
    assert (events.count("ItemPicked"), events.count("ItemMissing")) == (1, 1)


async def test_what_is_done_may_be_said_again(mall: Depot, own_database: Database) -> None:
    order_id = await taken(mall)
    for _ in range(2):
        await report(mall, "robot-1", order_id)
        await mall.finish("robot-1", order_id)
        await report(mall, "robot-1", order_id)
    assert (await list_of(own_database, order_id))[2].count("ShoppingListCompleted") == 1


@pytest.mark.parametrize(
    ("stop", "sku", "picked", "missing", "error"),
    [
        (2, "tea", 5, 1, InvalidInput),
        (2, "tea", 6, -1, InvalidInput),
        (1, "tea", 5, 0, NotFound),
        (9, "rose", 1, 0, NotFound),
    ],
)
async def test_a_report_that_does_not_fit_the_list_is_refused(
    mall: Depot, stop: int, sku: str, picked: int, missing: int, error: type[MallError]
) -> None:
    order_id = await taken(mall)
    with pytest.raises(error):
        await mall.report_item("robot-1", order_id, stop, sku, picked=picked, missing=missing)


async def test_what_is_missing_waits_for_word_and_a_substitute_gets_a_stop_of_its_own(
    mall: Depot, own_database: Database
) -> None:
    order_id = await taken(mall)
    assert await mall.shop(ShopList(order_id=order_id, round=1)) is None
    duty = await report(mall, "robot-1", order_id, tea=3)
    result = ShoppingResult(
        picked=[Pieces(sku="rose", quantity=1), Pieces(sku="tea", quantity=3)],
        missing=[Pieces(sku="tea", quantity=2)],
    )
    assert (duty.next, duty.shop_round, duty.result) == ("wait", 1, result)
    with pytest.raises(Conflict):
        await mall.finish("robot-1", order_id)

    # One of the substitutes is on the list already, and stays as it was reported.
    word = AmendList(order_id=order_id, round=1, lines=[priced("rose", 2, store="Floral"), priced("mate", 1)])
    for _ in range(2):
        await mall.amend(word)
    assert await mall.shop(ShopList(order_id=order_id, round=2)) is None
    duty = await mall.report_item("robot-1", order_id, 3, "rose", picked=2, missing=0)
    assert duty.next == "pick"
    duty = await mall.report_item("robot-1", order_id, 4, "mate", picked=0, missing=1)
    assert (duty.next, duty.shop_round) == ("wait", 2)
    assert duty.result is not None
    assert duty.result.picked == [Pieces(sku="rose", quantity=3), Pieces(sku="tea", quantity=3)]
    assert duty.result.missing == [Pieces(sku="mate", quantity=1), Pieces(sku="tea", quantity=2)]

    await mall.amend(AmendList(order_id=order_id, round=2, lines=[]))
    duty = await mall.finish("robot-1", order_id)
    assert duty.result is not None
    assert duty.result.completed
    assert (await list_of(own_database, order_id))[2].count("ShoppingListAmended") == 2


async def test_the_result_comes_exactly_one_way_however_the_last_report_and_the_step_race(
    mall: Depot, own_database: Database
) -> None:
    ways = {"found by the step": 0, "told by the gateway": 0}
    rounds = random.Random(7)

    async def once(number: int) -> None:
        robot = f"robot-{number}"
        order_id = (await released_and_taken(mall, robot)).held.order_id
        await report(mall, robot, order_id, tea=None)

        async def last() -> Duty:
            await asyncio.sleep(rounds.uniform(0, 0.004))
            if number % 2:
                return await report(mall, robot, order_id, rose=None, tea=3)
            await report(mall, robot, order_id, rose=None)
            return await mall.finish(robot, order_id)

        async def step() -> ShoppingResult | None:
            await asyncio.sleep(rounds.uniform(0, 0.008))
            return await mall.shop(ShopList(order_id=order_id, round=1))

        duty, found = await asyncio.gather(last(), step())
        assert duty.result is not None
        told = duty.result if duty.shop_round == 1 else None
        assert (found is None) != (told is None)
        assert (found or told) == duty.result
        ways["found by the step" if found else "told by the gateway"] += 1

    for batch in range(10):
        await asyncio.gather(*(once(batch * 8 + number) for number in range(8)))
    assert all(ways.values()), ways


async def released_and_taken(depot: Depot, robot: str) -> Duty:
    """A list in the hands of a robot, whichever list it is."""
    await released(depot)
    await depot.online(robot)
    while True:
        duty: Duty | None = await again_if_unavailable(lambda: depot.take_list(robot))
        if duty:
            return duty


async def test_the_assignment_comes_exactly_one_way_however_the_robot_and_the_step_race(mall: Depot) -> None:
    ways = {"found by the step": 0, "told by the gateway": 0}
    await mall.online("robot-1")
    for number in range(30):
        order_id = await released(mall)
        if number % 3 == 0:
            await asyncio.sleep(0)

        async def take() -> Duty:
            while not (duty := await again_if_unavailable(lambda: mall.take_list("robot-1"))):
                pass
            assert isinstance(duty, Duty)
            return duty

        duty, found = await asyncio.gather(take(), mall.assign(AssignList(order_id=order_id, round=2)))
        assert (found is None) == (duty.assign_round == 2)
        ways["found by the step" if found else "told by the gateway"] += 1
        await report(mall, "robot-1", order_id)
        await mall.finish("robot-1", order_id)
    assert ways["told by the gateway"]


# Silence


async def test_a_silent_robot_loses_its_list_and_the_next_goes_on_where_it_stopped(
    mall: Depot, own_database: Database
) -> None:
    order_id = await taken(mall)
    await report(mall, "robot-1", order_id, tea=None)
    assert await mall.shop(ShopList(order_id=order_id, round=1)) is None
    await fall_silent(own_database, "robot-1", 29)
    assert await mall.shop(ShopList(order_id=order_id, round=1)) is None

    await fall_silent(own_database, "robot-1")
    picked = [Pieces(sku="rose", quantity=1)]
    for _ in range(2):
        lost = await mall.shop(ShopList(order_id=order_id, round=1))
        assert lost == ShoppingResult(silent="robot-1", picked=picked)
    assert (await mall.robot("robot-1")).status == "offline"
    with pytest.raises(ListLost):
        await report(mall, "robot-1", order_id, rose=None)

    assert await mall.assign(AssignList(order_id=order_id, round=2)) is None
    await mall.online("robot-2")
    duty = await mall.take_list("robot-2")
    assert duty is not None
    assert (duty.assign_round, duty.next) == (2, "pick")
    assert [(item.sku, item.picked) for stop in duty.held.stops for item in stop.items] == [
        ("rose", 1),
        ("tea", None),
    ]
    for refused in (report(mall, "robot-1", order_id), mall.finish("robot-1", order_id)):
        with pytest.raises(ListLost):
            await refused
    assert (await mall.recalled("robot-1", order_id)).reason == "list_lost"
    await mall.returned("robot-1", order_id)
    await report(mall, "robot-2", order_id)
    await mall.finish("robot-2", order_id)
    assert (await list_of(own_database, order_id))[2] == [
        "ShoppingListScheduled",
        "ShoppingListReleased",
        "ShoppingListAssigned",
        "ItemPicked",
        "ShoppingListReleased",
        "ShoppingListAssigned",
        "ItemPicked",
        "ShoppingListCompleted",
    ]


async def test_whoever_was_heard_of_in_the_meantime_keeps_its_list(mall: Depot, own_database: Database) -> None:
    order_id = await taken(mall)
    await fall_silent(own_database, "robot-1")
    await mall.heard_of({"robot-1": 5.0, "nobody": 0.0})
    assert await mall.shop(ShopList(order_id=order_id, round=1)) is None
    assert await mall.sweep() == []
    # What comes late of an older time changes nothing.
    await mall.heard_of({"robot-1": 3600.0})
    assert await mall.sweep() == []


async def test_the_sweep_takes_lists_from_the_silent_and_lets_all_silent_ones_count_as_gone(
    mall: Depot, own_database: Database
) -> None:
    order_id = await taken(mall)
    assert await mall.shop(ShopList(order_id=order_id, round=1)) is None
    for robot in ("idle", "awake", "paused"):
        await mall.online(robot)
    await mall.on_break("paused")
    for robot in ("robot-1", "idle", "paused"):
        await fall_silent(own_database, robot)
    swept = await asyncio.gather(*(again_if_unavailable(mall.sweep) for _ in range(3)))
    lost = [(one.order_id, one.shop_round, one.result.silent) for some in swept for one in some]
    assert lost == [(order_id, 1, "robot-1")]
    assert {robot.robot: robot.status for robot in await mall.robots()} == {
        "robot-1": "offline",
        "idle": "offline",
        "paused": "offline",
        "awake": "idle",
    }
    assert (await list_of(own_database, order_id))[0] == "released"


async def test_a_list_lost_while_there_is_no_word_yet_waits_for_word_with_the_next_robot(
    mall: Depot, own_database: Database
) -> None:
    order_id = await taken(mall)
    await report(mall, "robot-1", order_id, tea=0)
    await fall_silent(own_database, "robot-1")
    await mall.sweep()
    await mall.online("robot-2")
    duty = await mall.take_list("robot-2")
    assert duty is not None
    assert (duty.next, duty.held.status) == ("wait", "collected")
    await mall.amend(AmendList(order_id=order_id, round=1, lines=[]))
    duty = await mall.duty("robot-2")
    assert duty is not None
    assert (duty.next, duty.held.status) == ("deliver", "assigned")


# Recalled


async def test_what_a_robot_carries_of_a_cancelled_list_counts_as_returned_once(
    mall: Depot, own_database: Database
) -> None:
    order_id = await taken(mall)
    await report(mall, "robot-1", order_id, tea=3)
    carried = [Pieces(sku="rose", quantity=1), Pieces(sku="tea", quantity=3)]
    cancel = CancelShopping(order_id=order_id, reason="cancelled by staff")
    expected = CancelledShopping(robot="robot-1", carried=carried)
    assert await mall.cancel(cancel) == expected
    recalled = await mall.recalled("robot-1", order_id)
    assert (recalled.reason, recalled.carried) == ("cancelled by staff", carried)
    with pytest.raises(ListLost):
        await report(mall, "robot-1", order_id)

    # It has to put that back first.
    await released(mall)
    duty = await mall.take_list("robot-1")
    assert duty is not None
    assert (duty.next, duty.carried) == ("give_back", carried)
    assert (await mall.robot("robot-1")).order_id == order_id

    for _ in range(2):
        await mall.returned("robot-1", order_id)
    await mall.confirm_return(order_id, "ada")
    assert await mall.cancel(cancel) == expected
    assert (await list_of(own_database, order_id))[2][-2:] == ["ShoppingListCancelled", "ItemsReturned"]
    assert (await mall.robot("robot-1")).order_id is None
    duty = await mall.take_list("robot-1")
    assert duty is not None
    assert duty.next == "pick"


async def test_staff_confirms_what_a_robot_that_is_gone_for_good_carried(
    mall: Depot, own_database: Database
) -> None:
    order_id = await taken(mall)
    with pytest.raises(Conflict):
        await mall.confirm_return(order_id, "ada")
    with pytest.raises(Conflict):
        await mall.returned("robot-1", order_id)
    await report(mall, "robot-1", order_id, tea=0)
    await mall.cancel(CancelShopping(order_id=order_id, reason="cancelled"))
    assert (await mall.retire("robot-1", "bea")).order_id == order_id
    for _ in range(2):
        await mall.confirm_return(order_id, "ada")
    async with own_database.transaction() as connection:
        events = await STORE.load(connection, f"list-{order_id}")
    assert [event.model_dump(include={"pieces", "by"}) for event in events[-1:]] == [
        {"pieces": [{"sku": "rose", "quantity": 1}], "by": "ada"}
    ]


@pytest.mark.parametrize("state", ["scheduled", "released", "nothing picked", "lost", "completed"])
async def test_nothing_is_carried_of_a_list_that_is_in_no_hands(
    mall: Depot, own_database: Database, state: str
) -> None:
    if state == "scheduled":
        command = schedule()
        await mall.schedule(command)
        order_id = command.order_id
    elif state == "released":
        order_id = await released(mall)
    else:
        order_id = await taken(mall)
        if state != "nothing picked":
            await report(mall, "robot-1", order_id)
        if state == "lost":
            await fall_silent(own_database, "robot-1")
            await mall.sweep()
        if state == "completed":
            await mall.finish("robot-1", order_id)
    for _ in range(2):
        cancelled = await mall.cancel(CancelShopping(order_id=order_id, reason="cancelled"))
        assert cancelled == CancelledShopping(robot="robot-1" if state == "nothing picked" else None)
    await mall.confirm_return(order_id, "ada")
    assert "ItemsReturned" not in (await list_of(own_database, order_id))[2]


async def test_a_cancel_races_the_last_report_and_the_robot_is_recalled_or_done(mall: Depot) -> None:
    async def once(number: int) -> None:
        robot = f"robot-{number}"
        order_id = (await released_and_taken(mall, robot)).held.order_id
        await report(mall, robot, order_id, tea=None)
        said, cancelled = await asyncio.gather(
            report(mall, robot, order_id, rose=None),
            mall.cancel(CancelShopping(order_id=order_id, reason="cancelled")),
            return_exceptions=True,
        )
        assert isinstance(cancelled, CancelledShopping)
        pieces = 1 if isinstance(said, ListLost) else 6
        assert sum(one.quantity for one in cancelled.carried) == pieces

    await asyncio.gather(*map(once, range(20)))


# Robots


async def test_a_retired_robot_is_refused_and_its_list_goes_to_the_next(mall: Depot) -> None:
    order_id = await taken(mall)
    for _ in range(2):
        assert (await mall.retire("robot-1", "bea")).status == "retired"
    for refused in (mall.online("robot-1"), mall.ready("robot-1"), mall.take_list("robot-1")):
        with pytest.raises(Forbidden):
            await refused
    await mall.online("robot-2")
    duty = await mall.take_list("robot-2")
    assert duty is not None
    assert duty.held.order_id == order_id
    with pytest.raises(NotFound):
        await mall.retire("nobody", "bea")


async def test_a_robot_that_leaves_with_a_list_in_hand_counts_as_there_until_its_silence_tells(
    mall: Depot,
) -> None:
    await taken(mall)
    streams = {robot: new_id() for robot in ("robot-1", "idle", "elsewhere")}
    for robot, stream in streams.items():
        await mall.online(robot, stream)
    await mall.online("elsewhere", new_id())
    for robot, stream in streams.items():
        await mall.offline(robot, stream)
    assert {robot.robot: robot.status for robot in await mall.robots()} == {
        "robot-1": "busy",
        "idle": "offline",
        "elsewhere": "idle",
    }


@pytest.mark.parametrize("name", ["", "a.b", "x" * 61, "rob ot"])
async def test_a_robot_whose_name_does_not_fit_a_subject_is_refused(depot: Depot, name: str) -> None:
    with pytest.raises(InvalidInput):
        await depot.online(name)


async def test_lists_are_read_by_status_the_newest_order_first(mall: Depot) -> None:
    first = await taken(mall)
    second, third = await released(mall), await released(mall)
    assert [view.order_id for view in await mall.lists()] == [third, second, first]
    assert [view.order_id for view in await mall.lists(["released"], limit=1)] == [third]
    assert [view.order_id for view in await mall.lists(["released"], before=third)] == [second]
    view = await mall.shopping_list(first)
    assert (view.status, view.robot, [stop.store for stop in view.stops]) == (
        "assigned",
        "robot-1",
        ["Floral", "Grocery"],
    )
    with pytest.raises(NotFound):
        await mall.shopping_list(new_id())

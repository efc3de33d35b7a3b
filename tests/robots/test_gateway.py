"""Robots at the gateway: they get lists, each once; report; are recalled; fall silent; come back."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from uuid import UUID

import grpc
import pytest
from grpc import aio

from api.generated.mallbots.automation.v1 import automation_pb2 as pb
from api.robots.gateway import RobotGateway
from domains.depot.messages import AmendList, AssignList, CancelShopping, ShopList
from domains.depot.service import Depot
from kernel.errors import Unavailable
from kernel.messages import Pieces
from tests.robots.conftest import Gateways, Robot
from tests.robots.lists import fall_silent, released
from tests.samples import priced
from tests.waiting import eventually


async def with_list(robot: Robot, depot: Depot) -> tuple[UUID, pb.ShoppingList]:
    """The robot gets a new list."""
    order_id = await released(depot)
    await robot.ready()
    return order_id, await robot.hear("list")


# Lists are handed out


async def test_a_robot_that_waits_gets_a_list_when_there_is_one_and_the_saga_is_told(
    gateways: Gateways, channel: aio.Channel
) -> None:
    async with Robot(channel, "robot-1") as robot:
        await robot.ready()
        order_id = await released(gateways.depot)
        shopping = await robot.hear("list")
        assert shopping.order_id == str(order_id)
        assert [
            (stop.number, stop.store, item.sku, item.quantity) for stop in shopping.stops for item in stop.items
        ] == [(1, "Floral", "rose", 1), (2, "Grocery", "tea", 5)]
        assert await eventually(lambda: gateways.steps.assigned_to) == [(order_id, 1, "robot-1")]


async def test_a_robot_gets_a_list_that_waited_already(gateways: Gateways, channel: aio.Channel) -> None:
    async with Robot(channel, "robot-1") as robot:
        order_id, shopping = await with_list(robot, gateways.depot)
        assert shopping.order_id == str(order_id)


async def test_a_robot_on_break_gets_no_list_until_it_is_ready(gateways: Gateways, channel: aio.Channel) -> None:
    async with Robot(channel, "robot-1") as paused, Robot(channel, "robot-2") as other:
        await paused.ready()
        await paused.say(break_=pb.Break())
        assert (await paused.hear("accepted")).WhichOneof("what") == "break"
        first, _ = await with_list(other, gateways.depot)
        second, shopping = await with_list(paused, gateways.depot)
        assert shopping.order_id == str(second) != str(first)


async def test_three_gateways_hand_out_each_list_once_to_twenty_robots(gateways: Gateways) -> None:
    orders = [await released(gateways.depot) for _ in range(20)]
    shopped: list[str] = []
    async with AsyncExitStack() as stack:
        channels = await gateways.several(stack, 3)

        async def work(number: int) -> None:
            robot = await stack.enter_async_context(Robot(channels[number % 3], f"robot-{number}"))
            while True:
                await robot.ready()
                shopping = await robot.hear("list")
                await robot.shop(shopping)
                shopped.append(shopping.order_id)

        working = [asyncio.create_task(work(number)) for number in range(20)]
        await eventually(lambda: len(shopped) >= 20)
        orders += [await released(gateways.depot) for _ in range(20)]
        await eventually(lambda: len(shopped) >= 40)
        for task in working:
            task.cancel()
        await asyncio.wait(working)
    assert sorted(shopped) == sorted(map(str, orders))
    assert sorted(order for order, _, _ in gateways.steps.assigned_to) == sorted(orders)


async def test_two_hundred_robots_on_one_gateway_get_their_lists_within_seconds(
    gateways: Gateways, channel: aio.Channel
) -> None:
    async with AsyncExitStack() as stack, asyncio.timeout(20):
        robots = [Robot(channel, f"robot-{number:03}") for number in range(200)]
        await asyncio.gather(*map(stack.enter_async_context, robots))
        await asyncio.gather(*(robot.ready() for robot in robots))
        orders = await asyncio.gather(*(released(gateways.depot) for _ in robots))
        lists = await asyncio.gather(*(robot.hear("list") for robot in robots))
        assert sorted(shopping.order_id for shopping in lists) == sorted(map(str, orders))
        await asyncio.gather(*(robot.shop(shopping) for robot, shopping in zip(robots[:20], lists, strict=False)))


# Lists are shopped


async def test_what_is_missing_waits_for_word_and_the_substitute_is_picked(
    gateways: Gateways, channel: aio.Channel
) -> None:
    depot = gateways.depot
    async with Robot(channel, "robot-1") as robot:
        order_id, shopping = await with_list(robot, depot)
        assert await depot.shop(ShopList(order_id=order_id, round=1)) is None
        await robot.report(shopping.order_id, 1, "rose", 1)
        await robot.hear("item_accepted")
        await robot.report(shopping.order_id, 2, "tea", 3, missing=2)
        assert (await robot.hear("item_accepted", "wait")).order_id == str(order_id)
        [(told, round, result)] = await eventually(lambda: gateways.steps.results)
        assert (told, round, result.missing) == (order_id, 1, [Pieces(sku="tea", quantity=2)])

        await depot.amend(AmendList(order_id=order_id, round=1, lines=[priced("mate", 2)]))
        assert await depot.shop(ShopList(order_id=order_id, round=2)) is None
        more = await robot.hear("list")
        assert [(item.sku, item.reported) for stop in more.stops for item in stop.items] == [
            ("rose", True),
            ("tea", True),
            ("mate", False),
        ]
        await robot.shop(more)
        _, (told, round, result) = await eventually(lambda: gateways.steps.results[1:] and gateways.steps.results)
        assert (told, round, result.completed) == (order_id, 2, True)


async def test_a_robot_delivers_when_the_word_is_that_nothing_more_is_picked(
    gateways: Gateways, channel: aio.Channel
) -> None:
    async with Robot(channel, "robot-1") as robot:
        order_id, shopping = await with_list(robot, gateways.depot)
        await robot.report(shopping.order_id, 1, "rose", 0, missing=1)
        await robot.report(shopping.order_id, 2, "tea", 5)
        await robot.hear("item_accepted", "item_accepted", "wait")
        await robot.say(finished=pb.Finished(order_id=shopping.order_id))
        assert (await robot.hear("refused")).code == "conflict"
        await gateways.depot.amend(AmendList(order_id=order_id, round=1, lines=[]))
        assert (await robot.hear("deliver")).order_id == str(order_id)


async def test_a_report_sent_twice_is_acknowledged_twice_and_another_one_is_refused(
    gateways: Gateways, channel: aio.Channel
) -> None:
    async with Robot(channel, "robot-1") as robot:
        _, shopping = await with_list(robot, gateways.depot)
        for _ in range(2):
            await robot.report(shopping.order_id, 2, "tea", 3, missing=2)
            await robot.hear("item_accepted")
        await robot.report(shopping.order_id, 2, "tea", 5)
        refused = await robot.hear("refused")
        assert (refused.code, refused.retry, refused.order_id) == ("conflict", False, shopping.order_id)


async def test_a_robot_that_lost_its_connection_goes_on_where_it_stopped(
    gateways: Gateways, channel: aio.Channel
) -> None:
    async with Robot(channel, "robot-1") as robot:
        order_id, shopping = await with_list(robot, gateways.depot)
        await robot.report(shopping.order_id, 1, "rose", 1)
        await robot.hear("item_accepted")
    async with Robot(channel, "robot-1") as robot:
        again = await robot.hear("list")
        assert again.order_id == str(order_id)
        assert [item.reported for stop in again.stops for item in stop.items] == [True, False]
        # Its last report may not have come through, so it is sent again.
        await robot.report(shopping.order_id, 1, "rose", 1)
        await robot.hear("item_accepted")
        await robot.shop(again)


async def test_messages_that_make_no_sense_are_refused_and_the_stream_goes_on(
    gateways: Gateways, channel: aio.Channel
) -> None:
    async with Robot(channel, "robot-1") as robot:
        await robot.report("no order", 1, "rose", 1)
        assert (await robot.hear("refused")).code == "invalid_input"
        await robot.report("0199d000-0000-7000-8000-000000000000", 1, "rose", 1)
        assert (await robot.hear("refused")).code == "not_found"
        await robot.say()
        assert (await robot.hear("refused")).code == "invalid_input"
        await with_list(robot, gateways.depot)


async def test_while_the_database_is_away_the_robot_is_told_to_try_again(
    gateways: Gateways, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gateways.up() as (gateway, channel), Robot(channel, "robot-1") as robot:
        _, shopping = await with_list(robot, gateways.depot)
        with monkeypatch.context() as patched:

            async def away(*_: object, **__: object) -> None:
                raise Unavailable("the depot database does not answer")

            patched.setattr(gateway._depot, "report_item", away)
            await robot.report(shopping.order_id, 1, "rose", 1)
            refused = await robot.hear("refused")
            assert (refused.code, refused.retry) == ("unavailable", True)
        await robot.shop(shopping)


async def test_what_happens_while_temporal_is_away_is_told_when_it_is_back(
    gateways: Gateways, channel: aio.Channel
) -> None:
    steps = gateways.steps
    steps.away = True
    async with Robot(channel, "robot-1") as robot:
        order_id, shopping = await with_list(robot, gateways.depot)
        assert await gateways.depot.shop(ShopList(order_id=order_id, round=1)) is None
        await robot.shop(shopping)
        await eventually(lambda: steps.tries >= 3)
        assert not steps.assigned_to
        steps.away = False
        await eventually(lambda: steps.assigned_to and steps.results)
    assert steps.assigned_to == [(order_id, 1, "robot-1")]
    assert [(order, round) for order, round, _ in steps.results] == [(order_id, 1)]


# Recalls


async def test_a_cancelled_list_is_recalled_and_what_was_carried_counts_once(
    gateways: Gateways, channel: aio.Channel
) -> None:
    depot = gateways.depot
    async with Robot(channel, "robot-1") as robot:
        order_id, shopping = await with_list(robot, depot)
        await robot.report(shopping.order_id, 2, "tea", 5)
        await robot.hear("item_accepted")
        await depot.cancel(CancelShopping(order_id=order_id, reason="cancelled_by_staff"))
        recall = await robot.hear("recall")
        assert (recall.order_id, recall.reason) == (str(order_id), "cancelled_by_staff")
        assert [(one.sku, one.quantity) for one in recall.carried] == [("tea", 5)]

        await robot.report(shopping.order_id, 1, "rose", 1)
        assert (await robot.hear("refused")).code == "list_lost"
        assert (await robot.hear("recall")).order_id == str(order_id)
        # No new list before it has put that back.
        await released(depot)
        await robot.ready()
        assert (await robot.hear("recall")).order_id == str(order_id)
        for _ in range(2):
            await robot.say(returned=pb.Returned(order_id=str(order_id)))
            await robot.hear("accepted")
        await robot.ready()
        assert (await robot.hear("list")).order_id != str(order_id)
    assert (await depot.recalled("robot-1", order_id)).carried == []


async def test_a_robot_that_was_away_when_its_list_was_cancelled_is_recalled_when_it_comes(
    gateways: Gateways, channel: aio.Channel
) -> None:
    async with Robot(channel, "robot-1") as robot:
        order_id, shopping = await with_list(robot, gateways.depot)
        await robot.report(shopping.order_id, 2, "tea", 5)
        await robot.hear("item_accepted")
    await gateways.depot.cancel(CancelShopping(order_id=order_id, reason="cancelled"))
    async with Robot(channel, "robot-1") as robot:
        assert [(one.sku, one.quantity) for one in (await robot.hear("recall")).carried] == [("tea", 5)]


async def test_a_robot_with_nothing_to_carry_back_is_recalled_and_free(
    gateways: Gateways, channel: aio.Channel
) -> None:
    async with Robot(channel, "robot-1") as robot:
        order_id, _ = await with_list(robot, gateways.depot)
        await gateways.depot.cancel(CancelShopping(order_id=order_id, reason="cancelled"))
        assert not (await robot.hear("recall")).carried
        await with_list(robot, gateways.depot)


# Silence


async def test_a_silent_robot_loses_its_list_to_the_next_and_is_refused_when_it_speaks_again(
    gateways: Gateways,
) -> None:
    async with gateways.up(silent_after=0.8) as (_, channel):
        async with Robot(channel, "robot-1") as first:
            order_id, shopping = await with_list(first, gateways.depot)
            assert await gateways.depot.shop(ShopList(order_id=order_id, round=1)) is None
            await first.report(shopping.order_id, 1, "rose", 1)
            await first.hear("item_accepted")
            assert "nothing was heard" in await first.end()

        [(told, round, result)] = await eventually(lambda: gateways.steps.results)
        assert (told, round, result.silent) == (order_id, 1, "robot-1")
        assert await gateways.depot.assign(AssignList(order_id=order_id, round=2)) is None
        async with Robot(channel, "robot-2") as second:
            await second.ready()
            again = await second.hear("list")
            assert again.order_id == str(order_id)
            assert [item.reported for stop in again.stops for item in stop.items] == [True, False]
            async with Robot(channel, "robot-1") as first:
                await first.report(shopping.order_id, 2, "tea", 5)
                assert (await first.hear("refused")).code == "list_lost"
                assert (await first.hear("recall")).reason == "list_lost"
                await second.shop(again)
        await eventually(lambda: (order_id, 2, "robot-2") in gateways.steps.assigned_to)


async def test_a_robot_whose_list_was_taken_while_it_could_be_heard_is_recalled(
    gateways: Gateways, channel: aio.Channel
) -> None:
    async with Robot(channel, "robot-1") as robot:
        order_id, _ = await with_list(robot, gateways.depot)
        await fall_silent(gateways.database, "robot-1")
        assert await gateways.depot.shop(ShopList(order_id=order_id, round=1)) is not None
        assert (await robot.hear("recall")).order_id == str(order_id)
        # It is there, whatever the database was told.
        await eventually(lambda: _is(gateways.depot, "robot-1", "idle"))


async def test_a_robot_that_is_heard_of_keeps_its_list_and_the_saga_hears_how_far_it_is(
    gateways: Gateways, metrics_told: Callable[[str], dict[str, float]]
) -> None:
    async with gateways.up(silent_after=1) as (_, channel), Robot(channel, "robot-1") as robot:
        order_id, shopping = await with_list(robot, gateways.depot)
        assert await gateways.depot.shop(ShopList(order_id=order_id, round=1)) is None
        await robot.report(shopping.order_id, 1, "rose", 1)
        await robot.hear("item_accepted")
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            await robot.say(heartbeat=pb.Heartbeat())
            await asyncio.sleep(0.1)
        assert (order_id, 1, "robot-1", 1, 6) in gateways.steps.heard
        assert metrics_told("mallbots.robots.connected") == {"robots": 1}
        await robot.shop(shopping)
        assert not [result for _, _, result in gateways.steps.results if result.silent]


# Streams


async def test_of_two_streams_of_a_robot_the_newer_stays(gateways: Gateways, channel: aio.Channel) -> None:
    async with Robot(channel, "robot-1") as older, Robot(channel, "robot-1") as newer:
        assert "another stream" in await older.end()
        await with_list(newer, gateways.depot)


async def test_of_two_streams_of_a_robot_on_two_gateways_the_newer_stays(gateways: Gateways) -> None:
    async with AsyncExitStack() as stack:
        one, another = await gateways.several(stack, 2)
        older = await stack.enter_async_context(Robot(one, "robot-1"))
        newer = await stack.enter_async_context(Robot(another, "robot-1"))
        assert "another stream" in await older.end()
        await with_list(newer, gateways.depot)


async def test_a_gateway_that_stops_says_goodbye_to_all_and_the_robots_go_on_elsewhere(
    gateways: Gateways,
) -> None:
    async with gateways.up() as (stopping, channel), gateways.up() as (_, elsewhere):
        async with Robot(channel, "robot-1") as robot:
            order_id, _ = await with_list(robot, gateways.depot)
            await asyncio.gather(stopping.drain(), robot.end())
        # It is told before it said anything, and what it says now may cross with the end of the stream.
        assert "stops" in await Robot(channel, "robot-2").end()
        async with Robot(elsewhere, "robot-1") as robot:
            assert (await robot.hear("list")).order_id == str(order_id)


async def test_a_robot_that_hangs_up_is_gone_at_once(gateways: Gateways, channel: aio.Channel) -> None:
    async with Robot(channel, "robot-1") as robot:
        await robot.call.done_writing()
        assert await robot.call.read() is aio.EOF
        await eventually(lambda: _is(gateways.depot, "robot-1", "offline"))


async def test_a_stream_that_does_not_begin_with_hello_is_ended(channel: aio.Channel) -> None:
    robot = Robot(channel, "robot-1")
    await robot.say(ready=pb.Ready())
    with pytest.raises(aio.AioRpcError) as raised:
        await robot.hear("welcome")
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_retired_robot_is_sent_away_and_not_let_in(gateways: Gateways, channel: aio.Channel) -> None:
    async with Robot(channel, "robot-1") as robot:
        await with_list(robot, gateways.depot)
        await gateways.depot.retire("robot-1", "bea")
        assert "retired" in await robot.end()
    robot = Robot(channel, "robot-1")
    await robot.say(hello=pb.Hello())
    with pytest.raises(aio.AioRpcError) as raised:
        await robot.hear("welcome")
    assert raised.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def _is(depot: Depot, robot: str, status: str) -> bool:
    return (await depot.robot(robot)).status == status


# Staff


async def test_a_robot_that_staff_recall_hears_so_and_another_goes_on_with_its_list(
    gateways: Gateways, channel: aio.Channel
) -> None:
    depot = gateways.depot
    async with Robot(channel, "robot-1") as recalled, Robot(channel, "robot-2") as other:
        order_id, shopping = await with_list(recalled, depot)
        assert await depot.shop(ShopList(order_id=order_id, round=1)) is None
        await recalled.report(shopping.order_id, 1, "rose", 1)
        await recalled.hear("item_accepted")
        await depot.recall("robot-1", order_id, "bea")
        told = await recalled.hear("recall")
        assert (told.order_id, told.reason, list(told.carried)) == (str(order_id), "list_lost", [])
        [(_, round, result)] = await eventually(lambda: gateways.steps.results)
        assert (round, result.silent) == (1, "robot-1")
        await recalled.ready()
        await other.ready()
        rest = await other.hear("list")
        assert (rest.order_id, [item.reported for stop in rest.stops for item in stop.items]) == (
            str(order_id),
            [True, False],
        )


async def test_a_robot_that_staff_let_rest_does_not_stand_in_the_way_of_the_others_and_works_again_when_told(
    gateways: Gateways, channel: aio.Channel
) -> None:
    depot = gateways.depot
    async with Robot(channel, "robot-1") as first, Robot(channel, "robot-2") as second:
        await first.ready()
        await second.ready()
        await depot.hold("robot-1", "bea")
        order_id = await released(depot)
        assert (await second.hear("list")).order_id == str(order_id)
        order_id = await released(depot)
        await depot.resume("robot-1", "bea")
        assert (await first.hear("list")).order_id == str(order_id)


async def test_a_gateway_that_is_stopped_at_the_moment_of_news_stops(gateways: Gateways) -> None:
    gateway = RobotGateway(gateways.depot, gateways.database, gateways.steps.find, lambda context: "nobody")
    running = asyncio.create_task(gateway.run())
    await eventually(lambda: gateway._looked_at_all_at)
    await eventually(lambda: not gateway._news.is_set())
    gateway._news.set()
    running.cancel()
    done, _ = await asyncio.wait({running}, timeout=5)
    assert done == {running}

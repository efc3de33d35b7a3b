"""The shopper bot, against a mall that a test plays."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from api.generated.mallbots.automation.v1.automation_pb2 import (
    Accepted,
    Carried,
    Deliver,
    Goodbye,
    Item,
    Ready,
    Recall,
    Refused,
    Wait,
    Welcome,
)
from api.keys import ApiKeys
from clients.robots.bot import Bot, Habits, Sight, State
from clients.robots.fleet import gateway_of, run_robots
from clients.robots.trip import found
from kernel.database import Database
from kernel.errors import InvalidInput, Misconfigured
from mallbots.commands.robot_display import RobotTable
from mallbots.console import MallConsole
from mallbots.kept_keys import install_keys, keys_file, read_keys
from mallbots.settings import Settings
from tests.robots.fake_mall import FakeMall, HonestWork, a_list, accepted, returned
from tests.waiting import eventually

AT_ONCE = 1e9
TEA_AND_MILK = {"tea": 2, "milk": 1}


@pytest.fixture
async def mall() -> AsyncIterator[FakeMall]:
    mall = FakeMall()
    async with mall.listening():
        yield mall


class Running:
    """A bot that works, and what it did so far."""

    def __init__(self, mall: FakeMall, name: str, habits: Habits) -> None:
        self.sights: list[Sight] = []
        self._task = asyncio.create_task(Bot(0, name, name, mall.gateway, habits, self.sights.append).run())

    @property
    def state(self) -> State:
        return self.sights[-1].state

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


@asynccontextmanager
async def a_bot(mall: FakeMall, name: str = "robot-1", **habits: Any) -> AsyncIterator[Running]:
    """A bot that walks in no time, if it is not told otherwise."""
    bot = Running(mall, name, Habits(**{"speed": AT_ONCE} | habits))
    try:
        yield bot
    finally:
        await bot.stop()


async def test_a_robot_picks_everything_stop_by_stop_brings_it_and_asks_for_more(mall: FakeMall) -> None:
    async with a_bot(mall) as bot:
        visit = await mall.visit()
        assert visit.token == "robot-1"
        await visit.welcome()
        await visit.give(a_list("order-1", TEA_AND_MILK, {"bread": 3}))
        items = await visit.take_items(3)
        assert [(item.stop, item.sku, item.picked, item.missing) for item in items] == [
            (1, "tea", 2, 0),
            (1, "milk", 1, 0),
            (2, "bread", 3, 0),
        ]
        assert {item.order_id for item in items} == {"order-1"}
        assert await visit.take_delivery() == "order-1"
        await visit.give(a_list("order-2", {"tea": 1}))
        assert (await visit.hears_item()).order_id == "order-2"
        assert (bot.sights[-1].order_id, bot.sights[-1].store) == ("order-2", "store-1")


async def test_a_robot_reports_only_what_is_not_reported_by_another_before_it(mall: FakeMall) -> None:
    shopping = a_list("order-1", TEA_AND_MILK)
    shopping.stops[0].items[0].MergeFrom(Item(reported=True, picked=2))
    async with a_bot(mall):
        visit = await mall.welcomes()
        await visit.give(shopping)
        assert (await visit.take_items(1))[0].sku == "milk"
        await visit.take_delivery()


async def test_what_is_missing_is_the_same_for_the_same_seed_order_and_product(mall: FakeMall) -> None:
    async def shop(order_id: str, seed: int) -> list[tuple[int, int]]:
        async with a_bot(mall, missing=0.5, seed=seed):
            visit = await mall.welcomes()
            await visit.give(a_list(order_id, {f"sku-{number}": 4 for number in range(20)}))
            return [(item.picked, item.missing) for item in await visit.take_items(20)]

    first = await shop("order-1", 7)
    assert await shop("order-1", 7) == first
    assert await shop("order-1", 8) != first
    assert await shop("order-2", 7) != first
    assert all(picked + missing == 4 for picked, missing in first)
    assert {picked for picked, _ in first} >= {0, 4}


def test_as_much_is_missing_as_is_asked_for() -> None:
    def share(missing: float) -> float:
        skus = [f"sku-{number}" for number in range(1000)]
        return sum(found(0, "order", sku, 3, missing) < 3 for sku in skus) / len(skus)

    assert share(0) == 0
    assert share(0.1) == pytest.approx(0.1, abs=0.03)
    assert share(1) == 1


async def test_a_robot_comes_back_after_a_broken_stream_and_says_again_what_was_not_answered(
    mall: FakeMall,
) -> None:
    shopping = a_list("order-1", TEA_AND_MILK)
    async with a_bot(mall):
        visit = await mall.welcomes()
        await visit.give(shopping)
        await visit.take_items(1)
        unanswered = await visit.hears_item()
        visit.end()
        again = await mall.welcomes()
        assert await again.hears_item() == unanswered
        shopping.stops[0].items[0].MergeFrom(Item(reported=True, picked=2))
        again.say(shopping)
        again.say(accepted(unanswered))
        assert await again.take_delivery() == "order-1"


async def test_a_robot_believes_a_new_stream_that_its_report_had_come_through(mall: FakeMall) -> None:
    shopping = a_list("order-1", TEA_AND_MILK)
    async with a_bot(mall):
        visit = await mall.welcomes()
        await visit.give(shopping)
        assert (await visit.hears_item()).sku == "tea"
        visit.end()
        again = await mall.visit()
        await again.hears("hello")
        again.say(Welcome(robot="robot-1", heartbeat_seconds=5, silent_after_seconds=30))
        assert (await again.hears_item()).sku == "tea"
        shopping.stops[0].items[0].MergeFrom(Item(reported=True, picked=2))
        again.say(shopping)
        assert (await again.hears_item()).sku == "milk"


async def test_a_finished_that_was_not_answered_is_said_again_without_walking_again(mall: FakeMall) -> None:
    async with a_bot(mall):
        visit = await mall.welcomes()
        await visit.give(a_list("order-1", {"tea": 1}))
        await visit.take_items(1)
        await visit.hears("finished")
        visit.end()
        again = await mall.welcomes()
        assert await again.take_delivery() == "order-1"
        await again.hears("ready")


async def test_robots_that_lose_their_connection_all_the_time_bring_everything_once(mall: FakeMall) -> None:
    work = HonestWork(a_list(f"order-{number}", TEA_AND_MILK) for number in range(3))
    serving = asyncio.create_task(work.serve(mall))
    async with a_bot(mall, drop=0.5):
        await eventually(lambda: work.is_done)
    assert work.visits > 1
    assert len(work.counted) == 6
    serving.cancel()


async def test_two_robots_share_the_work(mall: FakeMall) -> None:
    async with a_bot(mall, "robot-1"), a_bot(mall, "robot-2"):
        first, second = await mall.welcomes(), await mall.welcomes()
        assert {first.token, second.token} == {"robot-1", "robot-2"}
        await first.give(a_list("order-1", {"tea": 1}))
        await second.give(a_list("order-2", {"tea": 1}))
        await second.take_items(1)
        await first.take_items(1)
        assert await second.take_delivery() == "order-2"
        assert await first.take_delivery() == "order-1"


async def test_a_robot_waits_for_word_on_what_is_missing_and_picks_the_substitute(mall: FakeMall) -> None:
    async with a_bot(mall, missing=0.5) as bot:
        # Of this order the seed misses tea and finds coffee.
        order_id = next(
            order_id
            for order_id in map(str, range(100))
            if found(0, order_id, "tea", 2, 0.5) < 2 and found(0, order_id, "coffee", 2, 0.5) == 2
        )
        shopping = a_list(order_id, {"tea": 2})
        visit = await mall.welcomes()
        await visit.give(shopping)
        (tea,) = await visit.take_items(1)
        assert tea.missing > 0
        visit.say(Wait(order_id=order_id))
        await eventually(lambda: bot.state is State.WAITING)
        shopping.stops[0].items[0].MergeFrom(Item(reported=True, picked=tea.picked, missing=tea.missing))
        shopping.stops[0].items.append(Item(sku="coffee", name="Coffee", quantity=2))
        visit.say(shopping)
        (coffee,) = await visit.take_items(1)
        assert (coffee.sku, coffee.picked) == ("coffee", 2)
        visit.say(Deliver(order_id=order_id))
        assert await visit.take_delivery() == order_id


async def test_a_robot_brings_the_rest_when_it_is_told_to_deliver(mall: FakeMall) -> None:
    async with a_bot(mall, missing=1):
        visit = await mall.welcomes()
        await visit.give(a_list("order-1", TEA_AND_MILK))
        await visit.take_items(2)
        visit.say(Wait(order_id="order-1"))
        visit.say(Deliver(order_id="order-1"))
        assert await visit.take_delivery() == "order-1"
        await visit.hears("ready")


async def test_a_robot_that_waits_asks_again_on_a_new_stream(mall: FakeMall) -> None:
    async with a_bot(mall, missing=1):
        visit = await mall.welcomes()
        await visit.give(a_list("order-1", {"tea": 1}))
        await visit.take_items(1)
        visit.say(Wait(order_id="order-1"))
        visit.end()
        again = await mall.welcomes()
        await again.hears("ready")
        again.say(Deliver(order_id="order-1"))
        assert await again.take_delivery() == "order-1"


async def test_a_robot_obeys_a_recall_in_the_middle_of_its_way_and_puts_everything_back(mall: FakeMall) -> None:
    # Each way takes days; only what is put back at once ends in time.
    async with a_bot(mall, speed=1e-5) as bot:
        visit = await mall.welcomes()
        await visit.give(a_list("order-1", TEA_AND_MILK))
        await eventually(lambda: bot.state is State.SHOPPING)
        visit.say(Recall(order_id="order-1", reason="customer_request", carried=[Carried(sku="tea", quantity=2)]))
        await eventually(lambda: bot.state is State.RETURNING)


async def test_a_recalled_robot_says_when_all_is_back_on_the_shelves(mall: FakeMall) -> None:
    async with a_bot(mall):
        visit = await mall.welcomes()
        await visit.give(a_list("order-1", TEA_AND_MILK))
        await visit.take_items(1)
        late = await visit.hears_item()
        visit.say(Recall(order_id="order-1", reason="customer_request", carried=[Carried(sku="tea", quantity=2)]))
        assert (await visit.hears("returned")).returned.order_id == "order-1"
        # The answer to the report that crossed the recall is none to the return.
        visit.say(Refused(code="list_lost", message="recalled", order_id=late.order_id))
        visit.end()
        again = await mall.welcomes()
        assert (await again.hears("returned")).returned.order_id == "order-1"
        again.say(returned("order-1"))
        await again.hears("ready")


async def test_a_recalled_robot_that_carries_nothing_is_ready_for_the_next_list(mall: FakeMall) -> None:
    async with a_bot(mall):
        visit = await mall.welcomes()
        await visit.give(a_list("order-1", TEA_AND_MILK))
        await visit.hears_item()
        visit.say(Recall(order_id="order-1", reason="customer_request"))
        await visit.give(a_list("order-2", {"tea": 1}))
        assert (await visit.hears_item()).order_id == "order-2"


async def test_a_robot_that_lost_its_list_drops_it_and_is_ready(mall: FakeMall) -> None:
    async with a_bot(mall) as bot:
        visit = await mall.welcomes()
        await visit.give(a_list("order-1", TEA_AND_MILK))
        await visit.hears_item()
        visit.say(Refused(code="list_lost", message="another has it", order_id="order-1"))
        visit.say(Recall(order_id="order-1", reason="silent"))
        await visit.give(a_list("order-2", {"tea": 1}))
        assert (await visit.hears_item()).order_id == "order-2"
        assert any("list_lost" in sight.event for sight in bot.sights)


async def test_a_robot_tries_again_what_may_be_tried_again(mall: FakeMall) -> None:
    async with a_bot(mall):
        visit = await mall.welcomes()
        await visit.give(a_list("order-1", TEA_AND_MILK))
        tea = await visit.hears_item()
        visit.say(Refused(code="unavailable", message="the database is away", retry=True, order_id="order-1"))
        assert await visit.take_items(1) == [tea]
        assert (await visit.hears_item()).sku == "milk"


async def test_a_robot_connects_again_when_the_gateway_says_goodbye(mall: FakeMall) -> None:
    async with a_bot(mall):
        visit = await mall.welcomes()
        await visit.give(a_list("order-1", {"tea": 1}))
        await visit.take_items(1)
        await visit.hears("finished")
        visit.say(Goodbye(reason="the gateway stops"))
        await visit.is_left()
        assert await (await mall.welcomes()).take_delivery() == "order-1"


async def test_a_robot_waits_for_a_gateway_that_is_away_and_goes_on_where_it_was() -> None:
    mall = FakeMall()
    async with mall.listening():
        pass
    async with a_bot(mall) as bot:
        await eventually(lambda: bot.sights and bot.state is State.CONNECTING)
        async with mall.listening():
            visit = await mall.welcomes()
            await visit.give(a_list("order-1", TEA_AND_MILK))
            await visit.take_items(1)
            milk = await visit.hears_item()
        await eventually(lambda: bot.state is State.CONNECTING)
        async with mall.listening():
            assert await (await mall.welcomes()).hears_item() == milk


async def test_a_robot_is_heard_of_while_it_walks(mall: FakeMall) -> None:
    async with a_bot(mall, speed=1e-5):
        visit = await mall.visit()
        await visit.welcome(heartbeat=0.01)
        await visit.give(a_list("order-1", {"tea": 1}))
        await eventually(lambda: visit.heartbeats >= 3)


async def test_a_robot_that_falls_silent_comes_back_and_knows_of_nothing(mall: FakeMall) -> None:
    async with a_bot(mall, vanish=1) as bot:
        visit = await mall.visit()
        await visit.welcome(heartbeat=0.01, silent_after=0.1)
        await visit.give(a_list("order-1", {"tea": 1}))
        await eventually(lambda: bot.state is State.SILENT)
        await visit.is_left()
        again = await mall.welcomes()
        await again.give(a_list("order-2", {"tea": 1}))


async def test_an_idle_robot_that_is_stopped_says_that_it_takes_a_break(mall: FakeMall) -> None:
    async with a_bot(mall) as bot:
        visit = await mall.welcomes()
        await visit.hears("ready")
        visit.say(Accepted(ready=Ready()))
        await eventually(lambda: any(sight.event == "is ready" for sight in bot.sights))
        stopping = asyncio.create_task(bot.stop())
        await visit.hears("break")
        assert await visit.hear() is None
        await stopping


async def test_a_robot_that_is_stopped_with_a_list_keeps_it(mall: FakeMall) -> None:
    async with a_bot(mall) as bot:
        visit = await mall.welcomes()
        await visit.give(a_list("order-1", {"tea": 1}))
        await visit.hears_item()
        stopping = asyncio.create_task(bot.stop())
        assert await visit.hear() is None
        await stopping


async def test_as_many_robots_as_there_are_tokens_work_in_one_process(mall: FakeMall, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, grpc_address=mall.gateway.address)
    table = RobotTable(MallConsole())
    fleet = asyncio.create_task(
        run_robots(settings, tokens=["one", "two"], habits=Habits(speed=AT_ONCE), on_event=table.show)
    )
    visits = {visit.token: visit for visit in (await mall.welcomes(), await mall.welcomes())}
    assert set(visits) == {"one", "two"}
    await visits["two"].give(a_list("order-of-two", {"tea": 1, "milk": 2}))
    await visits["two"].take_items(1)
    await visits["two"].hears_item()
    robot, state, order, store, picked, _ = (list(column.cells)[1] for column in table.table().columns)
    assert (robot, str(state), order) == ("two", "shopping", "order-of-two")
    assert (store, picked) == ("store-1", "1 of 3")
    fleet.cancel()
    await asyncio.gather(fleet, return_exceptions=True)


async def test_a_robot_keeps_its_token_on_this_machine_until_that_is_revoked(
    fresh_database: Database, tmp_path: Path
) -> None:
    url = SecretStr(fresh_database.engine.url.render_as_string(hide_password=False))
    settings, keys = Settings(data_dir=tmp_path, robots_database_url=url), ApiKeys(fresh_database, "robots")
    tokens = await install_keys(settings, "robots", ["robot-1", "robot-2"])
    assert [await keys.holder_of(token) for token in tokens.values()] == ["robot-1", "robot-2"]
    assert keys_file(settings, "robots").stat().st_mode & 0o077 == 0
    assert await install_keys(settings, "robots", ["robot-1", "robot-2"]) == tokens
    await keys.revoke("robot-1")
    renewed = await install_keys(settings, "robots", ["robot-1", "robot-3"])
    assert await keys.holder_of(renewed["robot-1"]) == "robot-1"
    assert read_keys(settings, "robots") == renewed | {"robot-2": tokens["robot-2"]}
    with pytest.raises(InvalidInput, match="the name of a robot"):
        await install_keys(settings, "robots", ["robot.4"])


def test_a_damaged_file_of_tokens_and_a_certificate_that_is_not_there_are_told(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, grpc_tls_ca=tmp_path / "ca.pem")
    keys_file(settings, "robots").write_text("[]")
    with pytest.raises(Misconfigured, match="is damaged"):
        read_keys(settings, "robots")
    with pytest.raises(Misconfigured, match="MALLBOTS_GRPC_TLS_CA"):
        gateway_of(settings)

"""Who is let in: services by their roles, robots to their own, everybody to health and reflection."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pool
from google.rpc.error_details_pb2 import ErrorInfo
from grpc import StatusCode, aio
from typer.testing import CliRunner

from api.access import ALLOWED, STAFF_ROLES, Principal
from api.generated.mallbots.automation.v1.automation_pb2_grpc import AutomationStub
from api.generated.mallbots.depot.v1.depot_pb2 import ListRobotsRequest
from api.generated.mallbots.depot.v1.depot_pb2_grpc import DepotStub
from api.generated.mallbots.orders.v1.orders_pb2 import CancelOrderRequest, FindOrdersRequest
from api.generated.mallbots.orders.v1.orders_pb2_grpc import OrdersStub
from api.generated.mallbots.payments.v1.payments_pb2 import GetPaymentRequest
from api.generated.mallbots.payments.v1.payments_pb2_grpc import PaymentsStub
from api.generated.mallbots.stores.v1.stores_pb2 import ListStoresRequest
from api.generated.mallbots.stores.v1.stores_pb2_grpc import StoresStub
from api.grpc.access import ACTIONS, Keyring
from api.grpc.server import FOR_ROBOTS, FOR_SERVICES
from api.keys import ApiKeys
from kernel.database import Database
from kernel.errors import InvalidInput, Unauthenticated, Unavailable
from kernel.ids import new_id
from mallbots.commands.keys import app as keys_app
from tests.grpc.serving import Mall, bearer, detail
from tests.waiting import eventually

Metadata = tuple[tuple[str, str], ...]


async def refusal(channel: aio.Channel, metadata: Metadata) -> StatusCode | None:
    """How a service that asks for the stores is refused; None if it is told."""
    try:
        await StoresStub(channel).ListStores(ListStoresRequest(), metadata=metadata)
    except aio.AioRpcError as error:
        return error.code()
    return None


async def no_way_in(channel: aio.Channel, key: str) -> StatusCode:
    """How a robot that comes with this is refused."""
    with pytest.raises(aio.AioRpcError) as raised:
        await AutomationStub(channel).Work(metadata=bearer(key)).read()
    return raised.value.code()


@pytest.mark.parametrize(
    "metadata",
    [
        (),
        bearer("wrong"),
        bearer(""),
        (("authorization", "wrong"),),
        (("authorization", "Basic d3Jvbmc6d3Jvbmc="),),
    ],
    ids=["no key", "a wrong key", "an empty key", "no scheme", "another scheme"],
)
async def test_without_a_key_nothing_is_told(channel: aio.Channel, metadata: Metadata) -> None:
    assert await refusal(channel, metadata) is StatusCode.UNAUTHENTICATED


async def test_every_domain_is_for_services(channel: aio.Channel) -> None:
    calls: list[aio.Call] = [
        OrdersStub(channel).FindOrders(FindOrdersRequest()),
        StoresStub(channel).ListStores(ListStoresRequest()),
        PaymentsStub(channel).GetPayment(GetPaymentRequest()),
        DepotStub(channel).ListRobots(ListRobotsRequest()),
    ]
    assert {await call.code() for call in calls} == {StatusCode.UNAUTHENTICATED}


async def test_a_service_is_let_in_by_its_key(channel: aio.Channel, bea: str) -> None:
    assert await refusal(channel, bearer(bea)) is None
    assert await refusal(channel, (("authorization", f"bearer {bea}"),)) is None


async def test_a_robot_is_no_service_and_a_service_is_no_robot(channel: aio.Channel, bea: str, token: str) -> None:
    assert await refusal(channel, bearer(token)) is StatusCode.UNAUTHENTICATED
    assert await no_way_in(channel, bea) is StatusCode.UNAUTHENTICATED


async def test_a_robot_is_known_by_its_token(channel: aio.Channel, robot: str, token: str) -> None:
    call = AutomationStub(channel).Work(metadata=bearer(token))
    async for message in call:
        assert message.welcome.robot == robot
        break
    call.cancel()


async def test_a_revoked_key_ends_within_moments(mall: Mall, channel: aio.Channel) -> None:
    key = await mall.service_keys.issue("mallory", ["store"])
    assert await refusal(channel, bearer(key)) is None
    await mall.service_keys.revoke("mallory")

    async def refused() -> bool:
        return await refusal(channel, bearer(key)) is StatusCode.UNAUTHENTICATED

    await eventually(refused)


async def test_the_stream_of_a_revoked_token_is_cut_and_others_go_on(
    mall: Mall, channel: aio.Channel, robot: str, token: str
) -> None:
    other = AutomationStub(channel).Work(metadata=bearer(await mall.robot_tokens.issue(f"{robot}-2")))
    await other.read()
    call = AutomationStub(channel).Work(metadata=bearer(token))
    await call.read()
    await mall.robot_tokens.revoke(robot)
    with pytest.raises(aio.AioRpcError) as raised:
        await call.read()
    assert raised.value.code() is StatusCode.UNAUTHENTICATED
    assert await no_way_in(channel, token) is StatusCode.UNAUTHENTICATED
    assert mall.robots.gone == [robot]
    assert not other.done()
    other.cancel()


async def test_a_robot_that_hangs_up_is_gone_at_once(
    mall: Mall, channel: aio.Channel, robot: str, token: str
) -> None:
    call = AutomationStub(channel).Work(metadata=bearer(token))
    await call.read()
    call.cancel()
    await eventually(lambda: mall.robots.gone == [robot])


@pytest.mark.parametrize("name", ["", "r2.d2", "r2 d2", "r" * 61])
async def test_a_robot_has_a_name_that_fits_into_a_subject(mall: Mall, name: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        await mall.robot_tokens.issue(name)
    assert raised.value.field == "name"


async def test_operators_make_list_and_revoke_a_robots_token(
    mall: Mall, own_database: Database, robot: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = own_database.engine.url.render_as_string(hide_password=False)
    for gateway in ("KIOSKS", "STAFF", "ROBOTS"):
        monkeypatch.setenv(f"MALLBOTS_{gateway}_DATABASE_URL", url)
    monkeypatch.setenv("COLUMNS", "200")

    async def keys(*arguments: str) -> str:
        options = ("--data-dir", str(tmp_path))
        result = await asyncio.to_thread(CliRunner().invoke, keys_app, [*arguments, *options])
        assert result.exit_code == 0, result.output
        return result.output

    token = (await keys("create", robot, "--robot")).strip()
    assert await mall.robot_tokens.holder_of(token) == robot
    (row,) = (line for line in (await keys("list")).splitlines() if robot in line)
    assert "robot" in row.replace(robot, "")
    await keys("revoke", robot, "--robot")
    with pytest.raises(Unauthenticated):
        await mall.robot_tokens.holder_of(token)


def methods() -> list[str]:
    """Every method of every service that has callers of its own."""
    found = (descriptor_pool.Default().FindServiceByName(name) for name in (*FOR_SERVICES, FOR_ROBOTS))
    return [f"/{service.full_name}/{method.name}" for service in found for method in service.methods]


def test_every_method_takes_an_action() -> None:
    assert sorted(methods()) == sorted(ACTIONS)


async def test_each_role_is_refused_exactly_what_it_may_not_do(mall: Mall, channel: aio.Channel) -> None:
    called = [name for name in methods() if not name.startswith(f"/{FOR_ROBOTS}/")]
    for role in STAFF_ROLES:
        metadata = bearer(await mall.service_keys.issue(f"service-of-the-{role}", [role]))
        calls: list[Any] = [channel.unary_unary(name) for name in called]
        answers = [call(b"", metadata=metadata) for call in calls]
        refused = {
            name
            for name, answer in zip(called, answers, strict=True)
            if await answer.code() is StatusCode.PERMISSION_DENIED
        }
        assert refused == {name for name in called if ACTIONS[name] not in ALLOWED[role]}


async def test_what_a_service_may_not_do_is_refused_with_the_reason_and_noted(
    mall: Mall, channel: aio.Channel
) -> None:
    key = await mall.service_keys.issue("scale", ["store"])
    order_id = str(new_id())
    with pytest.raises(aio.AioRpcError) as raised:
        await OrdersStub(channel).CancelOrder(CancelOrderRequest(order_id=order_id), metadata=bearer(key))
    words = "scale may not do this (orders.cancel): it takes desk or manager or operator"
    assert (raised.value.code(), raised.value.details()) == (StatusCode.PERMISSION_DENIED, words)
    assert detail(raised.value, ErrorInfo).reason == "forbidden"
    [act] = await mall.acts.newest(subject=f"order-{order_id}")
    assert (act.by, act.act, act.detail, act.outcome) == ("scale", "orders.cancel", words, "refused")
    assert mall.sagas.asked == []


class CountingKeys(ApiKeys):
    """Keys that count how often they are looked up, and may be away."""

    asked = 0
    away = False

    async def principal_of(self, key: str) -> Principal:
        self.asked += 1
        return await super().principal_of(key)

    async def valid_among(self, keys: object) -> set[str]:
        self.asked += 1
        if self.away:
            raise Unavailable("away")
        return await super().valid_among(keys)  # type: ignore[arg-type]


async def test_hundreds_of_calls_by_one_key_are_one_look_up(database: Database, robot: str) -> None:
    keys = CountingKeys(database, "robots")
    token = await keys.issue(robot)
    keyring = Keyring(keys)
    assert {(await keyring.principal_of(token)).name for _ in range(300)} == {robot}
    assert keys.asked == 1


async def test_an_unknown_key_is_looked_up_each_time(database: Database, robot: str) -> None:
    keys = CountingKeys(database, "robots")
    keyring = Keyring(keys)
    for _ in range(3):
        with pytest.raises(Unauthenticated):
            await keyring.principal_of("wrong")
    assert keys.asked == 3


async def test_streams_go_on_while_the_database_is_away(database: Database, robot: str) -> None:
    keys = CountingKeys(database, "robots")
    token = await keys.issue(robot)
    keyring = Keyring(keys, kept_seconds=0.01)
    keys.away = True
    looking = asyncio.create_task(keyring.run())

    async def work() -> None:
        async with keyring.stream(token):
            await eventually(lambda: keys.asked > 2)
            await keys.revoke(robot)
            keys.away = False
            await asyncio.Event().wait()

    with pytest.raises(Unauthenticated, match="revoked"):
        await work()
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)

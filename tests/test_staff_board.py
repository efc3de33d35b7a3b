"""The board: a snapshot of the orders that have not ended, right through an order's life, on a real PostgreSQL."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import event, text

from api.app import create_app
from api.staff.board import Board, BoardOrder
from domains.depot.messages import AmendList, AssignList, CancelShopping, ScheduleShopping
from domains.depot.service import Depot
from domains.orders.messages import ApproveOrder, CancelOrder, CompleteOrder, ReadyOrder
from domains.orders.service import Orders
from kernel.database import Database
from kernel.ids import new_id, now
from kernel.messages import Cancellation
from mallbots.settings import Settings
from tests.robots.lists import fall_silent
from tests.samples import place, priced
from tests.test_kiosk_api_rules import NOWHERE, SERVICE_KEYS

LINES = [priced("tea", 2), priced("rose", 1, store="Floral")]


@pytest.fixture
def orders(fresh_database: Database) -> Orders:
    return Orders(fresh_database)


@pytest.fixture
def depot(fresh_database: Database) -> Depot:
    return Depot(fresh_database)


@pytest.fixture
async def staff(fresh_database: Database) -> AsyncIterator[httpx.AsyncClient]:
    url = SecretStr(fresh_database.engine.url.render_as_string(hide_password=False))
    databases = {"orders_database_url": url, "depot_database_url": url, "late_seconds": {"ready": 60}}
    app = create_app(Settings.model_validate({**NOWHERE, **databases}))
    mall = app.state.services
    mall.service_keys = SERVICE_KEYS
    mall.orders, mall.depot = Orders(fresh_database), Depot(fresh_database)
    headers = {"Authorization": "Bearer key-of-bea"}
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://mall", headers=headers) as client:
        yield client
    await mall.close()


async def board(staff: httpx.AsyncClient) -> Board:
    response = await staff.get("/v1/staff/board")
    assert response.status_code == 200, response.text
    return Board.model_validate(response.json())


async def only_order(staff: httpx.AsyncClient) -> BoardOrder:
    (order,) = (await board(staff)).orders
    return order


async def approve(orders: Orders, order_id: UUID) -> None:
    await orders.approve(ApproveOrder(order_id=order_id, lines=LINES, total_cents=1350))


async def shopped(orders: Orders, depot: Depot, robot: str = "robot-1") -> UUID:
    """An order whose list a robot has just taken."""
    command = place()
    await orders.place(command)
    await depot.schedule(ScheduleShopping(order_id=command.order_id, lines=LINES))
    await approve(orders, command.order_id)
    await depot.assign(AssignList(order_id=command.order_id, round=1))
    await depot.online(robot)
    assert await depot.take_list(robot)
    return command.order_id


async def recorded(database: Database, stream: str, version: int) -> datetime:
    """When an event was recorded; there has to be none behind it."""
    domain = "orders" if stream.startswith("order-") else "depot"
    query = text(f"SELECT version, recorded_at FROM {domain}.events WHERE stream = :stream ORDER BY version")
    async with database.transaction() as connection:
        rows = (await connection.execute(query, {"stream": stream})).all()
    assert rows[-1].version == version
    at: datetime = rows[-1].recorded_at
    return at


@contextmanager
def statements(database: Database) -> Iterator[list[str]]:
    """What is asked of the database meanwhile."""
    asked: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        asked.append(statement)

    event.listen(database.engine.sync_engine, "before_cursor_execute", note)
    yield asked
    event.remove(database.engine.sync_engine, "before_cursor_execute", note)


async def test_an_order_goes_over_the_board_from_column_to_column_and_leaves_it(
    staff: httpx.AsyncClient, orders: Orders, depot: Depot, fresh_database: Database
) -> None:
    command = place()
    order_id = command.order_id
    await orders.place(command)
    shown = await only_order(staff)
    assert (shown.order_id, shown.state, shown.kiosk, shown.customer) == (order_id, "pending", "kiosk-1", "ada")
    assert (shown.order_version, shown.list_version, shown.stores, shown.pieces) == (1, 0, [], 0)
    assert shown.since == await recorded(fresh_database, f"order-{order_id}", 1)

    await depot.schedule(ScheduleShopping(order_id=order_id, lines=LINES))
    await approve(orders, order_id)
    shown = await only_order(staff)
    assert (shown.state, shown.order_version, shown.list_version, shown.robot) == ("approved", 2, 1, None)
    assert (shown.stores, shown.pieces, shown.picked) == (["Floral", "Grocery"], 3, 0)
    assert (shown.total_cents, shown.currency) == (1350, "USD")
    assert shown.pickup_code is not None
    assert len(shown.pickup_code) == 6
    assert shown.since == await recorded(fresh_database, f"order-{order_id}", 2)

    await depot.assign(AssignList(order_id=order_id, round=1))
    await depot.online("robot-1")
    assert await depot.take_list("robot-1")
    await depot.report_item("robot-1", order_id, 2, "tea", picked=1, missing=1)
    shown = await only_order(staff)
    assert (shown.state, shown.robot, shown.pieces, shown.picked, shown.missing) == (
        "shopping",
        "robot-1",
        3,
        1,
        1,
    )
    assert shown.list_version == 5
    taken_at = shown.since
    assert taken_at < await recorded(fresh_database, f"list-{order_id}", 5)

    await depot.report_item("robot-1", order_id, 1, "rose", picked=1, missing=0)
    await depot.amend(AmendList(order_id=order_id, round=1, lines=[priced("coffee", 1)]))
    await depot.report_item("robot-1", order_id, 3, "coffee", picked=1, missing=0)
    await depot.finish("robot-1", order_id)
    shown = await only_order(staff)
    assert (shown.state, shown.pieces, shown.picked, shown.missing) == ("shopping", 4, 3, 1)
    assert shown.since == taken_at

    await orders.make_ready(ReadyOrder(order_id=order_id, pickup_until=now() + timedelta(hours=1)))
    shown = await only_order(staff)
    assert (shown.state, shown.order_version, shown.list_version) == ("ready", 3, 9)
    assert shown.since == await recorded(fresh_database, f"order-{order_id}", 3)

    await orders.complete(CompleteOrder(order_id=order_id, by="bea"))
    assert (await board(staff)).orders == []


async def test_the_time_in_a_state_begins_anew_when_a_robot_loses_the_list(
    staff: httpx.AsyncClient, orders: Orders, depot: Depot, fresh_database: Database
) -> None:
    order_id = await shopped(orders, depot)
    first = await only_order(staff)
    await fall_silent(fresh_database, "robot-1")
    await depot.sweep()
    lost = await only_order(staff)
    assert (lost.state, lost.robot) == ("approved", "robot-1")
    await depot.online("robot-2")
    assert await depot.take_list("robot-2")
    second = await only_order(staff)
    assert (second.order_id, second.state, second.robot) == (order_id, "shopping", "robot-2")
    assert first.since < lost.since < second.since


async def test_an_order_that_is_being_undone_stays_where_it_was_until_it_has_ended(
    staff: httpx.AsyncClient, orders: Orders, depot: Depot
) -> None:
    order_id = await shopped(orders, depot)
    await depot.cancel(CancelShopping(order_id=order_id, reason="order_cancelled"))
    shown = await only_order(staff)
    assert (shown.state, shown.list_status, shown.status) == ("shopping", "cancelled", "approved")
    cancellation = Cancellation(by="staff", reason="", name="bea")
    await orders.cancel(CancelOrder(order=place(order_id), cancellation=cancellation))
    assert (await board(staff)).orders == []


async def test_the_board_says_when_an_order_is_late_by_its_own_clock(staff: httpx.AsyncClient) -> None:
    answer = (await staff.get("/v1/staff/board")).json()
    assert answer["late_after_seconds"] == {"pending": 30, "approved": 300, "shopping": 1200, "ready": 60}
    assert abs(datetime.fromisoformat(answer["at"]) - now()) < timedelta(seconds=5)


async def test_a_board_of_many_orders_takes_no_more_queries_than_one_of_few(
    staff: httpx.AsyncClient, orders: Orders, depot: Depot, fresh_database: Database
) -> None:
    with statements(fresh_database) as of_none:
        assert (await board(staff)).orders == []
    placed = [place(new_id()) for _ in range(30)]
    for command in placed:
        await orders.place(command)
        await depot.schedule(ScheduleShopping(order_id=command.order_id, lines=LINES))
    with statements(fresh_database) as of_many:
        shown = (await board(staff)).orders
    assert [order.order_id for order in shown] == [command.order_id for command in placed]
    assert len(of_many) == len(of_none) > 0


async def test_who_has_no_key_does_not_see_the_board(staff: httpx.AsyncClient) -> None:
    assert (await staff.get("/v1/staff/board", headers={"Authorization": ""})).status_code == 401

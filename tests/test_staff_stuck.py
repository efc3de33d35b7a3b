"""What is stuck, over REST: what operators are told of a mall, and what they do about it."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import text

from api.app import create_app
from api.keys import ApiKeys
from api.services import Services
from api.staff.lookout import LOOK_FOR
from consumers.homes import HOMES
from domains.depot.messages import AssignList, ScheduleShopping
from domains.depot.service import Depot
from kernel.database import Database
from kernel.errors import InvalidInput, MallError, NotStuck, Unavailable
from kernel.ids import new_id
from mallbots.settings import DATABASES, Settings
from tests.conftest import create_database
from tests.samples import priced, stocked
from tests.waiting import eventually
from workflows.messages import ActionAccount, SkipUndo
from workflows.operators import QUEUES, StuckSaga

ORDER, REFUND = new_id(), new_id()
SAGA = StuckSaga(
    workflow_id=f"order-{ORDER}",
    activity="payments.void",
    order_id=ORDER,
    refund_id=None,
    error="the card network does not answer",
    attempts=7,
    since=datetime(2026, 1, 1, tzinfo=UTC),
    next_attempt_at=datetime(2026, 1, 2, tzinfo=UTC),
)
WRITTEN = (
    "staff.acts",
    "stores.events",
    "stores.stores",
    "depot.events",
    "depot.shopping_lists",
    "trail.dead_letters",
    "notifications.orders",
)
"""The tables that these tests write to."""
SKIP = {"activity": "payments.void", "reason": "the account is closed"}
SKIPPED = ActionAccount(
    activity="payments.void", state="skipped", skipped_by="ann", skipped_because=SKIP["reason"]
)


@dataclass
class FakeOperators:
    """The sagas that are stuck as the test says; notes what is asked, and raises `error`."""

    stuck: list[StuckSaga] = field(default_factory=list)
    idle: set[str] = field(default_factory=set)
    error: MallError | None = None
    account: ActionAccount | None = field(default_factory=lambda: SKIPPED)
    asked: list[Any] = field(default_factory=list)

    async def find(self, most: int) -> list[StuckSaga]:
        return self.stuck[:most]

    async def is_worked_on(self, queue: str) -> bool:
        return queue not in self.idle

    async def retry_order(self, order_id: UUID) -> list[str]:
        return await self.retry(f"order-{order_id}")

    async def retry(self, workflow: str) -> list[str]:
        self.asked.append(workflow)
        if self.error:
            raise self.error
        return ["payments.void"]

    async def skip_undo(self, order_id: UUID, skip: SkipUndo, *, timeout: timedelta) -> ActionAccount | None:
        self.asked.append((order_id, skip))
        if self.error:
            raise self.error
        return self.account


@dataclass
class Desk:
    """An operator at the API of a mall."""

    client: httpx.AsyncClient
    services: Services
    operators: FakeOperators

    async def look(self) -> dict[str, Any]:
        return ok(await self.client.get("/stuck"))

    async def things(self) -> list[dict[str, Any]]:
        things: list[dict[str, Any]] = (await self.look())["things"]
        return things

    async def thing(self) -> dict[str, Any]:
        """The one thing that is stuck."""
        things = await self.things()
        assert len(things) == 1, things
        return things[0]

    async def acts(self) -> list[tuple[str, str | None, str, str]]:
        """What was noted, the newest first."""
        return [(one.act, one.subject, one.detail, one.outcome) for one in await self.services.acts.newest()]


def ok(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


def problem(response: httpx.Response, status: int, code: str) -> str:
    body = response.json()
    assert (response.status_code, body["code"]) == (status, code), body
    detail: str = body["detail"]
    return detail


@asynccontextmanager
async def at_a_mall(database: Database, **away: Any) -> AsyncIterator[Desk]:
    url = SecretStr(database.engine.url.render_as_string(hide_password=False))
    settings: dict[str, Any] = {f"{name}_database_url": url for name in DATABASES}
    settings |= {"nats_url": SecretStr("nats://127.0.0.1:1"), "temporal_address": "127.0.0.1:1"}
    app = create_app(Settings.model_validate(settings | {"list_patience_seconds": 60.0} | away))
    services: Services = app.state.services
    headers = {"Authorization": f"Bearer {await ApiKeys(database, 'staff').issue('ann', roles=['operator'])}"}
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://mall/v1/staff", headers=headers) as client:
        yield Desk(client, services, FakeOperators())
    await services.close()


@pytest.fixture(scope="module")
async def fresh(postgres: str, template: str) -> AsyncIterator[Database]:
    """The database of this mall alone."""
    opened = Database("fresh", await create_database(postgres, template), pool_size=4)
    yield opened
    await opened.close()


@pytest.fixture(scope="module")
async def mall(fresh: Database) -> AsyncIterator[Desk]:
    """A mall of which everything is up."""

    async def nothing() -> dict[str, Any]:
        return {}

    async with at_a_mall(fresh) as desk:

        async def operators() -> FakeOperators:
            return desk.operators

        services: Any = desk.services
        services.operators, services.ping_temporal, services.watch.published = operators, nothing, nothing
        yield desk


@pytest.fixture
async def desk(mall: Desk, fresh: Database, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """That mall as new. Its looks may take long: the machine may be busy."""
    monkeypatch.setattr("api.staff.lookout.LOOK_FOR", 20.0)
    mall.operators = FakeOperators()
    async with fresh.transaction() as connection:
        await connection.execute(text(f"TRUNCATE {', '.join(WRITTEN)} CASCADE"))
    return mall


async def test_a_mall_in_which_all_is_well_has_nothing_stuck(desk: Desk) -> None:
    look = await desk.look()
    assert look["things"] == []
    assert {check["ok"] for check in look["checks"]} == {True}
    names = {check["name"] for check in look["checks"]}
    assert {"orders database", "NATS", "Temporal", "sagas", "relay of depot", "consumer trail"} <= names
    assert {f"worker of {queue}" for queue in QUEUES} <= names


async def test_while_everything_is_down_each_part_is_told_once_and_soon(fresh: Database) -> None:
    nowhere = SecretStr("postgresql+asyncpg://mall@127.0.0.1:1/mall")
    away = {f"{name}_database_url": nowhere for name in DATABASES if name != "staff"}
    async with at_a_mall(fresh, **away) as ruin:
        begun = time.monotonic()
        look = await ruin.look()
    assert time.monotonic() - begun < LOOK_FOR * 3  # other things may be slow today
    down = {f"{name} database" for name in DATABASES if name not in ("staff", "sandbox")} | {"NATS", "Temporal"}
    assert {thing["subject"] for thing in look["things"]} == down
    assert len(look["things"]) == len(down)
    assert {thing["kind"] for thing in look["things"]} == {"domain_down"}
    assert all(thing["why"] and thing["advice"] and not thing["actions"] for thing in look["things"])
    assert {check["name"] for check in look["checks"] if check["ok"]} == {"staff database"}
    assert next(check for check in look["checks"] if check["name"] == "relay of depot")["ok"] is None


async def test_what_hangs_is_given_up_and_told(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang() -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("api.staff.lookout.LOOK_FOR", 1.0)
    monkeypatch.setattr(desk.services, "ping_temporal", hang)
    thing = next(thing for thing in await desk.things() if thing["subject"] == "Temporal")
    assert (thing["kind"], thing["why"]) == ("domain_down", "no answer within 1 s")


async def test_an_undo_that_fails_is_told_with_what_can_be_done(desk: Desk) -> None:
    desk.operators.stuck = [SAGA]
    thing = await desk.thing()
    assert (thing["kind"], thing["subject"]) == ("undo", f"payments.void of order {ORDER}")
    assert (thing["why"], thing["attempts"]) == ("the card network does not answer", 7)
    assert (thing["since"], thing["next_attempt_at"]) == ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z")
    assert (thing["actions"], thing["link"]) == (["retry", "skip_undo"], f"/staff/orders/{ORDER}")


@pytest.mark.parametrize(
    ("activity", "refund_id", "kind"),
    [("orders.cancel", None, "undo"), ("stores.reserve", None, "step"), ("payments.refund", REFUND, "refund")],
)
async def test_what_must_not_be_skipped_can_only_be_retried(
    desk: Desk, activity: str, refund_id: UUID | None, kind: str
) -> None:
    desk.operators.stuck = [replace(SAGA, activity=activity, refund_id=refund_id)]
    thing = await desk.thing()
    assert (thing["kind"], thing["actions"]) == (kind, ["retry"])


async def test_when_very_many_are_stuck_it_says_that_these_are_some(desk: Desk) -> None:
    desk.operators.stuck = [replace(SAGA, order_id=new_id()) for _ in range(40)]
    things = await desk.things()
    assert len(things) == 26
    assert [thing["why"] for thing in things if thing["subject"] == "more sagas"] == [
        "more than 25 sagas are stuck, and these are some of them"
    ]


async def test_a_queue_without_a_worker_is_told(desk: Desk) -> None:
    desk.operators.idle = {"stores"}
    thing = await desk.thing()
    assert (thing["kind"], thing["subject"]) == ("no_worker", "worker of stores")


async def test_a_list_that_no_robot_takes_for_too_long_is_told(desk: Desk, fresh: Database) -> None:
    depot, order_id = Depot(fresh), new_id()
    await depot.schedule(ScheduleShopping(order_id=order_id, lines=[priced()]))
    await depot.assign(AssignList(order_id=order_id, round=1))
    assert await desk.things() == []
    async with fresh.transaction() as connection:
        await connection.execute(
            text("UPDATE depot.shopping_lists SET changed_at = now() - interval '61 seconds'")
        )
    thing = await desk.thing()
    assert (thing["kind"], thing["subject"], thing["link"]) == (
        "list_nobody_takes", "1 shopping list", "/staff/robots",
    )  # fmt: skip
    assert thing["order_id"] == str(order_id)


async def test_relays_and_consumers_that_are_behind_are_told(desk: Desk, fresh: Database) -> None:
    await stocked(fresh, tea=1)
    assert await desk.things() == []  # it is a moment ago
    async with fresh.transaction() as connection:
        await connection.execute(text("UPDATE stores.events SET recorded_at = now() - interval '31 seconds'"))
    things = await desk.things()
    behind = {thing["subject"]: thing["why"] for thing in things}
    assert {thing["kind"] for thing in things} == {"relay_behind", "consumer_behind"}
    assert behind["relay of stores"] == "3 events of stores wait to be published"
    assert behind["consumer depot-copies"] == "3 events of stores wait to be handled"
    assert set(behind) == {"relay of stores"} | {
        f"consumer {name}" for name, home in HOMES.items() if "stores" in home.consumer.domains
    }


async def test_a_notice_that_did_not_get_through_is_told_for_a_day(desk: Desk, fresh: Database) -> None:
    notice = await a_failed_notice(fresh)
    thing = await desk.thing()
    assert (thing["kind"], thing["subject"], thing["why"]) == (
        "notification_failed", "notice to ada (ready)", "500 Internal Server Error",
    )  # fmt: skip
    assert (thing["notification_id"], thing["actions"]) == (str(notice), ["resend"])
    async with fresh.transaction() as connection:
        await connection.execute(
            text("UPDATE notifications.notifications SET created_at = now() - interval '25 hours'")
        )
    assert await desk.things() == []


async def test_a_dead_letter_is_told_with_those_that_wait_behind_it_and_sent_again(
    desk: Desk, fresh: Database
) -> None:
    first, _ = await dead_letters(fresh)
    thing = await desk.thing()
    assert (thing["kind"], thing["actions"]) == ("dead_letter", ["retry_dead_letter"])
    assert thing["subject"] == f"OrderPlaced of order-{ORDER} for trail"
    assert thing["why"] == f"ValueError: poison; 1 later event of order-{ORDER} wait behind it"
    assert (thing["consumer"], thing["event_id"], thing["order_id"]) == ("trail", str(first), str(ORDER))

    async def consumer() -> None:
        """Handles what is asked for."""
        asked = text("DELETE FROM trail.dead_letters WHERE retry_asked_at IS NOT NULL RETURNING 1")

        async def handled() -> bool:
            async with fresh.transaction() as connection:
                return len((await connection.execute(asked)).all()) == 2

        await eventually(handled)

    handling = asyncio.create_task(consumer())
    retried = ok(await desk.client.post("/dead-letters/retry", json={"event_id": str(first)}))
    assert retried == {"handled": 2, "failed": [], "not_taken": 0}
    await handling
    assert await desk.things() == []
    told = "dead letters sent again: 2 handled, 0 failed again, 0 not taken up"
    assert (await desk.acts())[0] == ("stuck.mend", f"event-{first}", told, "done")


async def test_dead_letters_that_nobody_takes_up_stay_asked_for(
    desk: Desk, fresh: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.staff.stuck._LETTERS_WITHIN", 0.1)
    await dead_letters(fresh)
    retried = ok(await desk.client.post("/dead-letters/retry", json={"consumer": "trail"}))
    assert retried == {"handled": 0, "failed": [], "not_taken": 2}
    assert "nobody has taken it up yet" in (await desk.thing())["why"]


async def test_there_must_be_such_a_dead_letter_and_such_a_consumer(desk: Desk) -> None:
    problem(await desk.client.post("/dead-letters/retry"), 404, "not_found")
    answer = await desk.client.post("/dead-letters/retry", json={"consumer": "moon"})
    assert "there is no consumer moon" in problem(answer, 422, "invalid_input")


async def test_an_undo_is_retried_and_that_is_noted(desk: Desk) -> None:
    assert ok(await desk.client.post(f"/orders/{ORDER}/saga/retry")) == {"retried": ["payments.void"]}
    assert desk.operators.asked == [f"order-{ORDER}"]
    assert await desk.acts() == [("stuck.mend", f"order-{ORDER}", "retried payments.void", "done")]
    assert ok(await desk.client.post(f"/refunds/{REFUND}/retry")) == {"retried": ["payments.void"]}
    assert desk.operators.asked[1] == f"refund-{REFUND}"
    assert (await desk.acts())[0] == ("stuck.mend", f"refund-{REFUND}", "retried payments.void", "done")


async def test_an_undo_is_skipped_for_a_reason_by_whoever_holds_the_key(desk: Desk) -> None:
    answer = ok(await desk.client.post(f"/orders/{ORDER}/saga/skip-undo", json=SKIP))
    assert (answer["state"], answer["skipped_by"]) == ("skipped", "ann")
    assert desk.operators.asked == [(ORDER, SkipUndo(by="ann", **SKIP))]
    detail = "payments.void skipped: the account is closed"
    assert await desk.acts() == [("stuck.mend", f"order-{ORDER}", detail, "done")]
    desk.operators.account = None
    under_way = await desk.client.post(f"/orders/{ORDER}/saga/skip-undo", json=SKIP)
    assert (under_way.status_code, under_way.json()["status"]) == (202, "skipping_undo")


@pytest.mark.parametrize("body", [{}, SKIP | {"reason": "  "}, SKIP | {"reason": "x" * 501}, SKIP | {"by": "bea"}])
async def test_a_skip_needs_a_reason_and_nothing_else(desk: Desk, body: dict[str, str]) -> None:
    problem(await desk.client.post(f"/orders/{ORDER}/saga/skip-undo", json=body), 422, "invalid_input")
    assert desk.operators.asked == []


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (NotStuck("it is not stuck"), 409, "not_stuck"),
        (InvalidInput("it ends the order", "activity"), 422, "invalid_input"),
        (Unavailable("Temporal does not answer"), 503, "unavailable"),
    ],
)
async def test_what_the_saga_refuses_is_told(desk: Desk, error: MallError, status: int, code: str) -> None:
    desk.operators.error = error
    problem(await desk.client.post(f"/orders/{ORDER}/saga/skip-undo", json=SKIP), status, code)
    problem(await desk.client.post(f"/orders/{ORDER}/saga/retry"), status, code)
    refused = [act for act in await desk.acts() if act[3] == "refused"]
    assert len(refused) == (2 if status == 409 else 0)


async def test_who_does_not_run_the_mall_neither_sees_nor_mends(desk: Desk, fresh: Database) -> None:
    keys = ApiKeys(fresh, "staff")
    manager = {"Authorization": f"Bearer {await keys.issue('max', roles=['manager'])}"}
    clerk = {"Authorization": f"Bearer {await keys.issue('bea', roles=['desk'])}"}
    assert (await desk.client.get("/stuck", headers=manager)).status_code == 200
    problem(await desk.client.get("/stuck", headers=clerk), 403, "forbidden")
    for path, body in (
        (f"/orders/{ORDER}/saga/retry", None),
        (f"/refunds/{REFUND}/retry", None),
        (f"/orders/{ORDER}/saga/skip-undo", SKIP),
        ("/dead-letters/retry", {}),
    ):
        for who in (manager, clerk):
            problem(await desk.client.post(path, json=body, headers=who), 403, "forbidden")
    assert desk.operators.asked == []


async def dead_letters(database: Database) -> tuple[UUID, UUID]:
    """Two events of one order that the trail set aside: the first is poison, the second waits for it."""
    add = text(
        "INSERT INTO trail.dead_letters (consumer, event_id, partition, domain, transaction_id, position, stream,"
        " version, type, schema_version, data, recorded_at, attempts, error)"
        " VALUES ('trail', :id, 0, 'orders', 1, 1, :stream, :version, :type, 1, '{}', now(), 5, :error)"
    )
    ids = new_id(), new_id()
    letters = zip(ids, ("OrderPlaced", "OrderApproved"), ("ValueError: poison", None), strict=True)
    async with database.transaction() as connection:
        for version, (id, kind, error) in enumerate(letters, 1):
            values = {"id": id, "version": version, "stream": f"order-{ORDER}", "type": kind, "error": error}
            await connection.execute(add, values)
    return ids


async def a_failed_notice(database: Database) -> UUID:
    id = new_id()
    async with database.transaction() as connection:
        await connection.execute(
            text("INSERT INTO notifications.orders (order_id, customer, kiosk) VALUES (:order, 'ada', 'kiosk-1')"),
            {"order": ORDER},
        )
        await connection.execute(
            text(
                "INSERT INTO notifications.notifications (id, kind, order_id, customer, kiosk, text, created_at,"
                " status, attempts, error) VALUES (:id, 'ready', :order, 'ada', 'kiosk-1', 'Your order is ready.',"
                " now(), 'failed', 9, '500 Internal Server Error')"
            ),
            {"id": id, "order": ORDER},
        )
    return id

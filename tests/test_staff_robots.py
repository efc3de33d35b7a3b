"""Robots for staff over REST, on real PostgreSQL: how they are, and what staff let them do."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from api.app import create_app
from api.keys import ApiKeys
from domains.depot.service import Depot
from kernel.database import Database
from kernel.errors import Unauthenticated
from kernel.ids import new_id
from mallbots.settings import DATABASES, Settings
from tests.robots.lists import released


@pytest.fixture
async def staff(fresh_database: Database) -> AsyncIterator[httpx.AsyncClient]:
    """The API as an operator speaks to it."""
    url = SecretStr(fresh_database.engine.url.render_as_string(hide_password=False))
    nowhere = {"nats_url": SecretStr("nats://127.0.0.1:1"), "robot_silence": 12}
    app = create_app(Settings.model_validate(nowhere | {f"{name}_database_url": url for name in DATABASES}))
    key = await ApiKeys(fresh_database, "staff").issue("bea", roles=["operator"])
    headers = {"Authorization": f"Bearer {key}"}
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://mall", headers=headers) as client:
        yield client
    await app.state.services.close()


def ok(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


async def test_staff_see_every_robot_recall_it_and_let_it_rest(
    staff: httpx.AsyncClient, fresh_database: Database
) -> None:
    depot = Depot(fresh_database)
    await depot.register("r2")
    order_id = str(await released(depot))
    await depot.online("r1")
    await depot.take_list("r1")
    await released(depot)
    answer = ok(await staff.get("/v1/staff/robots"))
    busy, new = answer["items"]
    assert answer["lists_waiting"] == 1
    assert 0 <= busy.pop("quiet_seconds") < 10
    assert busy == {
        "name": "r1",
        "status": "busy",
        "order_id": order_id,
        "held_by": None,
        "held_since": None,
        "registered_at": busy["registered_at"],
        "last_heard_at": busy["last_heard_at"],
        "doing": "pick",
        "at": None,
        "heads_for": "Floral",
        "pieces": 6,
        "picked": 0,
        "missing": 0,
        "carries": [],
        "patience_seconds": 12.0,
    }
    assert (new["name"], new["status"], new["quiet_seconds"]) == ("r2", "offline", None)

    held = ok(await staff.post("/v1/staff/robots/r1/break"))
    assert (held["status"], held["order_id"], held["held_by"]) == ("busy", order_id, "bea")
    for _ in range(2):
        recalled = ok(await staff.post("/v1/staff/robots/r1/recall", json={"order_id": order_id}))
        assert (recalled["status"], recalled["order_id"]) == ("on_break", None)
    resumed = ok(await staff.post("/v1/staff/robots/r1/resume"))
    assert (resumed["status"], resumed["held_by"]) == ("idle", None)


async def test_a_retired_robots_token_works_no_more(staff: httpx.AsyncClient, fresh_database: Database) -> None:
    tokens = ApiKeys(fresh_database, "robots")
    token = await tokens.issue("r1")
    await Depot(fresh_database).register("r1")
    assert await tokens.holder_of(token) == "r1"
    for _ in range(2):
        assert ok(await staff.post("/v1/staff/robots/r1/retire"))["status"] == "retired"
    with pytest.raises(Unauthenticated):
        await tokens.holder_of(token)
    refused = await staff.post("/v1/staff/robots/r1/break")
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")


@pytest.mark.parametrize("act", ["recall", "break", "resume", "retire"])
async def test_what_is_asked_of_no_robot_or_by_nobody_is_refused(staff: httpx.AsyncClient, act: str) -> None:
    body = {"order_id": str(new_id())} if act == "recall" else None
    assert (await staff.post(f"/v1/staff/robots/nobody/{act}", json=body)).status_code == 404
    assert (await staff.post(f"/v1/staff/robots/no.body/{act}", json=body)).status_code == 422
    stranger = await staff.post(f"/v1/staff/robots/nobody/{act}", json=body, headers={"Authorization": ""})
    assert stranger.status_code == 401

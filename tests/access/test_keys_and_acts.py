"""Keys of kiosks, services and robots: made, rotated and revoked, and what is noted of that."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text
from typer.testing import CliRunner

from api.access import STAFF_ROLES
from api.keys import ApiKeys
from api.staff.acts import Acts
from kernel.database import Database
from kernel.errors import Conflict, InvalidInput, NotFound, Unauthenticated
from mallbots.cli import app as command_line
from mallbots.kept_keys import install_keys, read_keys
from tests.access.conftest import a_browser, settings_for, sign_in

ORDER = "01a1f2c4-5b7e-7d30-9a41-6c2f80e1b355"


@pytest.fixture
async def mia(mall: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """The browser of a manager."""
    async with a_browser(mall) as browser:
        assert (await sign_in(browser, "mia")).status_code == 303
        yield browser


@pytest.fixture
def services(fresh_database: Database) -> ApiKeys:
    return ApiKeys(fresh_database, "staff")


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def noted(client: httpx.AsyncClient, **search: str) -> list[tuple[str, str, str | None, str]]:
    """What the log of acts says of that, the newest first: by, act, subject and outcome."""
    page = await client.get("/v1/staff/acts", params=search)
    assert page.status_code == 200, page.text
    return [(act["by"], act["act"], act["subject"], act["outcome"]) for act in page.json()["items"]]


async def test_a_service_does_what_its_roles_allow_and_every_refusal_is_noted(
    mall: FastAPI, mia: httpx.AsyncClient
) -> None:
    made = await mia.post("/v1/staff/keys", json={"kind": "service", "name": "till", "roles": ["store", "desk"]})
    assert made.status_code == 201
    async with a_browser(mall, **bearer(made.json()["key"])) as till:
        assert (await till.get("/v1/staff/orders")).status_code == 200
        refused = await till.post(f"/v1/staff/orders/{ORDER}/refunds", json={})
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
        assert refused.json()["detail"] == "till may not do this (orders.refund): it takes manager"
        assert (await till.get("/v1/staff/acts")).status_code == 403
    assert await noted(mia, by="till", subject=f"order-{ORDER}") == [
        ("till", "orders.refund", f"order-{ORDER}", "refused")
    ]
    assert await noted(mia, outcome="done", subject="service-till") == [
        ("mia", "create key", "service-till", "done")
    ]


async def test_keys_are_made_listed_rotated_and_revoked(mall: FastAPI, mia: httpx.AsyncClient) -> None:
    for kind, path in (("kiosk", "/v1/stores"), ("service", "/v1/staff/stores")):
        await live(mall, mia, kind, path)


async def live(mall: FastAPI, mia: httpx.AsyncClient, kind: str, path: str) -> None:
    """All that happens to the keys of a kiosk or a service, which are let in at that path."""
    roles = ["desk"] if kind == "service" else []
    body = {"kind": kind, "name": "number-9", "roles": roles}
    first = (await mia.post("/v1/staff/keys", json=body)).json()["key"]
    second = (await mia.post(f"/v1/staff/keys/{kind}/number-9/rotate", json={"keep_old_minutes": 5})).json()["key"]
    async with a_browser(mall) as stranger:

        async def let_in(key: str) -> bool:
            return (await stranger.get(path, headers=bearer(key))).status_code == 200

        assert await let_in(first)
        assert await let_in(second)
        third = (await mia.post(f"/v1/staff/keys/{kind}/number-9/rotate")).json()["key"]
        assert [await let_in(key) for key in (first, second, third)] == [False, False, True]
        listed = [key for key in (await mia.get("/v1/staff/keys")).json()["items"] if key["kind"] == kind]
        assert [(key["kind"], key["roles"], key["valid"]) for key in listed] == [
            (kind, roles or [kind], valid) for valid in (False, False, True)
        ]
        for revoked in (1, 0):
            answer = await mia.delete(f"/v1/staff/keys/{kind}/number-9")
            assert answer.json() == {"kind": kind, "name": "number-9", "revoked": revoked}
        assert not await let_in(third)
    assert (await mia.post(f"/v1/staff/keys/{kind}/number-9/rotate")).status_code == 404
    assert [act for _, act, _, _ in await noted(mia, subject=f"{kind}-number-9")] == [
        "revoke key",
        "rotate key",
        "rotate key",
        "create key",
    ]


async def test_a_key_that_breaks_a_rule_is_not_made(mia: httpx.AsyncClient) -> None:
    wrong: list[tuple[dict[str, object], str]] = [
        ({"kind": "service", "name": "till"}, "roles"),
        ({"kind": "service", "name": "till", "roles": ["king"]}, "roles[0]"),
        ({"kind": "kiosk", "name": "kiosk-9", "roles": ["desk"]}, "roles"),
        ({"kind": "person", "name": "bea"}, "kind"),
        ({"kind": "service", "name": "a b", "roles": ["desk"]}, "name"),
        ({"kind": "robot", "name": "r2.d2"}, "name"),
    ]
    for body, field in wrong:
        refused = await mia.post("/v1/staff/keys", json=body)
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid_input")
        assert [error["field"] for error in refused.json()["errors"]] == [field]
    assert (await mia.get("/v1/staff/keys")).json() == {"items": []}


async def test_a_service_is_never_called_as_a_person_nor_a_person_as_a_service(
    mall: FastAPI, mia: httpx.AsyncClient, services: ApiKeys
) -> None:
    with pytest.raises(Conflict, match="mia"):
        await services.issue("MIA", ["desk"])
    key = await services.issue("bea", ["desk"])
    await services.rotate("bea", timedelta(minutes=5))
    person = {"name": "Bea", "roles": ["desk"]}
    assert (await mia.post("/v1/staff/accounts", json=person)).status_code == 409
    await services.revoke("bea")
    with pytest.raises(Unauthenticated):
        await services.principal_of(key)
    assert (await mia.post("/v1/staff/accounts", json=person)).status_code == 201


async def test_an_account_and_a_service_that_are_made_at_once_do_not_share_a_name(
    mall: FastAPI, services: ApiKeys
) -> None:
    accounts = mall.state.services.accounts
    for number in range(5):
        outcomes = await asyncio.gather(
            accounts.create(f"twin-{number}", ["desk"]),
            services.issue(f"twin-{number}", ["desk"]),
            return_exceptions=True,
        )
        assert sorted(isinstance(outcome, Conflict) for outcome in outcomes) == [False, True]


async def test_of_several_rotations_at_once_one_key_is_left(database: Database) -> None:
    services = ApiKeys(database, "staff")
    await services.issue("scale", ["desk"])
    keys = set(await asyncio.gather(*(services.rotate("scale") for _ in range(5))))
    assert len(await services.valid_among(keys)) == 1


async def test_a_key_that_ends_soon_is_given_no_longer_by_the_next_rotation(database: Database) -> None:
    services = ApiKeys(database, "staff")
    first = await services.issue("till", ["desk"])
    second = await services.rotate("till", timedelta(minutes=1))
    await services.rotate("till", timedelta(days=1))
    ends = [key.revoked_at for key in await services.issued() if key.name == "till"]
    assert ends[0] is not None
    assert ends[1] is not None
    assert ends[0] < ends[1] - timedelta(hours=23)
    assert ends[2] is None
    assert await services.valid_among([first, second]) == {first, second}
    with pytest.raises(InvalidInput, match="0 minutes to 7 days"):
        await services.rotate("till", timedelta(days=8))
    with pytest.raises(NotFound):
        await services.rotate("nobody")


async def test_acts_are_read_page_by_page_and_what_can_not_be_printed_is_left_out(
    mall: FastAPI, mia: httpx.AsyncClient, fresh_database: Database
) -> None:
    acts = Acts(fresh_database)
    for number in range(5):
        await acts.note("bea", "count", f"thing-{number}", f"\x1b[31m{number}\0\ud800{'x' * 999}")
    found: list[str] = []
    before: str | None = None
    while True:
        search = {"by": "bea", "limit": "2"} | ({"before": before} if before else {})
        page = (await mia.get("/v1/staff/acts", params=search)).json()
        found += [act["subject"] for act in page["items"]]
        assert all(act["detail"].startswith("[31m") and len(act["detail"]) == 500 for act in page["items"])
        before = page["next"]
        if before is None:
            break
    assert found == [f"thing-{number}" for number in (4, 3, 2, 1, 0)]


async def test_what_was_refused_for_an_order_is_told_with_its_trail(
    mia: httpx.AsyncClient, fresh_database: Database
) -> None:
    path = f"/v1/staff/orders/{ORDER}/trail"
    await Acts(fresh_database).note("till", "orders.refund", f"order-{ORDER}", "it takes manager", "refused")
    assert (await mia.get(path)).status_code == 404
    async with fresh_database.transaction() as connection:
        await connection.execute(
            text(
                "INSERT INTO trail.entries"
                " (event_id, order_id, recorded_at, who, what, domain, event, stream, version, data)"
                " VALUES (gen_random_uuid(), :id, now(), 'kiosk-1', 'placed it', 'orders', 'X', 'order', 1, '{}')"
            ),
            {"id": ORDER},
        )
    trail = (await mia.get(path)).json()
    assert [entry["what"] for entry in trail["entries"]] == ["placed it"]
    assert [(act["by"], act["outcome"]) for act in trail["acts"]] == [("till", "refused")]


async def test_wrong_keys_are_noted_together_so_that_who_guesses_does_not_fill_the_log(
    mall: FastAPI, mia: httpx.AsyncClient
) -> None:
    async with a_browser(mall, **bearer("mbs_guessed")) as stranger:
        for path in ("/v1/staff/orders", "/v1/staff/orders", "/v1/stores"):
            assert (await stranger.get(path)).status_code == 401
    page = (await mia.get("/v1/staff/acts", params={"by": "stranger"})).json()
    assert sorted(act["detail"] for act in page["items"]) == [
        "1 unknown or revoked keys at the gateway of kiosks, the last from 198.51.100.7",
        "1 unknown or revoked keys at the gateway of staff, the last from 198.51.100.7",
    ]


async def test_an_act_that_can_not_be_noted_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    away = Database("staff", "postgresql+asyncpg://nobody@127.0.0.1:1/none")
    await Acts(away).note("bea", "sign in", "account-bea")
    assert "could not be noted" in caplog.text
    assert "account-bea" in caplog.text
    await away.close()


async def test_operators_make_list_rotate_and_revoke_keys(
    fresh_database: Database, services: ApiKeys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = fresh_database.engine.url.render_as_string(hide_password=False)
    for gateway in ("KIOSKS", "STAFF", "ROBOTS"):
        monkeypatch.setenv(f"MALLBOTS_{gateway}_DATABASE_URL", url)
    monkeypatch.setenv("COLUMNS", "200")
    settings = settings_for(fresh_database).model_copy(update={"data_dir": tmp_path})

    async def keys(*arguments: str) -> str:
        command = ["keys", *arguments, "--data-dir", str(tmp_path)]
        result = await asyncio.to_thread(CliRunner().invoke, command_line, command)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.output.strip()

    kept = (await install_keys(settings, "staff", ["till"], ["desk"]))["till"]
    made = await keys("create", "till", "--service", "--role", "store", "--role", "desk")
    assert (await services.principal_of(made)).roles == {"desk", "store"}
    new = await keys("rotate", "till", "--service", "--keep-old", "5")
    assert read_keys(settings, "staff") == {"till": new}
    assert await services.valid_among([kept, made, new]) == {kept, made, new}
    assert await install_keys(settings, "staff", ["till"], ["desk"]) == {"till": new}
    rows = [line for line in (await keys("list")).splitlines() if "till" in line]
    assert sorted("desk, store" in row for row in rows) == [False, True, True]
    assert "3 revoked" in await keys("revoke", "till", "--service")
    assert read_keys(settings, "staff") == {}
    assert await services.valid_among([kept, made, new]) == set()
    acts = await Acts(fresh_database).newest(subject="service-till")
    assert [(act.by, act.act) for act in acts] == [
        ("the command line", act) for act in ("revoke key", "rotate key", "create key")
    ]


@pytest.mark.parametrize("roles", [[], ["--role", "king"]])
async def test_a_service_without_a_role_is_told_what_each_may_do(roles: list[str]) -> None:
    result = await asyncio.to_thread(
        CliRunner().invoke, command_line, ["keys", "create", "till", "--service", *roles]
    )
    assert isinstance(result.exception, InvalidInput)
    for role in STAFF_ROLES:
        assert f"--role {role}" in result.exception.message
    assert "orders.hand_over" in result.exception.message


def test_only_a_service_has_roles() -> None:
    result = CliRunner().invoke(command_line, ["keys", "create", "kiosk-1", "--role", "desk"])
    assert isinstance(result.exception, InvalidInput)
    assert "only a service has roles" in result.exception.message

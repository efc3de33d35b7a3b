"""How people come in, what they are asked for, and how they are sent away."""

from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import text

from api.keys import ApiKeys
from api.staff.acts import Act, Acts
from kernel.database import Database
from tests.access.conftest import PASSWORD, a_browser, an_app, sign_in
from tests.test_kiosk_api_rules import problem

NEW = "another good password"


async def acts(database: Database) -> list[tuple[str, str, str | None, str]]:
    """What was noted, the oldest first."""

    def told(act: Act) -> tuple[str, str, str | None, str]:
        return act.by, act.act, act.subject, act.outcome

    return [told(act) for act in reversed(await Acts(database).newest())]


async def test_somebody_signs_in_and_out_and_both_are_noted(mall: FastAPI, fresh_database: Database) -> None:
    async with a_browser(mall) as browser:
        led_away = await browser.get("/staff/orders?status=ready")
        assert (led_away.status_code, led_away.headers["Location"]) == (
            303,
            "/sign-in?next=/staff/orders%3Fstatus%3Dready",
        )
        assert 'name="password"' in (await browser.get(led_away.headers["Location"])).text
        let_in = await sign_in(browser, "Dan", next="/staff/orders?status=ready")
        assert (let_in.status_code, let_in.headers["Location"]) == (303, "/staff/orders?status=ready")
        cookie = let_in.headers["Set-Cookie"]
        assert cookie.startswith("mallbots_session=")
        assert {"HttpOnly", "Path=/", "SameSite=lax"} <= set(cookie.split("; "))
        assert "Secure" not in cookie
        orders = await browser.get("/v1/staff/orders")
        assert (orders.status_code, orders.headers["Cache-Control"]) == (200, "no-store")
        assert (await browser.get("/sign-in")).headers["Location"] == "/staff"

        gone = await browser.post("/sign-out")
        assert (gone.status_code, gone.headers["Location"]) == (303, "/sign-in")
        assert not browser.cookies
        browser.headers["Cookie"] = cookie.split("; ")[0]
        problem(await browser.get("/v1/staff/orders"), 401, "unauthenticated")
    assert await acts(fresh_database) == [
        ("dan", "sign in", "account-dan", "done"),
        ("dan", "sign out", "account-dan", "done"),
    ]


async def test_behind_tls_the_cookie_is_for_this_host_alone(fresh_database: Database) -> None:
    app = an_app(fresh_database, api_url="https://mall")
    await app.state.services.accounts.create("dan", ["desk"], PASSWORD)
    async with a_browser(app) as browser:
        cookie = (await sign_in(browser, "dan")).headers["Set-Cookie"]
        assert cookie.startswith("__Host-mallbots_session=")
        assert {"HttpOnly", "Path=/", "Secure"} <= set(cookie.split("; "))
        assert (await browser.get("/v1/staff/me")).status_code == 200
        assert (await browser.post("/sign-out", headers={"Origin": "http://mall"})).status_code == 403
        assert (await browser.post("/sign-out")).status_code == 303


async def test_a_wrong_password_is_told_in_the_form_and_noted(mall: FastAPI, fresh_database: Database) -> None:
    async with a_browser(mall) as browser:
        for name, said in (("dan", "dan"), ("nobody", "nobody"), ('"><b>', "stranger")):
            refused = await sign_in(browser, name, "a wrong password")
            assert refused.status_code == 401
            assert "This is not the name and the password of an account." in refused.text
            assert "<b>" not in refused.text
            assert "Set-Cookie" not in refused.headers
            assert (await acts(fresh_database))[-1] == (said, "sign in", f"account-{said}", "refused")
        assert 'value="dan"' in (await sign_in(browser, "dan", "a wrong password")).text
        for _ in range(3):
            await sign_in(browser, "dan", "a wrong password")
        shut = await sign_in(browser, "dan")
        assert shut.status_code == 429
        assert int(shut.headers["Retry-After"]) >= 1
        assert "try again in" in shut.text
        assert (await browser.post("/sign-in")).status_code == 401


async def test_nobody_is_led_elsewhere_after_signing_in(mall: FastAPI) -> None:
    evil = "evil.example"
    async with a_browser(mall) as browser:
        for elsewhere in (f"//{evil}", f"https://{evil}", rf"/\{evil}", evil, "", f"/\t/{evil}", "/a\nb"):
            assert (await sign_in(browser, "dan", next=elsewhere)).headers["Location"] == "/staff"
            assert (await browser.get("/sign-in", params={"next": elsewhere})).headers["Location"] == "/staff"


OTHERS: list[dict[str, str]] = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://mall.evil.example"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {},
]


async def test_pages_of_others_change_nothing_by_somebodys_session(
    mall: FastAPI, fresh_database: Database
) -> None:
    eve: dict[str, Any] = {"name": "eve", "roles": ["manager"]}
    async with a_browser(mall) as browser:
        await sign_in(browser, "mia")
        del browser.headers["Origin"]
        for headers in OTHERS:
            for path in ("/v1/staff/me/sign-out-everywhere", "/staff/me/sign-out-everywhere"):
                problem(await browser.post(path, headers=headers), 403, "forbidden")
                assert (await acts(fresh_database))[-1] == ("mia", "come from another site", None, "refused")
            for path in ("/sign-in", "/sign-out", "/sign-in/kiosk"):
                problem(await browser.post(path, headers=headers), 403, "forbidden")
            problem(await browser.post("/v1/staff/accounts", headers=headers, json=eve), 403, "forbidden")
            assert (await browser.get("/v1/staff/me", headers=headers)).status_code == 200
        ours = {"Sec-Fetch-Site": "same-origin"}
        assert (await browser.post("/v1/staff/accounts", headers=ours, json=eve)).status_code == 201


async def test_a_key_needs_no_origin_and_decides_also_beside_a_session(
    mall: FastAPI, fresh_database: Database
) -> None:
    key = await ApiKeys(fresh_database, "staff").issue("till", ["desk"])
    async with a_browser(mall) as browser:
        await sign_in(browser, "mia")
        evil = {"Origin": "https://evil.example"}
        body = {"name": "eve", "roles": ["desk"]}
        for bearer, status in ((key, 403), ("mbs_unknown", 401)):
            headers = {"Authorization": f"Bearer {bearer}", **evil}
            assert (await browser.post("/v1/staff/accounts", headers=headers, json=body)).status_code == status
        headers = {"Authorization": f"Bearer {key}", **evil}
        assert (await browser.get("/v1/staff/orders", headers=headers)).status_code == 200
        problem(await browser.get("/v1/staff/me", headers=headers), 403, "forbidden")


async def test_a_refusal_that_can_not_be_noted_is_a_refusal(mall: FastAPI) -> None:
    async with a_browser(mall) as browser:
        await sign_in(browser, "dan")
        mall.state.services.acts = Acts(Database("away", "postgresql+asyncpg://nobody@127.0.0.1:1/none"))
        problem(await browser.get("/v1/staff/accounts"), 403, "forbidden")
        problem(
            await browser.post("/v1/staff/accounts", json={"name": "eve", "roles": ["desk"]}), 403, "forbidden"
        )
        assert len(await mall.state.services.accounts.all()) == 2


async def test_managers_make_change_and_end_accounts(mall: FastAPI, fresh_database: Database) -> None:
    async with a_browser(mall) as manager, a_browser(mall) as browser:
        await sign_in(manager, "mia")
        made = await manager.post("/v1/staff/accounts", json={"name": "eve", "roles": ["store"]})
        assert made.status_code == 201
        assert (await sign_in(browser, "eve", made.json()["password"])).status_code == 303
        eve = "/v1/staff/accounts/eve"
        changed = await manager.patch(eve, json={"roles": ["desk", "operator"]})
        assert (changed.json()["roles"], changed.json()["sessions"]) == (["desk", "operator"], 1)
        assert (await browser.get("/v1/staff/me")).json()["account"]["roles"] == ["desk", "operator"]
        assert (await manager.post(f"{eve}/sign-out")).json() == {"name": "eve", "ended": 1}
        problem(await browser.get("/v1/staff/me"), 401, "unauthenticated")
        reset = (await manager.post(f"{eve}/password")).json()
        assert (await sign_in(browser, "eve", reset["password"])).status_code == 303
        assert (await manager.patch(eve, json={"disabled": True})).json()["disabled_at"]
        problem(await browser.get("/v1/staff/me"), 401, "unauthenticated")
        assert [one["name"] for one in (await manager.get("/v1/staff/accounts")).json()["items"]] == [
            "dan",
            "eve",
            "mia",
        ]
        problem(await manager.post("/v1/staff/accounts", json={"name": "Eve", "roles": ["desk"]}), 409, "conflict")
        problem(await manager.patch("/v1/staff/accounts/mia", json={"roles": ["desk"]}), 409, "conflict")
        problem(await manager.patch("/v1/staff/accounts/who", json={"disabled": True}), 404, "not_found")
        wrong: list[dict[str, Any]] = [{"roles": []}, {"roles": ["king"]}, {"role": "desk"}]
        for body in wrong:
            problem(await manager.patch(eve, json=body), 422, "invalid_input")
    noted = [act for act in await acts(fresh_database) if act[2] == "account-eve" and act[0] == "mia"]
    assert [act for _, act, _, _ in noted] == [
        "create account",
        "change roles",
        "sign out everywhere",
        "reset password",
        "disable account",
    ]


@pytest.mark.parametrize("by_page", [True, False])
async def test_somebody_changes_their_password_and_signs_out_everywhere(mall: FastAPI, by_page: bool) -> None:
    path = "/staff/me" if by_page else "/v1/staff/me"

    def body(old: str, new: str) -> dict[str, Any]:
        return {("data" if by_page else "json"): {"old": old, "new": new}}

    async with a_browser(mall) as here, a_browser(mall) as there:
        for browser in (here, there):
            await sign_in(browser, "dan")
        assert "desk" in (await here.get(path)).text
        wrong = await here.post(f"{path}/password", **body("a wrong password", NEW))
        assert wrong.status_code == 422
        assert "his is not your password" in wrong.text
        assert (await here.post(f"{path}/password", **body(PASSWORD, "short"))).status_code == 422
        changed = await here.post(f"{path}/password", **body(PASSWORD, NEW))
        assert changed.status_code == (303 if by_page else 204)
        assert (await here.get("/v1/staff/me")).status_code == 200
        assert (await there.get("/v1/staff/me")).status_code == 401
        assert (await sign_in(there, "dan", NEW)).status_code == 303
        assert (await here.post(f"{path}/sign-out-everywhere")).status_code == (303 if by_page else 200)
        for browser in (here, there):
            assert (await browser.get("/v1/staff/me")).status_code == 401


async def test_an_open_page_is_no_use_of_a_session_and_none_lasts_for_ever(
    mall: FastAPI, fresh_database: Database
) -> None:
    async def age(column: str, hours: int) -> None:
        aged = text(f"UPDATE staff.sessions SET {column} = now() - interval '{hours} hours'")
        async with fresh_database.transaction() as connection:
            await connection.execute(aged)

    sessions = mall.state.services.accounts.sessions
    async with a_browser(mall) as browser:
        await sign_in(browser, "dan")
        token = browser.cookies["mallbots_session"]
        await age("last_seen_at", 11)
        await sessions.principal(token, again=True)
        await age("last_seen_at", 13)
        sessions.forget()
        problem(await browser.get("/v1/staff/me"), 401, "unauthenticated")

        await sign_in(browser, "dan")
        await age("created_at", 24 * 31)
        sessions.forget()
        problem(await browser.get("/v1/staff/me"), 401, "unauthenticated")


async def test_a_stranger_fills_no_log_and_breaks_nothing(mall: FastAPI, fresh_database: Database) -> None:
    async with a_browser(mall) as browser:
        for _ in range(12):
            refused = await browser.post("/sign-in/kiosk", data={"key": "mbk_guess"})
            assert refused.status_code == 401
        assert len(await acts(fresh_database)) == 1
        assert (await sign_in(browser, "d\x00an")).status_code == 401
        assert (await browser.get(f"/assets/x/{'a' * 300}.css")).status_code == 404
        browser.headers["Origin"] = "http://["
        problem(await browser.post("/sign-out"), 403, "forbidden")


async def test_a_browser_becomes_a_kiosk_by_a_kiosks_key(mall: FastAPI, fresh_database: Database) -> None:
    keys = ApiKeys(fresh_database, "kiosks")
    key = await keys.issue("kiosk-7")
    async with a_browser(mall) as browser:
        led_away = await browser.get("/kiosk")
        assert (led_away.status_code, led_away.headers["Location"]) == (303, "/sign-in?next=/kiosk")
        await sign_in(browser, "mia")
        assert (await browser.get("/sign-in?next=/kiosk")).status_code == 200
        refused = await browser.post("/sign-in/kiosk", data={"key": "mbk_unknown"})
        assert refused.status_code == 401
        assert "not known" in refused.text
        let_in = await browser.post("/sign-in/kiosk", data={"key": f" {key} "})
        assert (let_in.status_code, let_in.headers["Location"]) == (303, "/kiosk")
        cookie = set(let_in.headers["Set-Cookie"].split("; "))
        assert {f"mallbots_kiosk={key}", "HttpOnly", "Path=/", "SameSite=strict", "Max-Age=34560000"} <= cookie
        problem(await browser.get("/v1/staff/me"), 401, "unauthenticated")
        assert "kiosk-7" in (await browser.get("/kiosk")).text
        assert (await browser.get("/v1/stores")).status_code == 200
        order = {"items": [{"sku": "tea", "quantity": 1}], "payment": {"method": "at_pickup"}}
        headers = {"Idempotency-Key": "k", "Origin": "https://evil.example"}
        problem(await browser.post("/v1/orders", headers=headers, json=order), 403, "forbidden")
        ours = await browser.post("/v1/orders", headers={"Idempotency-Key": "k"}, json=order)
        problem(ours, 503, "unavailable")
        await keys.revoke("kiosk-7")
        problem(await browser.get("/v1/stores"), 401, "unauthenticated")
        assert (await browser.get("/kiosk")).headers["Location"] == "/sign-in?next=/kiosk"


async def test_modules_are_for_who_is_known_and_styles_for_everybody(
    mall: FastAPI, fresh_database: Database
) -> None:
    module, style = "/assets/0/mall.js", "/assets/0/style.css"
    async with a_browser(mall) as browser:
        problem(await browser.get(module), 401, "unauthenticated")
        problem(await browser.get("/assets/0/there-is-none.js"), 401, "unauthenticated")
        assert (await browser.get(style)).status_code == 200
        assert (await browser.get("/assets/0/icon.svg")).status_code == 200
        await browser.post(
            "/sign-in/kiosk", data={"key": await ApiKeys(fresh_database, "kiosks").issue("kiosk-7")}
        )
        assert (await browser.get(module)).headers["Cache-Control"].startswith("private")
    async with a_browser(mall) as browser:
        await sign_in(browser, "dan")
        assert (await browser.get(module)).status_code == 200
        assert (await browser.get("/assets/0/..%2Fpages.py")).status_code == 404

"""Who has signed in follows events, from a page of ours, and as long as the session lasts."""

import pytest
from websockets.asyncio.client import connect
from websockets.typing import Origin

from api.closing import CloseCode
from api.keys import ApiKeys
from api.staff import events as api_events
from api.staff import remembered
from api.staff.accounts import Accounts
from tests.access.conftest import CHEAP
from tests.live.serving import Api, close_of, hello


@pytest.fixture
async def accounts(api: Api, monkeypatch: pytest.MonkeyPatch) -> Accounts:
    """Those of another process; what it changes is seen soon."""
    monkeypatch.setattr(api_events, "LOOKED_AT_EVERY", 0.1)
    monkeypatch.setattr(remembered, "KEPT_SECONDS", 0.1)
    return Accounts(api.database, hasher=CHEAP)


def follow(api: Api, token: str, origin: Origin | None) -> connect:
    """A browser with this session opens a WebSocket on a page of this origin."""
    cookie = {"Cookie": f"mallbots_session={token}"}
    return connect(api.events_url(), additional_headers=cookie, origin=origin, proxy=None)


async def test_a_session_follows_events_until_somebody_signs_out(api: Api, accounts: Accounts) -> None:
    password = await accounts.create("fay", ["desk"])
    token = await accounts.sign_in("fay", password, None)
    ours = Origin(f"http://127.0.0.1:{api.port}")
    async with follow(api, token, ours) as page, follow(api, token, ours) as other_page:
        await hello(page)
        await hello(other_page)
        await accounts.sign_out(token)
        for one in (page, other_page):
            _, close = await close_of(one)
            assert (close.code, close.reason) == (
                CloseCode.UNAUTHENTICATED,
                "your session has ended: sign in again",
            )
    async with follow(api, token, ours) as page:
        assert (await close_of(page))[1].code == CloseCode.UNAUTHENTICATED


async def test_pages_of_others_follow_nothing(api: Api, accounts: Accounts) -> None:
    token = await accounts.sign_in("gus", await accounts.create("gus", ["desk"]), None)
    for origin in (Origin("https://evil.example"), Origin("null"), None):
        async with follow(api, token, origin) as page:
            messages, close = await close_of(page)
        assert (messages, close.code) == ([], CloseCode.FORBIDDEN)


async def test_a_revoked_key_follows_no_more(api: Api, accounts: Accounts) -> None:
    keys = ApiKeys(api.database, "staff")
    key = await keys.issue("wall", ["desk"])
    async with api.follow(key=key) as connection:
        await hello(connection)
        await keys.revoke("wall")
        assert (await close_of(connection))[1].code == CloseCode.UNAUTHENTICATED

"""Signing in by a provider: who it vouches for comes in with its roles, and nobody else does."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Annotated, Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import uvicorn
from authlib.oauth2.rfc7636 import create_s256_code_challenge  # type: ignore[import-untyped]
from fastapi import FastAPI, Form, Response
from joserfc import jwt
from joserfc.jwk import RSAKey

from api.staff.acts import Acts
from kernel.database import Database
from kernel.errors import Misconfigured
from mallbots.embedded import free_port
from tests.access.conftest import a_browser, an_app
from tests.waiting import eventually

KEY = RSAKey.generate_key(2048, {"kid": "first", "use": "sig", "alg": "RS256"})
STRANGERS_KEY = RSAKey.generate_key(2048, {"kid": "first", "use": "sig", "alg": "RS256"})
Field = Annotated[str, Form()]


@dataclass
class FakeProvider:
    """A provider with one user, whom it signs in without a question. `lies` are claims that it says instead."""

    port: int
    groups: Any = field(default_factory=lambda: ["mall-desk", "football"])
    name: str = "olga"
    subject: str = "42"
    key: RSAKey = field(default_factory=lambda: KEY)
    lies: dict[str, Any] = field(default_factory=dict)
    asked: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.port}/realm"

    def code_for(self, url: str) -> str:
        """Somebody is sent to `url` by the mall, and signs in: the code that they are sent back with."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        assert query["response_type"] == "code"
        assert query["code_challenge_method"] == "S256"
        code = f"code-{len(self.asked)}"
        self.asked[code] = query
        return code

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.get("/realm/.well-known/openid-configuration")
        async def metadata() -> dict[str, Any]:
            return {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/keys",
            }

        @app.get("/realm/keys")
        async def keys() -> dict[str, Any]:
            return {"keys": [KEY.as_dict(private=False)]}

        @app.post("/realm/token")
        async def token(
            code: Annotated[str, Form()],
            code_verifier: Annotated[str, Form()],
            redirect_uri: Annotated[str, Form()],
        ) -> Any:
            asked = self.asked.pop(code, None)
            if asked is None or create_s256_code_challenge(code_verifier) != asked["code_challenge"]:
                return Response('{"error": "invalid_grant"}', 400)
            assert redirect_uri == asked["redirect_uri"] == "http://mall/sign-in/provider/return"
            moment = int(time.time())
            claims = {
                "iss": self.issuer,
                "sub": self.subject,
                "aud": "mall",
                "exp": moment + 300,
                "iat": moment,
                "nonce": asked["nonce"],
                "preferred_username": self.name,
                "groups": self.groups,
            }
            id_token = jwt.encode({"alg": "RS256", "kid": "first"}, claims | self.lies, self.key)
            return {"access_token": "x", "token_type": "Bearer", "id_token": id_token}

        return app


@pytest.fixture
async def provider() -> AsyncIterator[FakeProvider]:
    fake = FakeProvider(free_port())
    server = uvicorn.Server(uvicorn.Config(fake.app(), port=fake.port, log_level="warning"))
    serving = asyncio.create_task(server.serve())
    await eventually(lambda: server.started)
    yield fake
    server.should_exit = True
    await serving


@pytest.fixture
async def mall(fresh_database: Database, provider: FakeProvider) -> AsyncIterator[FastAPI]:
    """A mall whose staff sign in by the provider, with a local manager called mia."""
    app = an_app(
        fresh_database,
        oidc_issuer=provider.issuer,
        oidc_client_id="mall",
        oidc_client_secret="hush",
        oidc_roles={"mall-desk": "desk", "mall-boss": "manager"},
        oidc_label="Sign in by Example",
    )
    await app.state.services.accounts.create("mia", ["manager"])
    yield app
    await app.state.services.close()


async def come_back(browser: httpx.AsyncClient, provider: FakeProvider, **changes: str) -> httpx.Response:
    """Go to the provider and back, with the query of the way back changed as the test says."""
    sent = await browser.get("/sign-in/provider?next=/staff/robots")
    assert sent.status_code == 303
    url = sent.headers["Location"]
    state = parse_qs(urlsplit(url).query)["state"][0]
    query = {"state": state, "code": provider.code_for(url)} | changes
    return await browser.get("/sign-in/provider/return", params=query)


async def me(browser: httpx.AsyncClient) -> dict[str, Any]:
    answer: dict[str, Any] = (await browser.get("/v1/staff/me")).json()
    return answer


async def test_who_the_provider_vouches_for_comes_in_with_the_roles_that_it_says(
    mall: FastAPI, provider: FakeProvider
) -> None:
    async with a_browser(mall) as browser:
        assert "Sign in by Example" in (await browser.get("/sign-in")).text
        back = await come_back(browser, provider)
        assert (back.status_code, back.headers["Location"]) == (303, "/staff/robots")
        account = (await me(browser))["account"]
        assert (account["name"], account["roles"], account["issuer"]) == ("olga", ["desk"], provider.issuer)
        provider.groups, provider.name = "mall-boss", "olga-the-boss"
        await come_back(browser, provider)
        account = (await me(browser))["account"]
        assert (account["name"], account["roles"]) == ("olga", ["manager"])
        own = {"old": "x", "new": "a long enough password"}
        assert (await browser.post("/v1/staff/me/password", json=own)).status_code == 409


async def test_an_id_token_that_is_not_the_providers_for_this_sign_in_lets_nobody_in(
    mall: FastAPI, provider: FakeProvider
) -> None:
    lies: list[dict[str, Any]] = [
        {"nonce": "that of another sign-in"},
        {"nonce": None},
        {"aud": "another client"},
        {"aud": ["another client"], "azp": "mall"},
        {"iss": "http://elsewhere"},
        {"exp": int(time.time()) - 3600},
        {"sub": None},
    ]
    async with a_browser(mall) as browser:
        for provider.lies in lies:
            back = await come_back(browser, provider)
            assert (back.status_code, provider.lies) == (401, provider.lies)
            assert "can not be trusted" in back.text
        provider.lies, provider.key = {}, STRANGERS_KEY
        assert (await come_back(browser, provider)).status_code == 401
        provider.key = KEY
        assert (await come_back(browser, provider)).status_code == 303


async def test_a_way_back_is_gone_once_by_the_browser_that_went(mall: FastAPI, provider: FakeProvider) -> None:
    async with a_browser(mall) as browser, a_browser(mall) as other:
        assert (await come_back(browser, provider, state="x" * 64)).status_code == 401
        assert (await come_back(browser, provider, error="access_denied", code="")).status_code == 401
        back = await come_back(browser, provider)
        assert back.status_code == 303
        assert (await browser.get(str(back.url))).status_code == 401
        assert (await other.get(str(back.url))).status_code == 401
        sent = await other.get("/sign-in/provider")
        state = parse_qs(urlsplit(sent.headers["Location"]).query)["state"][0]
        stolen = provider.code_for((await browser.get("/sign-in/provider")).headers["Location"])
        answer = await other.get("/sign-in/provider/return", params={"state": state, "code": stolen})
        assert answer.status_code == 401


async def test_without_a_role_of_the_mall_nobody_comes_in_and_it_is_noted(
    mall: FastAPI, provider: FakeProvider, fresh_database: Database
) -> None:
    provider.groups = ["football"]
    async with a_browser(mall) as browser:
        back = await come_back(browser, provider)
        assert back.status_code == 403
        assert "gives olga no role" in back.text
    (act,) = await Acts(fresh_database).newest(1)
    assert (act.act, act.outcome) == ("sign in", "refused")
    assert "olga" in act.detail


async def test_a_name_that_somebody_has_here_is_not_taken_over(mall: FastAPI, provider: FakeProvider) -> None:
    provider.name, provider.groups = "Mia", ["mall-boss"]
    async with a_browser(mall) as browser:
        assert (await come_back(browser, provider)).status_code == 403
    provider.name = "olga"
    async with a_browser(mall) as browser:
        await come_back(browser, provider)
        await mall.state.services.accounts.change("olga", disabled=True)
        assert (await browser.get("/v1/staff/me")).status_code == 401
        assert (await come_back(browser, provider)).status_code == 403


async def test_a_provider_that_is_away_is_told_and_passwords_still_work(fresh_database: Database) -> None:
    app = an_app(fresh_database, oidc_issuer="http://127.0.0.1:1", oidc_client_id="mall")
    async with a_browser(app) as browser:
        answer = await browser.get("/sign-in/provider")
        assert answer.status_code == 503
        assert 'name="password"' in answer.text
    app = an_app(fresh_database)
    async with a_browser(app) as browser:
        assert (await browser.get("/sign-in/provider")).status_code == 404
        assert "provider" not in (await browser.get("/sign-in")).text
    with pytest.raises(Misconfigured):
        an_app(fresh_database, oidc_issuer="http://127.0.0.1:1")

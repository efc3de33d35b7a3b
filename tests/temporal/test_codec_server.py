"""The codec server: who is shown in plain what Temporal keeps encrypted, and who is not."""

from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from api.codec.app import LARGEST_BODY, create_codec_app
from api.keys import ApiKeys
from api.staff.accounts import Accounts
from kernel.database import Database
from kernel.errors import Misconfigured
from mallbots.encryption import data_converter
from mallbots.settings import Settings
from tests.access.conftest import CHEAP, PASSWORD, settings_for
from tests.access.test_sign_in import acts
from tests.temporal.keys import NEWER, OLDER
from tests.test_kiosk_api_rules import problem

UI = "http://mall:8233"
SECRET = {"customer": "Ada", "sku": "tea"}
SESSION = {"Origin": UI, "Cookie": "mallbots_session="}


@pytest.fixture
def settings(fresh_database: Database) -> Settings:
    return settings_for(fresh_database, temporal_ui_url=UI, temporal_encryption_keys=f"{NEWER},{OLDER}")


@pytest.fixture
async def app(settings: Settings, fresh_database: Database) -> AsyncIterator[FastAPI]:
    """The codec server of a mall with an operator called otto, and dan of the desk."""
    app = create_codec_app(settings)
    accounts = app.state.services.accounts = Accounts(fresh_database, hasher=CHEAP)
    await accounts.create("otto", ["operator"], PASSWORD)
    await accounts.create("dan", ["desk"], PASSWORD)
    yield app
    await app.state.services.close()


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://mall:8081") as client:
        yield client


async def session(app: FastAPI, name: str) -> dict[str, str]:
    """What a browser sends from Temporal's Web UI for somebody who has signed in to the staff app."""
    token = await app.state.services.accounts.sign_in(name, PASSWORD, "198.51.100.7")
    return {**SESSION, "Cookie": SESSION["Cookie"] + token, "X-Namespace": "mallbots"}


async def in_temporal(settings: Settings) -> dict[str, Any]:
    """A body with a payload as Temporal keeps it."""
    [payload] = await data_converter(settings).encode([SECRET])
    metadata = {name: b64encode(value).decode() for name, value in payload.metadata.items()}
    return {"payloads": [{"metadata": metadata, "data": b64encode(payload.data).decode()}]}


def plain(response: httpx.Response) -> list[bytes]:
    assert response.status_code == 200, response.text
    return [b64decode(one["data"], validate=True) for one in response.json()["payloads"]]


async def test_an_operator_reads_in_the_web_ui_what_is_encrypted(
    app: FastAPI, client: httpx.AsyncClient, settings: Settings
) -> None:
    asked = {
        "Origin": UI,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type,x-namespace",
    }
    preflight = await client.options("/decode", headers=asked)
    assert preflight.status_code == 200
    headers = await session(app, "otto")
    answer = await client.post(
        "/decode?preserveStorageRefs=true", json=await in_temporal(settings), headers=headers
    )
    assert plain(answer) == [b'{"customer":"Ada","sku":"tea"}']
    assert answer.headers["Cache-Control"] == "no-store"
    for told in (preflight, answer):
        assert told.headers["Access-Control-Allow-Origin"] == UI
        assert told.headers["Access-Control-Allow-Credentials"] == "true"


async def test_the_command_line_of_temporal_reads_by_the_key_of_a_service(
    client: httpx.AsyncClient, settings: Settings, fresh_database: Database
) -> None:
    key = await ApiKeys(fresh_database, "staff").issue("cli", roles=["operator"])
    headers = {"Authorization": f"Bearer {key}"}
    body = await in_temporal(settings)
    assert b"Ada" in plain(await client.post("/decode", json=body, headers=headers))[0]
    in_plain = {"payloads": [{"metadata": {"encoding": b64encode(b"json/plain").decode()}, "data": "IkFkYSI="}]}
    assert plain(await client.post("/decode", json=in_plain, headers=headers)) == [b'"Ada"']
    assert plain(await client.post("/encode", json={}, headers=headers)) == []
    encrypted = await client.post("/encode", json=in_plain, headers=headers)
    assert b"Ada" not in plain(encrypted)[0]
    assert (await client.post("/decode", json=encrypted.json(), headers=headers)).json() == in_plain


async def test_whoever_is_no_operator_is_refused_and_that_is_noted(
    app: FastAPI, client: httpx.AsyncClient, settings: Settings, fresh_database: Database
) -> None:
    body = await in_temporal(settings)
    for path in ("/decode", "/encode"):
        problem(await client.post(path, json=body), 401, "unauthenticated")
        refused = await client.post(path, json=body, headers=await session(app, "dan"))
        problem(refused, 403, "forbidden")
        # The page that asked may read why.
        assert refused.headers["Access-Control-Allow-Origin"] == UI
    problem(await client.post("/decode", json=body, headers={"Authorization": "Bearer x"}), 401, "unauthenticated")
    assert await acts(fresh_database) == [
        ("dan", "payloads.read", None, "refused"),
        ("dan", "payloads.read", None, "refused"),
        ("stranger", "come in", None, "refused"),
    ]


async def test_no_other_page_reads_with_the_session_of_an_operator(
    app: FastAPI, client: httpx.AsyncClient, settings: Settings
) -> None:
    elsewhere = await session(app, "otto") | {"Origin": "http://mall:9999"}
    body = await in_temporal(settings)
    refused = await client.post("/decode", json=body, headers=elsewhere)
    problem(refused, 403, "forbidden")
    preflight = {"Origin": elsewhere["Origin"], "Access-Control-Request-Method": "POST"}
    assert (await client.options("/decode", headers=preflight)).status_code == 400
    assert "Access-Control-Allow-Origin" not in refused.headers
    without = {name: value for name, value in elsewhere.items() if name != "Origin"}
    problem(await client.post("/decode", json=body, headers=without), 403, "forbidden")


async def test_what_can_not_be_read_is_a_problem_that_shows_nothing_of_it(
    app: FastAPI, client: httpx.AsyncClient, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    headers = await session(app, "otto")
    body = await in_temporal(settings)

    async def fails(body: Any, status: int = 422, code: str = "invalid_input") -> str:
        answer = problem(await client.post("/decode", json=body, headers=headers), status, code)
        return str(answer["detail"])

    altered = await in_temporal(settings)
    altered["payloads"].insert(0, {"data": "IkFkYSI="})
    altered["payloads"][1]["data"] = b64encode(b"x" * 80).decode()
    assert "does not decrypt with the key 'newer'" in await fails(altered)
    altered["payloads"][1]["metadata"]["encryption-key-id"] = b64encode(b"lost").decode()
    assert "the key 'lost', which is not in MALLBOTS_TEMPORAL_ENCRYPTION_KEYS" in await fails(altered)
    headers["X-Namespace"] = "other"
    assert "knows the namespace mallbots only" in await fails(body)
    headers["X-Namespace"] = "mallbots"
    assert "payloads[0].data" in await fails({"payloads": [{"data": "Ada, no Base64!"}]})
    await fails({"payloads": [{"data": "A" * LARGEST_BODY}]}, 413, "content_too_large")
    form = await client.post("/decode", content=b"a=b", headers=headers | {"Content-Type": "text/plain"})
    problem(form, 415, "unsupported_media_type")
    assert "Ada" not in caplog.text


async def test_it_serves_only_a_mall_with_keys(fresh_database: Database, client: httpx.AsyncClient) -> None:
    assert (await client.get("/healthz")).json() == {"status": "ok"}
    with pytest.raises(Misconfigured, match="MALLBOTS_TEMPORAL_ENCRYPTION_KEYS is not set"):
        create_codec_app(settings_for(fresh_database))

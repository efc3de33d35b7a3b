"""The API by TLS: who shows which certificate, and what becomes of one that is renewed."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from websockets.asyncio.client import connect

from api.app import create_app
from api.closing import CloseCode
from clients.desk import hand_over_ready
from kernel.errors import Unavailable
from mallbots.embedded import free_port
from mallbots.serving import Server
from mallbots.settings import DATABASES, Settings
from mallbots.tls import api_verification
from tests.tls.certificates import HOST, Certificates, Pair
from tests.waiting import eventually


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[None]:
    server = Server(create_app(settings), settings)
    running = asyncio.create_task(server.serve())
    try:
        await eventually(lambda: server.started or running.done())
        yield
    finally:
        server.should_exit = True
        await running


def change(settings: Settings, **changes: Any) -> Settings:
    return settings.model_copy(update=changes)


@pytest.fixture
def shown(certificates: Certificates, request: pytest.FixtureRequest) -> Pair:
    """What the API shows in one test, which may renew it."""
    return certificates.ours.pair(request.node.name)


@pytest.fixture
def settings(migrated_url: str, certificates: Certificates, shown: Pair, tmp_path: Path) -> Settings:
    port = free_port()
    return Settings.model_validate(
        {f"{name}_database_url": SecretStr(migrated_url) for name in DATABASES}
        | {
            "data_dir": tmp_path,
            "log_level": "error",
            "nats_url": SecretStr("nats://127.0.0.1:1"),
            "temporal_address": "127.0.0.1:1",
            "api_port": port,
            "api_url": f"https://{HOST}:{port}",
            "api_tls_certificate": shown.certificate,
            "api_tls_key": shown.key,
            "api_tls_ca": certificates.ours.ca,
        }
    )


async def healthy(settings: Settings) -> bool:
    """As one of our clients asks, on a connection of its own."""
    try:
        async with httpx.AsyncClient(verify=api_verification(settings), trust_env=False) as client:
            return (await client.get(f"{settings.api_url}/healthz")).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


async def test_by_settings_the_api_is_who_it_says(settings: Settings, certificates: Certificates) -> None:
    async with serving(settings):
        assert await healthy(settings)
        assert not await healthy(change(settings, api_tls_ca=certificates.strangers.ca))
        assert not await healthy(change(settings, api_tls_ca=None))
        context = api_verification(settings)
        assert isinstance(context, ssl.SSLContext)
        async with connect(f"wss://{HOST}:{settings.api_port}/v1/staff/events", ssl=context) as socket:
            await socket.wait_closed()
        assert socket.close_code == CloseCode.UNAUTHENTICATED


async def test_where_the_api_wants_certificates_our_clients_show_theirs(
    settings: Settings, certificates: Certificates
) -> None:
    own = {
        "api_tls_client_certificate": certificates.client.certificate,
        "api_tls_client_key": certificates.client.key,
    }
    strangers = {
        "api_tls_client_certificate": certificates.stranger.certificate,
        "api_tls_client_key": certificates.stranger.key,
    }
    strict = change(settings, api_tls_client_ca=certificates.ours.ca)
    async with serving(strict):
        assert (await hand_over_ready(change(strict, **own))).exit_code == 0
        for refused in (strict, change(strict, **strangers)):
            with pytest.raises(Unavailable, match="the API does not answer"):
                await hand_over_ready(refused)


async def test_a_renewed_certificate_is_shown_without_a_restart(
    settings: Settings, certificates: Certificates, shown: Pair
) -> None:
    renewed = certificates.strangers.pair("renewed")
    trusting_new = change(settings, api_tls_ca=certificates.strangers.ca)
    strict = change(settings, api_tls_client_ca=certificates.ours.ca)
    own = {
        "api_tls_client_certificate": certificates.client.certificate,
        "api_tls_client_key": certificates.client.key,
    }
    async with serving(strict):
        assert await healthy(change(settings, **own))
        assert not await healthy(change(trusting_new, **own))
        renewed.certificate.rename(shown.certificate)
        # Its key is not there yet: what was good is shown until it is.
        assert await healthy(change(settings, **own))
        renewed.key.rename(shown.key)
        assert await healthy(change(trusting_new, **own))
        assert not await healthy(change(settings, **own))
        assert not await healthy(trusting_new)

"""NATS by TLS."""

import asyncio
from typing import Any

import pytest
from pydantic import SecretStr

from events.stream import connected
from kernel.errors import Unavailable
from mallbots.settings import Settings
from tests.tls.certificates import HOST, Certificates
from tests.tls.servers import NatsByTls


@pytest.fixture
def settings(nats: NatsByTls, certificates: Certificates) -> Settings:
    return Settings(
        nats_url=SecretStr(nats.url.replace("tls://", "nats://")),
        nats_tls_ca=certificates.ours.ca,
        nats_tls_certificate=certificates.client.certificate,
        nats_tls_key=certificates.client.key,
    )


async def test_by_settings_nats_is_spoken_to_by_tls_and_with_our_certificate(
    settings: Settings, nats: NatsByTls
) -> None:
    for url in (nats.url, nats.url.replace("tls://", "nats://")):
        there = settings.model_copy(update={"nats_url": SecretStr(url)})
        async with connected(there.nats_address(), "test") as connection:
            assert (await connection.jetstream.account_info()).limits


async def test_what_is_wrong_with_nats_is_said_in_one_line(
    settings: Settings, certificates: Certificates, nats: NatsByTls
) -> None:
    async def fault(**changes: Any) -> str:
        with pytest.raises(Unavailable) as refused:
            async with connected(settings.model_copy(update=changes).nats_address(), "test"):
                pass
        return refused.value.message

    nobody = {"nats_tls_certificate": None, "nats_tls_key": None}
    stranger = {
        "nats_tls_certificate": certificates.stranger.certificate,
        "nats_tls_key": certificates.stranger.key,
    }
    assert "its certificate is not trusted" in await fault(nats_tls_ca=certificates.strangers.ca)
    assert "its certificate is not trusted" in await fault(nats_tls_ca=None, nats_url=SecretStr(nats.url))
    assert "certificate" in await fault(**nobody)
    assert "certificate" in await fault(**stranger)
    assert "Authorization Violation" in await fault(nats_url=SecretStr(nats.url.replace("test@", "no@")))


async def test_whoever_answers_without_tls_does_not_get_the_token(settings: Settings) -> None:
    """As it would be if somebody stood between, and said that there is no TLS."""
    heard = asyncio.get_running_loop().create_future()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"x","version":"2.15.1","headers":true,"max_payload":1048576}\r\n')
        heard.set_result(await reader.read())
        writer.close()

    async with await asyncio.start_server(answer, HOST) as server:
        port = server.sockets[0].getsockname()[1]
        url = SecretStr(f"nats://token@{HOST}:{port}")
        with pytest.raises(Unavailable, match="it does not speak TLS"):
            async with connected(settings.model_copy(update={"nats_url": url}).nats_address(), "test"):
                pass
        assert await asyncio.wait_for(heard, 5) == b""

"""Temporal by TLS: a server of one's own, and Temporal Cloud, for which a proxy stands here."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

import worker
from api.app import create_app
from clients.replay import Basket, replay
from events.stream import connected, newest
from kernel.database import Database
from kernel.errors import Misconfigured, Unavailable
from kernel.ids import new_id
from mallbots.embedded import free_port, temporal_part
from mallbots.relaying import relay
from mallbots.serving import Server
from mallbots.settings import DATABASES, Settings
from mallbots.supervisor import Supervisor
from mallbots.temporal import connect, prepare_namespace
from tests.directories import server_directory
from tests.samples import stocked
from tests.tls.certificates import HOST, Certificates
from tests.tls.servers import API_KEY, DatabaseByTls, NatsByTls, TemporalByTls, temporal_by_tls
from tests.waiting import eventually

# To make a namespace while the server works takes it seconds.
MALL = "mall.a1b2c"
UNPREPARED = "unprepared.a1b2c"


@pytest.fixture(scope="module")
async def temporal(certificates: Certificates) -> AsyncIterator[TemporalByTls]:
    """A real server behind a proxy."""
    with server_directory() as directory:
        data_dir, port = Path(directory), free_port()
        supervisor = Supervisor(data_dir, say=lambda _: None)
        try:
            part = temporal_part(data_dir, port, free_port())
            namespaces = ("--namespace", MALL, "--namespace", UNPREPARED)
            await supervisor.start(replace(part, command=(*part.command, *namespaces)))
            with temporal_by_tls(data_dir, certificates, f"{HOST}:{port}") as addresses:
                yield addresses
        finally:
            # Its threads may call back for a moment longer (temporalio/sdk-python#300).
            await asyncio.sleep(0.05)
            await supervisor.stop()


@pytest.fixture
def trusting(certificates: Certificates, temporal: TemporalByTls) -> Settings:
    """The settings of a server that is spoken to by TLS."""
    return Settings(
        temporal_address=temporal.plain,
        temporal_namespace=MALL,
        temporal_tls_ca=certificates.ours.ca,
    )


@pytest.fixture
def mutual(certificates: Certificates, temporal: TemporalByTls, trusting: Settings) -> Settings:
    """The settings of a server that wants a certificate, too."""
    return trusting.model_copy(
        update={
            "temporal_address": temporal.mutual,
            "temporal_tls_certificate": certificates.client.certificate,
            "temporal_tls_key": certificates.client.key,
        }
    )


@pytest.fixture
def cloud(temporal: TemporalByTls, trusting: Settings) -> Settings:
    """The settings of a server that wants an API key, and lets nobody make namespaces and search attributes."""
    changes = {"temporal_address": temporal.cloud, "temporal_api_key": SecretStr(API_KEY)}
    return trusting.model_copy(update=changes)


async def fault(settings: Settings, **changes: Any) -> str:
    with pytest.raises(Unavailable) as refused:
        await connect(settings.model_copy(update=changes))
    return refused.value.message


async def test_by_settings_temporal_is_spoken_to_by_tls(
    trusting: Settings, temporal: TemporalByTls, certificates: Certificates
) -> None:
    assert await (await connect(trusting)).service_client.check_health()
    assert "not signed by whom MALLBOTS_TEMPORAL_TLS_CA names" in await fault(
        trusting, temporal_tls_ca=certificates.strangers.ca
    )
    assert "not signed by anybody this machine trusts" in await fault(
        trusting, temporal_tls_ca=None, temporal_tls=True
    )
    assert "is for another name: MALLBOTS_TEMPORAL_TLS_SERVER_NAME" in await fault(
        trusting, temporal_tls_server_name="another.example"
    )
    assert (await fault(trusting, temporal_tls_ca=None)).startswith("Temporal does not answer at 127.0.0.1")
    assert "it does not speak TLS" in await fault(trusting, temporal_address=temporal.without)


async def test_by_settings_temporal_is_shown_our_certificate(mutual: Settings, certificates: Certificates) -> None:
    assert await (await connect(mutual)).service_client.check_health()
    assert "certificate" in await fault(mutual, temporal_tls_certificate=None, temporal_tls_key=None)
    # Whoever is refused may not hear why.
    stranger = certificates.stranger
    assert "certificate" in await fault(
        mutual, temporal_tls_certificate=stranger.certificate, temporal_tls_key=stranger.key
    )


async def test_in_temporal_cloud_an_api_key_opens_the_door(cloud: Settings) -> None:
    assert await (await connect(cloud)).service_client.check_health()
    assert "it does not take our MALLBOTS_TEMPORAL_API_KEY" in await fault(
        cloud, temporal_api_key=SecretStr("another")
    )


async def test_what_temporal_cloud_does_not_let_us_make_is_told_to_whoever_may(
    cloud: Settings, mutual: Settings
) -> None:
    nowhere = cloud.model_copy(update={"temporal_namespace": "nowhere"})
    with pytest.raises(Misconfigured, match="no namespace nowhere, and does not let us make it"):
        await prepare_namespace(nowhere)
    unprepared = {"temporal_namespace": UNPREPARED}
    ours = cloud.model_copy(update=unprepared)
    with pytest.raises(Misconfigured, match=r'tcld .* --sa "OrderStatus=Keyword" .* --sa "TotalCents=Int"'):
        await prepare_namespace(ours)
    await prepare_namespace(mutual.model_copy(update=unprepared))
    await prepare_namespace(ours)


async def test_an_order_is_taken_where_every_connection_is_by_tls(
    mutual: Settings, certificates: Certificates, database: DatabaseByTls, nats: NatsByTls, tmp_path: Path
) -> None:
    """The real parts, with the settings of a mall whose servers, API and clients all show certificates."""
    port = free_port()
    client, server = certificates.client, certificates.server
    settings = Settings.model_validate(
        mutual.model_dump()
        | {f"{name}_database_url": SecretStr(database.url) for name in DATABASES}
        | {
            "data_dir": tmp_path,
            "log_level": "warning",
            "database_tls_ca": certificates.ours.ca,
            "database_tls_certificate": client.certificate,
            "database_tls_key": client.key,
            "nats_url": SecretStr(nats.url),
            "nats_tls_ca": certificates.ours.ca,
            "nats_tls_certificate": client.certificate,
            "nats_tls_key": client.key,
            "api_port": port,
            "api_url": f"https://{HOST}:{port}",
            "api_tls_certificate": server.certificate,
            "api_tls_key": server.key,
            "api_tls_client_ca": certificates.ours.ca,
            "api_tls_ca": certificates.ours.ca,
            "api_tls_client_certificate": client.certificate,
            "api_tls_client_key": client.key,
        }
    )
    await prepare_namespace(settings)
    stores = Database("stores", settings.database_url("stores"), pool_size=1)
    skus = await stocked(stores, tea=5)
    await stores.close()
    api, stop = Server(create_app(settings), settings), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(worker.run_workers(await connect(settings), settings, worker.CHOICES, stop.wait))
        publishing = tasks.create_task(relay(settings, "orders"))
        tasks.create_task(api.serve())
        await eventually(lambda: api.started)
        basket = Basket.model_validate(
            {"basket_id": new_id().hex, "kiosk": "kiosk-1", "items": [{"sku": skus["tea"], "quantity": 2}]}
        )
        report = await replay(settings, [basket])
        assert report.approved == 1, report

        async def told() -> bool:
            async with connected(settings.nats_address(), "test") as there:
                return await newest(there.jetstream, "mallbots.orders.OrderApproved.*") is not None

        await eventually(told)
        api.should_exit = True
        publishing.cancel()
        stop.set()

"""What processes tell Prometheus, and what they must not: wrong figures, and labels without end."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from threading import Event
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from opentelemetry.metrics import CallbackOptions
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from temporalio.testing import WorkflowEnvironment

from api.figures import Lookout, Told, tell_figures
from api.metrics import RequestMetrics
from api.services import Services
from domains.orders.service import Orders
from kernel.database import Database
from kernel.errors import Misconfigured
from mallbots.embedded import find_binary
from mallbots.observing import Observed
from mallbots.settings import DATABASES, Settings
from mallbots.telemetry import configure_metrics, temporal_runtime
from tests.samples import place
from tests.waiting import eventually

MetricsTold = Callable[[str], dict[str, float]]


@pytest.fixture
async def mall(fresh_database: Database) -> AsyncIterator[Services]:
    """The services of an API process whose NATS and Temporal are away."""
    async with services(fresh_database) as mall:
        yield mall


@asynccontextmanager
async def services(database: Database, temporal: str = "127.0.0.1:1") -> AsyncIterator[Services]:
    url = SecretStr(database.engine.url.render_as_string(hide_password=False))
    urls: dict[str, Any] = {f"{name}_database_url": url for name in DATABASES}
    nats_url = SecretStr("nats://127.0.0.1:1")
    opened = Services(Settings(**urls, nats_url=nats_url, temporal_address=temporal))
    yield opened
    await opened.close()


def figures(told: Told, name: str) -> dict[str, float]:
    """The figures of this name as they are told now, by the values of their labels."""
    seen = told.observe(name, CallbackOptions())
    return {"/".join(map(str, (one.attributes or {}).values())): one.value for one in seen}


async def test_requests_are_told_by_route_and_status_never_by_path(metrics_told: MetricsTold) -> None:
    app = FastAPI()

    @app.get("/things/{thing}")
    async def get_thing(thing: int) -> int:
        return 1 // thing

    app.add_middleware(RequestMetrics)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://mall") as client:
        for path in ("/things/1", "/things/2", "/things/none", "/things/0", "/wp-admin", "/wp-login"):
            await client.get(path)
        await client.request("BREW", "/things/1")
    told = metrics_told("mallbots.http.request.duration")
    assert told == {
        "GET,/things/{thing},200": 2,
        "GET,/things/{thing},422": 1,
        "GET,/things/{thing},500": 1,
        "GET,none,404": 2,
        "other,/things/{thing},405": 1,
    }
    assert metrics_told("mallbots.live.clients") == {"websocket": 0, "order": 0}


async def test_events_that_nobody_reads_are_told_while_relays_and_consumers_are_dead(
    mall: Services, fresh_database: Database
) -> None:
    await Orders(fresh_database).place(place())
    told = Told()
    await Lookout(mall).look(told)
    assert figures(told, "orders") == {"pending": 1, "approved": 0, "ready": 0}
    assert figures(told, "relay.backlog") == {"orders": 1, "stores": 0, "payments": 0, "depot": 0}
    lag = figures(told, "consumer.lag")
    assert lag["trail/orders"] > 0
    assert lag["trail/depot"] == 0
    await Lookout(mall).look(told)
    assert figures(told, "consumer.lag")["trail/orders"] > lag["trail/orders"]
    assert figures(told, "dead_letters")["trail"] == 0
    assert figures(told, "shopping.lists.untaken") == {"": 0}


async def test_who_is_away_is_told_and_what_only_he_knows_is_not(mall: Services) -> None:
    told = Told()
    await Lookout(mall).look(told)
    assert set(figures(told, "database.up").values()) == {1}
    assert figures(told, "nats.up") == figures(told, "temporal.up") == {"": 0}
    assert figures(told, "sagas.stuck") == figures(told, "queue.backlog") == {}


async def test_a_temporal_that_went_away_is_told(fresh_database: Database) -> None:
    server = await WorkflowEnvironment.start_local(dev_server_existing_path=str(find_binary("temporal")))
    async with services(fresh_database, server.client.service_client.config.target_host) as mall:
        told = Told()
        await Lookout(mall).look(told)
        assert figures(told, "temporal.up") == {"": 1}
        await server.shutdown()
        await Lookout(mall).look(told)
        assert figures(told, "temporal.up") == {"": 0}


async def test_a_database_that_was_dropped_is_told_and_figures_go_on_when_it_is_back(
    mall: Services, postgres: str, template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.figures.EVERY", 0.05)
    name = mall.database("orders").engine.url.database
    server = create_async_engine(postgres, isolation_level="AUTOCOMMIT")
    told = Told()
    telling = asyncio.create_task(tell_figures(mall, told))
    await eventually(lambda: figures(told, "database.up").get("orders") == 1)
    async with server.connect() as connection:
        await connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        await eventually(lambda: figures(told, "database.up")["orders"] == 0)
        await connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {template}"))
    await eventually(lambda: figures(told, "database.up")["orders"] == 1, timeout=20)
    assert not telling.done()
    telling.cancel()
    await asyncio.gather(telling, return_exceptions=True)
    await server.dispose()


async def test_a_figure_that_was_not_had_anew_is_not_told_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told()
    told.note("orders", [("orders", 7, {"state": "ready"})])
    assert figures(told, "orders") == {"ready": 7}
    monkeypatch.setattr("api.figures.TOLD_FOR", 0.0)
    assert figures(told, "orders") == {}


async def test_one_api_process_tells_the_figures_and_another_goes_on_when_it_ends(
    mall: Services, fresh_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.figures.EVERY", 0.02)
    async with services(fresh_database) as other_mall:
        first, second = Told(), Told()
        telling = asyncio.create_task(tell_figures(mall, first))
        await eventually(lambda: figures(first, "orders"))
        waiting = asyncio.create_task(tell_figures(other_mall, second))
        with pytest.raises(AssertionError):
            await eventually(lambda: figures(second, "orders"), timeout=0.3)
        telling.cancel()
        await eventually(lambda: figures(second, "orders"))
        waiting.cancel()
        await asyncio.gather(telling, waiting, return_exceptions=True)


def test_a_taken_port_of_temporals_metrics_is_told_by_its_setting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Misconfigured, match=f"127.0.0.1:{port} .*: set MALLBOTS_TEMPORAL_METRICS_PORT"):
            configure_metrics(Settings(temporal_metrics_port=port))


def test_a_command_beside_a_process_leaves_its_port_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mallbots.telemetry._is_process", Event())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert temporal_runtime(Settings(temporal_metrics_port=taken.getsockname()[1])) is None


def test_each_part_of_an_observed_mall_has_free_ports_of_its_own() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        first = taken.getsockname()[1]
        observed = Observed.of(Settings(metrics_port=first), besides={first + 1})
        chosen = [*observed.ports.values(), *observed.sdk_ports.values(), observed.server_port]
        assert len(chosen) == len(set(chosen)) == 10
        assert not {first, first + 1} & set(chosen)
    asked = {
        target
        for job in json.loads(observed.configuration())["scrape_configs"]
        for group in job["static_configs"]
        for target in group["targets"]
    }
    assert asked == {f"127.0.0.1:{port}" for port in chosen}
    assert "MALLBOTS_TEMPORAL_METRICS_PORT" not in observed.environment("relay")


def test_without_prometheus_it_is_said_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    settings = Settings()
    observed = Observed.of(settings, besides=())
    assert observed.prometheus(settings) is None
    told = dict(observed.told(settings, has_prometheus=False))
    assert "install it" in told["Prometheus"]
    assert told["Metrics of relay"] == f"http://127.0.0.1:{observed.ports['relay']}/metrics"
    assert "MALLBOTS_OTLP_ENDPOINT" in told["Traces"]

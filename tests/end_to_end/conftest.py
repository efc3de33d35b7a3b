"""One mall for all tests of this folder, as `mallbots up` runs it, on real servers."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from uuid import uuid4

import httpx
import pytest
from playwright.async_api import Browser, async_playwright, expect
from temporalio.client import Client

from domains.stores.catalog import import_catalog
from kernel.database import Database
from mallbots.kept_keys import read_keys
from mallbots.settings import DatabaseName, Settings
from mallbots.temporal import connect
from tests.chromium import ARGUMENTS, HOW_TO_GET_ONE, find
from tests.collector import Collector, a_collector
from tests.end_to_end.browser import PATIENCE_MS, SHELF, Windows
from tests.mall import Mall, a_mall, free_ports

Databases = Callable[[DatabaseName], Database]


@pytest.fixture(scope="package")
def collector() -> Iterator[Collector]:
    """Where the mall sends traces, of requests whose callers ask for it."""
    with a_collector() as collector:
        yield collector


@pytest.fixture(scope="package")
def mall(collector: Collector) -> Iterator[Mall]:
    """The open mall. It gives up lost payment calls, slow answers and silent robots soon, so that tests need not
    wait long."""
    quick = {
        "MALLBOTS_OTLP_ENDPOINT": collector.endpoint,
        "MALLBOTS_TRACE_RATIO": "0",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
        "MALLBOTS_SANDBOX_TIMEOUT": "0.3",
        "MALLBOTS_ANSWER_TIMEOUT": "2",
        "MALLBOTS_ROBOT_SILENCE": "3",
    }
    with pytest.MonkeyPatch.context() as environment, a_mall(**quick) as mall:
        for name in os.environ:
            if name.startswith("MALLBOTS_"):
                environment.delenv(name)
        first, page = list(free_ports().values())[:2]
        up = mall.open("--observe", MALLBOTS_METRICS_PORT=first, MALLBOTS_PROMETHEUS_PORT=page)
        yield mall
        up.terminate()
        assert up.wait(timeout=15) == 0, mall.output.read_text()


@pytest.fixture(scope="package")
def settings(mall: Mall) -> Settings:
    return mall.settings


@pytest.fixture(scope="package")
async def databases(settings: Settings) -> AsyncIterator[Databases]:
    """The database of each domain by name, to look at what no API tells."""
    opened: dict[DatabaseName, Database] = {}

    def database(name: DatabaseName) -> Database:
        if name not in opened:
            opened[name] = Database(name, settings.database_url(name))
        return opened[name]

    yield database
    for one in opened.values():
        await one.close()


@pytest.fixture(scope="package")
async def temporal(settings: Settings) -> AsyncIterator[Client]:
    yield await connect(settings)
    # Its threads may call back for a moment longer (temporalio/sdk-python#300).
    await asyncio.sleep(0.05)


@pytest.fixture(scope="package")
async def kiosk(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """The API as kiosk-1 speaks to it."""
    async with at_kiosk(settings, "kiosk-1") as client:
        yield client


@pytest.fixture(scope="package")
async def other_kiosk(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """The API as kiosk-2 speaks to it."""
    async with at_kiosk(settings, "kiosk-2") as client:
        yield client


@pytest.fixture(scope="package")
async def browser() -> AsyncIterator[Browser]:
    """A real browser, for all tests that need one."""
    chromium = find()
    if chromium is None:
        pytest.fail(HOW_TO_GET_ONE)
    expect.set_options(timeout=PATIENCE_MS)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=chromium.executable, args=ARGUMENTS, env={**os.environ, **chromium.environment}
        )
        yield browser
        await browser.close()


@pytest.fixture(scope="package")
async def shelf(databases: Databases) -> None:
    """Products that only the tests in a browser order."""
    plenty, few = SHELF[:3], SHELF[3:]
    await import_catalog(databases("stores"), plenty, currency="USD", stock=500)
    await import_catalog(databases("stores"), few, currency="USD", stock=2)


@pytest.fixture
def customer() -> str:
    """Somebody who orders for the first time."""
    return f"walker-{uuid4().hex[:10]}"


@pytest.fixture
async def windows(
    browser: Browser, settings: Settings, databases: Databases, shelf: None
) -> AsyncIterator[Windows]:
    """Windows of the browser; they are shut after the test, and nothing may have gone wrong in them."""
    windows = Windows(browser, settings, databases("staff"))
    yield windows
    await windows.close()
    assert windows.findings == []


def at_kiosk(settings: Settings, name: str) -> httpx.AsyncClient:
    """The API as this kiosk speaks to it."""
    return httpx.AsyncClient(
        base_url=settings.api_url,
        headers={"Authorization": f"Bearer {read_keys(settings, 'kiosks')[name]}"},
        timeout=30,
        trust_env=False,
    )

"""Stripe as tests have it: localstripe, a process of its own, and a server that answers what was recorded."""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from domains.payments.service import Payments
from domains.payments.stripe import Stripe
from kernel.database import Database
from tests.payments.recorded import RecordedStripe
from tests.waiting import eventually

API_KEY = "sk_test_mallbots"


def free_port() -> int:
    with socket.socket() as unbound:
        unbound.bind(("127.0.0.1", 0))
        port: int = unbound.getsockname()[1]
        return port


@pytest.fixture(scope="session")
async def localstripe() -> AsyncIterator[str]:
    """The URL of a localstripe."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.payments.localstripe_server", str(port)
    )
    url = f"http://127.0.0.1:{port}"
    try:
        async with httpx.AsyncClient(base_url=url, auth=(API_KEY, "")) as client:

            async def answers() -> bool:
                assert process.returncode is None
                try:
                    return (await client.get("/v1/events")).is_success
                except httpx.TransportError:
                    return False

            await eventually(answers)
        yield url
    finally:
        process.kill()
        await process.wait()


@pytest.fixture(scope="session")
async def stripe(database: Database, localstripe: str) -> AsyncIterator[Stripe]:
    """Stripe by localstripe."""
    async with connected(database, localstripe) as connected_stripe:
        yield connected_stripe


@pytest.fixture(scope="session")
def by_stripe(database: Database, stripe: Stripe) -> Payments:
    """Payments that Stripe takes."""
    return Payments(database, stripe)


@pytest.fixture
async def recorded() -> AsyncIterator[RecordedStripe]:
    """A Stripe that answers what the test has recorded."""
    async with RecordedStripe() as server:
        yield server


@pytest.fixture
async def recorded_stripe(database: Database, recorded: RecordedStripe) -> AsyncIterator[Stripe]:
    """Stripe by what the test has recorded."""
    async with connected(database, recorded.url, timeout=0.3) as connected_stripe:
        yield connected_stripe


@asynccontextmanager
async def connected(database: Database, url: str, timeout: float = 5.0) -> AsyncIterator[Stripe]:
    opened = Stripe(database, API_KEY, timeout=timeout, api_url=url)
    yield opened
    await opened.close()

"""The mall through the proxy of docker-compose.yml: Caddy with its Caddyfile in front of the open mall."""

import asyncio
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect

from deploy.compose_file import read_document, services
from mallbots.embedded import find_binary, free_port
from mallbots.healthy import trouble
from mallbots.kept_keys import install_keys, read_keys
from mallbots.opening import prepare_mall
from mallbots.settings import Settings
from tests.directories import server_directory
from tests.waiting import wait_until

PROXY = services(read_document())["proxy"]


@pytest.fixture(scope="module")
def proxy(settings: Settings) -> Iterator[tuple[str, str]]:
    """The proxy's HTTP and gRPC, host:port each."""
    http, grpc, own = (f"127.0.0.1:{free_port()}" for _ in range(3))
    (outside,) = PROXY.files.values()
    api = settings.api_url.removeprefix("http://")
    text = re.sub(r"api-[12]:8000", api, outside.read_text())
    text = text.replace("grpc:50051", settings.grpc_address).replace("127.0.0.1:8082", own)
    with server_directory() as directory:
        file = Path(directory) / "Caddyfile"
        file.write_text(text)
        command = (find_binary("caddy"), "run", "--config", file, "--adapter", "caddyfile")
        variables = {"PROXY_SITE": f"http://{http}", "PROXY_GRPC_SITE": f"http://{grpc}", "HOME": directory}
        with subprocess.Popen(command, env=variables, stderr=subprocess.DEVNULL) as caddy:
            wait_until(lambda: trouble(f"http://{own}/") is None)
            yield http, grpc
            caddy.terminate()


async def test_an_order_is_followed_through_the_proxy_as_it_goes_on(
    proxy: tuple[str, str], settings: Settings, kiosk: httpx.AsyncClient
) -> None:
    body = {"items": [{"sku": "kettle-dawn-50", "quantity": 1}], "payment": {"method": "at_pickup"}}
    async with httpx.AsyncClient(base_url=f"http://{proxy[0]}", headers=kiosk.headers, trust_env=False) as door:
        placed = await door.post("/v1/orders", json=body, headers={"Idempotency-Key": "through-the-proxy"})
        assert placed.status_code == httpx.codes.CREATED, placed.text
        told: list[str] = []
        async with asyncio.timeout(20), door.stream("GET", placed.json()["links"]["events"]) as events:
            async for line in events.aiter_lines():
                told += re.findall("^event: (.*)", line)
                if line == "event: OrderApproved":
                    # The stream is open: what was told came as it happened.
                    cancelled = await door.post(placed.json()["links"]["cancel"])
                    assert cancelled.status_code == httpx.codes.OK, cancelled.text
        assert told == ["OrderPlaced", "OrderApproved", "OrderCancelled"]


async def test_screens_of_staff_stay_connected_through_the_proxy(
    proxy: tuple[str, str], settings: Settings
) -> None:
    keys = await install_keys(settings, "staff", ["proxied"], ["desk"])
    headers = {"Authorization": f"Bearer {keys['proxied']}"}
    async with connect(f"ws://{proxy[0]}/v1/staff/events", additional_headers=headers, proxy=None) as screen:
        assert await screen.recv()


def test_robots_reach_grpc_through_the_proxy(proxy: tuple[str, str]) -> None:
    assert trouble(f"grpc://{proxy[1]}") is None


def test_metrics_are_not_for_the_world(proxy: tuple[str, str]) -> None:
    assert httpx.get(f"http://{proxy[0]}/metrics", trust_env=False).status_code == httpx.codes.NOT_FOUND


async def test_preparing_a_mall_that_is_open_changes_nothing(settings: Settings) -> None:
    before = read_keys(settings, "kiosks")
    assert (await prepare_mall(settings, sample_catalog=True))[-1] == "somebody has an account already"
    assert read_keys(settings, "kiosks") == before

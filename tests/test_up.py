"""`mallbots up` for real: it opens, survives what is killed, says what is wrong, and leaves no orphan."""

import signal
import socket
import sys
import time
from collections.abc import Iterator
from functools import partial

import httpx
import pytest

from mallbots.kept_keys import read_keys
from mallbots.settings import Settings
from mallbots.up import ports
from tests.mall import PARTS, PORT_SETTINGS, Mall, a_mall, alive
from tests.waiting import wait_until


def at_kiosk(mall: Mall) -> httpx.Client:
    """The API as kiosk-1 speaks to it."""
    headers = {"Authorization": f"Bearer {read_keys(mall.settings, 'kiosks')['kiosk-1']}"}
    return httpx.Client(base_url=mall.settings.api_url, headers=headers, timeout=30, trust_env=False)


@pytest.fixture
def mall() -> Iterator[Mall]:
    with a_mall() as mall:
        yield mall


@pytest.fixture(scope="module")
def open_mall() -> Iterator[Mall]:
    """A mall that is open, for the tests that leave it open; the last of them closes it."""
    with a_mall() as mall:
        mall.open()
        yield mall


def test_a_second_mall_in_the_same_data_directory_is_refused_with_one_line(open_mall: Mall) -> None:
    second = open_mall.run("up")
    assert second.returncode == 1
    assert second.stdout == ""
    (line,) = second.stderr.splitlines()
    assert line.startswith(f"another mall is running in {open_mall.data_dir}")


def test_what_holds_secrets_is_readable_by_the_owner_only(open_mall: Mall) -> None:
    for name in (
        "credentials.json",
        "mall.env",
        "nats/nats.conf",
        "logs/postgres.log",
        "temporal/temporal.db",
    ):
        assert (open_mall.data_dir / name).stat().st_mode & 0o077 == 0, name


def test_every_part_that_is_killed_is_started_again_and_that_is_said(open_mall: Mall) -> None:
    are_up_again = {part: open_mall.kill(part) for part in PARTS}
    for part, is_up_again in are_up_again.items():
        wait_until(partial(open_mall.said, f"{part}: was ended by SIGKILL; starting it again"))
        wait_until(is_up_again, timeout=40)


def test_a_mall_whose_supervisor_was_killed_leaves_no_orphan_and_opens_again_with_its_orders(
    open_mall: Mall,
) -> None:
    with at_kiosk(open_mall) as kiosk:
        body = {"items": [{"sku": "kettle-dawn-50", "quantity": 1}], "payment": {"method": "at_pickup"}}
        placed = kiosk.post("/v1/orders", json=body, headers={"Idempotency-Key": "before"})
    assert placed.status_code == httpx.codes.CREATED, placed.text
    left = open_mall.processes()
    assert open_mall.up is not None
    open_mall.up.kill()
    open_mall.up.wait()
    if sys.platform == "linux":  # whose kernel tells the parts; elsewhere the next start ends them
        wait_until(lambda: not alive(left), timeout=30)
    open_mall.open()
    assert alive(left) == []
    with at_kiosk(open_mall) as kiosk:
        assert kiosk.get(placed.headers["Location"]).json()["pickup_code"] == placed.json()["pickup_code"]
        assert kiosk.post(placed.json()["links"]["cancel"]).json()["status"] == "cancelled"


def test_sigterm_stops_all_within_ten_seconds_and_leaves_no_orphan(open_mall: Mall) -> None:
    up = open_mall.up
    assert up is not None
    processes = open_mall.processes()
    assert len(processes) > len(PARTS)
    before = time.monotonic()
    up.terminate()
    wait_until(lambda: open_mall.said("closing the mall"))
    up.send_signal(signal.SIGINT)  # impatient people press Ctrl-C again
    assert up.wait(timeout=15) == 0
    assert time.monotonic() - before < 10
    assert alive(processes) == []
    assert not open_mall.said("does not stop")
    stops = [line for line in open_mall.output.read_text().splitlines() if line.endswith(": stopped")]
    assert [stop.removesuffix(": stopped") for stop in stops[:6]] == [
        "api",
        "grpc",
        "analytics",
        "consumers",
        "relay",
        "worker",
    ]
    assert not (open_mall.data_dir / "mall.env").exists()


def test_a_taken_port_gives_one_line_naming_it_and_its_setting(mall: Mall) -> None:
    port = mall.environment["MALLBOTS_GRPC_PORT"]
    with socket.create_server(("127.0.0.1", int(port))):
        refused = mall.run("up")
    assert refused.returncode == 1
    assert refused.stderr.splitlines() == [f"port {port} is taken: stop what uses it or set MALLBOTS_GRPC_PORT"]


@pytest.mark.parametrize("setting", PORT_SETTINGS)
def test_every_port_is_tried_before_anything_starts(
    mall: Mall, setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in PORT_SETTINGS:
        monkeypatch.setenv(variable, mall.environment[variable])
    number = mall.environment[setting]
    with socket.create_server(("127.0.0.1", int(number))):
        troubles = list(filter(None, (port.trouble() for port in ports(Settings()))))
    assert troubles == [f"port {number} is taken: stop what uses it or set {setting}"]


def test_a_port_that_is_set_twice_gives_one_line(mall: Mall) -> None:
    mall.environment["MALLBOTS_NATS_PORT"] = mall.environment["MALLBOTS_POSTGRES_PORT"]
    refused = mall.run("up")
    assert refused.returncode == 1
    assert refused.stderr.startswith("MALLBOTS_POSTGRES_PORT and MALLBOTS_NATS_PORT are both")
    assert len(refused.stderr.splitlines()) == 1


def test_each_wrong_setting_gives_one_line_naming_it(mall: Mall) -> None:
    mall.environment |= {"MALLBOTS_API_PORT": "many", "MALLBOTS_CURRENCY": "dollars"}
    refused = mall.run("up")
    assert refused.returncode == 1
    assert sorted(line.split(":")[0] for line in refused.stderr.splitlines()) == [
        "MALLBOTS_API_PORT",
        "MALLBOTS_CURRENCY",
    ]


def test_that_no_mall_is_running_is_no_problem_for_the_doctor(mall: Mall) -> None:
    doctor = mall.run("doctor")
    assert doctor.returncode == 0, doctor.stdout
    assert "not running" in doctor.stdout


def test_a_taken_port_is_a_problem_for_the_doctor(mall: Mall) -> None:
    with socket.create_server(("127.0.0.1", int(mall.environment["MALLBOTS_API_PORT"]))):
        doctor = mall.run("doctor")
    assert doctor.returncode == 1
    assert "set MALLBOTS_API_PORT" in doctor.stdout

"""`mallbots up` for real: it opens, survives what is killed, says what is wrong, and leaves no orphan."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.waiting import wait_until

PARTS = ("nats", "temporal", "postgres", "worker", "api")
PORT_SETTINGS = (
    "MALLBOTS_POSTGRES_PORT",
    "MALLBOTS_NATS_PORT",
    "MALLBOTS_TEMPORAL_PORT",
    "MALLBOTS_TEMPORAL_UI_PORT",
    "MALLBOTS_API_PORT",
)
OPENS_WITHIN = 60.0


def free_ports() -> dict[str, str]:
    """A free port for each setting, below those that the system gives to outgoing connections."""
    chosen: dict[str, str] = {}
    while len(chosen) < len(PORT_SETTINGS):
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe:
            if str(port) not in chosen.values() and probe.connect_ex(("127.0.0.1", port)) != 0:
                chosen[PORT_SETTINGS[len(chosen)]] = str(port)
    return chosen


class Mall:
    """A data directory with ports of its own, and the `mallbots` commands that are run on it."""

    def __init__(self, directory: Path) -> None:
        self.data_dir = directory / "data"
        self.output = directory / "output"
        self.output.touch()
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("MALLBOTS_")}
        self.environment = inherited | free_ports() | {"MALLBOTS_DATA_DIR": str(self.data_dir)}
        self.up: subprocess.Popen[bytes] | None = None

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Runs a command of `mallbots` to its end."""
        command = (sys.executable, "-m", "mallbots", *arguments)
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=60, check=False
        )

    def open(self) -> subprocess.Popen[bytes]:
        """Starts `mallbots up`, and returns when the mall is open."""
        opened_before = self.said("mall is open")
        with self.output.open("ab") as output:
            self.up = up = subprocess.Popen(
                (sys.executable, "-m", "mallbots", "up"),
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        wait_until(lambda: self.said("mall is open") > opened_before or up.poll() is not None, OPENS_WITHIN)
        assert up.poll() is None, self.output.read_text()
        return up

    def said(self, line: str) -> int:
        """How many lines of the output hold `line`."""
        return sum(line in said for said in self.output.read_text().splitlines())

    def pid(self, part: str) -> int:
        """The process of a part as it is recorded now; 0 while there is none."""
        try:
            record = json.loads((self.data_dir / "run" / f"{part}.json").read_text())
        except FileNotFoundError:
            return 0
        return int(record["pid"])

    def processes(self) -> list[psutil.Process]:
        """The supervisor with all its children, and theirs."""
        assert self.up is not None
        supervisor = psutil.Process(self.up.pid)
        return [supervisor, *supervisor.children(recursive=True)]

    def end(self) -> None:
        """Stops a mall that a test left open."""
        if self.up is not None and self.up.poll() is None:
            self.up.terminate()
            self.up.wait(timeout=15)


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that still run."""
    return [one for one in processes if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


@contextmanager
def a_mall(directory: Path) -> Iterator[Mall]:
    mall = Mall(directory)
    try:
        yield mall
    finally:
        mall.end()


@pytest.fixture
def mall(tmp_path: Path) -> Iterator[Mall]:
    with a_mall(tmp_path) as mall:
        yield mall


@pytest.fixture(scope="module")
def open_mall(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mall]:
    """A mall that is open, for the tests that leave it open."""
    with a_mall(tmp_path_factory.mktemp("mall")) as mall:
        mall.open()
        yield mall


def test_a_second_mall_in_the_same_data_directory_is_refused_with_one_line(open_mall: Mall) -> None:
    second = open_mall.run("up")
    assert second.returncode == 1
    assert second.stdout == ""
    (line,) = second.stderr.splitlines()
    assert line.startswith(f"another mall is running in {open_mall.data_dir}")


def test_the_doctor_finds_an_open_mall_in_order(open_mall: Mall) -> None:
    doctor = open_mall.run("doctor")
    assert doctor.returncode == 0, doctor.stdout
    assert "used by our postgres" in doctor.stdout
    assert "not running" not in doctor.stdout


def test_settings_say_where_an_open_mall_is_but_no_secret(open_mall: Mall) -> None:
    shown = open_mall.run("settings")
    secrets = json.loads((open_mall.data_dir / "credentials.json").read_text())
    assert f"postgresql+asyncpg://***@127.0.0.1:{open_mall.environment['MALLBOTS_POSTGRES_PORT']}" in shown.stdout
    assert not [secret for secret in secrets.values() if secret in shown.stdout]


def test_what_holds_secrets_is_readable_by_the_owner_only(open_mall: Mall) -> None:
    for name in (
        "credentials.json",
        "mall.env",
        "nats/nats.conf",
        "logs/postgres.log",
        "temporal/temporal.db",
    ):
        assert (open_mall.data_dir / name).stat().st_mode & 0o077 == 0, name


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_is_killed_is_started_again_and_that_is_said(open_mall: Mall, part: str) -> None:
    killed, was_up = open_mall.pid(part), open_mall.said(f"{part}: up")
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: open_mall.said(f"{part}: was ended by SIGKILL; starting it again"))
    wait_until(lambda: open_mall.said(f"{part}: up") > was_up, timeout=30)
    assert open_mall.pid(part) not in (0, killed)


def test_sigterm_stops_all_within_ten_seconds_and_leaves_no_orphan(mall: Mall) -> None:
    up = mall.open()
    processes = mall.processes()
    assert len(processes) > len(PARTS)
    before = time.monotonic()
    up.terminate()
    assert up.wait(timeout=15) == 0
    assert time.monotonic() - before < 10
    assert alive(processes) == []
    stops = [line for line in mall.output.read_text().splitlines() if line.endswith(": stopped")]
    assert stops[:2] == ["api: stopped", "worker: stopped"]
    assert not (mall.data_dir / "mall.env").exists()


def test_a_mall_whose_supervisor_was_killed_leaves_no_orphan_and_opens_again(mall: Mall) -> None:
    first = mall.open()
    left = mall.processes()
    first.kill()
    first.wait()
    if sys.platform == "linux":  # whose kernel tells the parts; elsewhere the next start ends them
        wait_until(lambda: not alive(left))
    second = mall.open()
    assert alive(left) == []
    second.send_signal(signal.SIGINT)
    wait_until(lambda: mall.said("closing the mall"))
    second.send_signal(signal.SIGINT)
    assert second.wait(timeout=15) == 0
    assert not mall.said("does not stop")


@pytest.mark.parametrize("setting", PORT_SETTINGS)
def test_a_taken_port_gives_one_line_naming_it_and_its_setting(mall: Mall, setting: str) -> None:
    port = mall.environment[setting]
    with socket.create_server(("127.0.0.1", int(port))):
        refused = mall.run("up")
    assert refused.returncode == 1
    assert refused.stderr.splitlines() == [f"port {port} is taken: stop what uses it or set {setting}"]


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

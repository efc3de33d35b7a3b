"""A mall of a test's own: a real `mallbots up` in a data directory and on ports of its own."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import psutil
import pytest

from mallbots.cli import main
from mallbots.settings import Settings
from tests.directories import server_directory
from tests.waiting import wait_until

PARTS = ("nats", "temporal", "postgres", "worker", "api", "relay", "consumers", "analytics", "grpc")
PORT_SETTINGS = (
    "MALLBOTS_POSTGRES_PORT",
    "MALLBOTS_NATS_PORT",
    "MALLBOTS_TEMPORAL_PORT",
    "MALLBOTS_TEMPORAL_UI_PORT",
    "MALLBOTS_API_PORT",
    "MALLBOTS_GRPC_PORT",
)
OPENS_WITHIN = 60.0
AS_INSTALLED = Path(__file__).parent / "as_installed"


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
    """A data directory with ports of its own, and the `mallbots` commands that are run on it.

    `variables` are settings of the mall besides, as `MALLBOTS_…`.
    """

    def __init__(self, directory: Path, **variables: str) -> None:
        self.data_dir = directory / "data"
        self.output = directory / "output"
        self.output.touch()
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("MALLBOTS_")}
        ours = {"MALLBOTS_DATA_DIR": str(self.data_dir), "PYTHONPATH": os.pathsep.join(_python_path())}
        self.environment = inherited | free_ports() | variables | ours
        self.up: subprocess.Popen[bytes] | None = None

    @property
    def settings(self) -> Settings:
        """The settings that find this mall while it is open."""
        return Settings.load(self.data_dir)

    def run(self, *arguments: str | Path, **variables: str) -> "subprocess.CompletedProcess[str]":
        """Runs a command of `mallbots` to its end, with these settings besides."""
        command = (sys.executable, "-m", "mallbots", *arguments)
        return subprocess.run(
            command, env=self.environment | variables, capture_output=True, text=True, timeout=60, check=False
        )

    def ask(self, *arguments: str | Path, **variables: str) -> "subprocess.CompletedProcess[str]":
        """As `run`, but within this process: a new one is busy for two seconds until it has imported all it needs.

        The command has a thread, and so an event loop, of its own; whoever asks waits for it.
        """
        command = ("mallbots", *map(str, arguments))
        output, errors = StringIO(), StringIO()

        def exit_code() -> int:
            try:
                main()
            except SystemExit as end:
                return end.code if isinstance(end.code, int) else 0
            return 0

        with pytest.MonkeyPatch.context() as patch, redirect_stdout(output), redirect_stderr(errors):
            patch.setattr(sys, "argv", list(command))
            for name, value in (self.environment | variables).items():
                if name.startswith("MALLBOTS_"):
                    patch.setenv(name, value)
            with ThreadPoolExecutor(1) as thread:
                code = thread.submit(exit_code).result(timeout=60)
        return subprocess.CompletedProcess(command, code, output.getvalue(), errors.getvalue())

    def open(self, *options: str, **variables: str) -> subprocess.Popen[bytes]:
        """Starts `mallbots up` with these options and settings besides, and returns when the mall is open."""
        opened_before = self.said("mall is open")
        with self.output.open("ab") as output:
            self.up = up = subprocess.Popen(
                (sys.executable, "-m", "mallbots", "up", *options),
                env=self.environment | variables,
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

    def kill(self, part: str) -> Callable[[], bool]:
        """Ends a part by SIGKILL. Gives a condition: that it has been started again since, and is up."""
        killed, was_up = self.pid(part), self.said(f"{part}: up")
        os.kill(killed, signal.SIGKILL)
        return lambda: self.said(f"{part}: up") > was_up and self.pid(part) not in (0, killed)

    def end(self) -> None:
        """Stops a mall that a test left open."""
        if self.up is not None and self.up.poll() is None:
            self.up.terminate()
            self.up.wait(timeout=15)


def _python_path() -> list[str]:
    return [str(AS_INSTALLED), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that still run."""
    return [one for one in processes if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


@contextmanager
def a_mall(**variables: str) -> Iterator[Mall]:
    """A mall to be opened; it is ended with the block, if the test has not done so."""
    with server_directory() as directory:
        mall = Mall(Path(directory), **variables)
        try:
            yield mall
        finally:
            mall.end()

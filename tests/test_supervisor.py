"""The supervisor with trivial children: it starts, restarts and stops them, and leaves no orphan."""

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from kernel.errors import Conflict
from mallbots import supervisor as supervisor_module
from mallbots.embedded import Credentials, Postgres, free_port, make_data_dir, running_postgres
from mallbots.supervisor import (
    Backoff,
    Part,
    PartFailed,
    State,
    Supervisor,
    end_leftovers,
    is_owned,
    sole_owner,
)
from tests.waiting import eventually, wait_until

TELLS_ITS_END = """
import signal, sys
def end(*_):
    with open(sys.argv[1], "a") as file: file.write(sys.argv[2] + " ")
    sys.exit()
signal.signal(signal.SIGTERM, end)
open(sys.argv[3], "w").close()
signal.pause()
"""
DOES_NOT_LISTEN = """
import signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(sys.argv[3], "w").close()
while True: signal.pause()
"""


class Stage:
    """A supervisor in a directory of its own, what it said, and parts to run in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.said: list[str] = []
        self.supervisor = Supervisor(directory, self.said.append)
        self.ends = directory / "ends"

    def part(self, name: str, program: str = TELLS_ITS_END) -> Part:
        """A part that is ready once its program says so, by a file."""
        ready = self.directory / f"{name}.ready"

        async def is_ready() -> bool:
            return ready.exists()

        return Part(
            name,
            (sys.executable, "-c", program, str(self.ends), name, str(ready)),
            is_ready,
            before_start=lambda: ready.unlink(missing_ok=True),
        )


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    stage = Stage(tmp_path)
    yield stage
    await stage.supervisor.stop(within=2)


def test_the_wait_before_a_restart_doubles_up_to_a_limit() -> None:
    backoff = Backoff()
    assert [backoff.pause(lived=0) for _ in range(7)] == [0.5, 1, 2, 4, 8, 15, 15]


def test_the_wait_is_short_again_after_a_part_ran_steadily() -> None:
    backoff = Backoff()
    for _ in range(4):
        backoff.pause(lived=0)
    assert backoff.pause(lived=31) == 0.5


async def test_parts_stop_in_the_reverse_of_the_order_they_started_in(stage: Stage) -> None:
    await stage.supervisor.start(stage.part("first"))
    await stage.supervisor.start(stage.part("second"), stage.part("third"))
    await stage.supervisor.stop()
    assert stage.ends.read_text().split() == ["third", "second", "first"]
    assert {child.state for child in stage.supervisor.children} == {State.STOPPED}


async def test_a_part_that_ignores_the_stop_signal_is_killed_in_time(stage: Stage) -> None:
    await stage.supervisor.start(stage.part("polite"), stage.part("deaf", DOES_NOT_LISTEN))
    before = time.monotonic()
    await stage.supervisor.stop(within=2)
    assert time.monotonic() - before < 2
    assert "deaf: does not stop, killed" in stage.said
    assert stage.ends.read_text().split() == ["polite"]


async def test_a_part_that_dies_is_started_again_and_that_is_said(stage: Stage) -> None:
    await stage.supervisor.start(stage.part("shop"))
    (child,) = stage.supervisor.children
    first = child.pid
    assert first is not None
    psutil.Process(first).kill()
    await eventually(lambda: child.state is State.UP and child.pid not in (None, first))
    assert child.restarts == 1
    assert "shop: was ended by SIGKILL; starting it again in 0.5 s" in stage.said


async def test_a_part_that_never_starts_is_given_up_naming_it_and_the_end_of_its_log(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "FIRST_PAUSE", 0.01)
    broken = stage.part("shop", "import sys; sys.exit('no stock')")
    with pytest.raises(PartFailed) as failure:
        await stage.supervisor.start(broken)
    message = failure.value.message
    assert "shop does not start (5 times it ended with exit code 1)" in message
    assert str(stage.directory / "logs" / "shop.log") in message
    assert message.endswith("no stock")


async def test_a_part_whose_program_is_missing_is_given_up_too(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "FIRST_PAUSE", 0.01)
    part = Part("shop", (str(stage.directory / "nowhere"),), stage.part("shop").ready)
    with pytest.raises(PartFailed, match="shop does not start"):
        await stage.supervisor.start(part)


def test_what_a_killed_supervisor_left_running_is_ended(tmp_path: Path) -> None:
    with _leftover(tmp_path, DOES_NOT_LISTEN) as orphan:
        _record(tmp_path, orphan.pid, psutil.Process(orphan.pid).create_time())
        assert end_leftovers(tmp_path, patience=0.5) == ["shop"]
        assert orphan.wait(timeout=5) == -signal.SIGKILL
        assert end_leftovers(tmp_path) == []


def test_a_process_that_only_has_the_pid_of_a_leftover_is_let_alone(tmp_path: Path) -> None:
    with _leftover(tmp_path, TELLS_ITS_END) as stranger:
        _record(tmp_path, stranger.pid, psutil.Process(stranger.pid).create_time() - 60)
        assert end_leftovers(tmp_path) == []
        assert stranger.poll() is None
        stranger.kill()


def test_a_data_directory_has_one_owner_at_a_time(tmp_path: Path) -> None:
    assert not is_owned(tmp_path)
    with sole_owner(tmp_path):
        assert is_owned(tmp_path)
        with pytest.raises(Conflict, match="another mall is running"), sole_owner(tmp_path):
            pass
    assert not is_owned(tmp_path)


async def test_a_database_cluster_that_was_half_made_is_made_anew(tmp_path: Path) -> None:
    make_data_dir(tmp_path / "data")
    (tmp_path / "data" / "logs").mkdir()
    data_dir, draft = tmp_path / "data", tmp_path / "data" / "postgres.new" / "data"
    postgres = Postgres(data_dir, free_port(), Credentials.of(data_dir).postgres_password)
    making = asyncio.create_task(postgres.prepare())
    await eventually(draft.exists)
    making.cancel()
    await asyncio.gather(making, return_exceptions=True)
    assert not (data_dir / "postgres").exists()
    async with running_postgres(data_dir, durable=False) as url:
        assert url.startswith("postgresql+asyncpg://mallbots:")
    assert not draft.parent.exists()


def _leftover(directory: Path, program: str) -> subprocess.Popen[bytes]:
    ready = directory / "ready"
    command = (sys.executable, "-c", program, str(directory / "ends"), "shop", str(ready))
    process = subprocess.Popen(command, start_new_session=True)
    wait_until(ready.exists)
    return process


def _record(directory: Path, pid: int, create_time: float) -> None:
    run = directory / "run"
    run.mkdir()
    record = {"pid": pid, "create_time": create_time, "stop_signal": int(signal.SIGTERM)}
    (run / "shop.json").write_text(json.dumps(record))

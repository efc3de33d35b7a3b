"""A small supervisor of child processes: starts parts, keeps them running, and stops them all.

It leaves no orphan. Each part is a process group of its own, so that a Ctrl-C in the terminal reaches only
the supervisor. On Linux the kernel sends a part its stop signal when the supervisor dies, however it dies.
Everywhere, `run/<part>.json` records what was started, and `end_leftovers` ends what a killed supervisor
left behind.
"""

import asyncio
import ctypes
import fcntl
import json
import os
import pwd
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, STDOUT, Process
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, Final

import psutil

from kernel.errors import Conflict, Unavailable
from mallbots.files import write_private

STOP_WITHIN: Final = 9.5
MOST_FIRST_STARTS: Final = 5
READY_WITHIN: Final = 60.0
FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 15.0
STEADY_AFTER: Final = 30.0

_CHECK_WITHIN = 3.0
_CHECK_EVERY = 0.1
_KEPT_FOR_LATER_STOPS = 0.8  # seconds that each part still to be stopped can count on
_CLOCK_SLACK = 2.0  # a create_time is reckoned from the wall clock, which may be set
_LOG_TAIL = 8
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


class PartFailed(Unavailable):
    """A part could not be started. The message names it and its log, and quotes the log's last lines."""


@dataclass(frozen=True)
class Part:
    """What a child process is, and how to tell that it is ready.

    `ready` answers whether the part can be used; whatever it raises means "not yet". `env` is the whole
    environment (None: the supervisor's). `user` is a system user to run as, for a supervisor that is root.
    `before_start` runs before every start.
    """

    name: str
    command: tuple[str, ...]
    ready: Callable[[], Awaitable[bool]]
    env: Mapping[str, str] | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    user: str | None = None
    before_start: Callable[[], None] = lambda: None


class State(StrEnum):
    """Where a part is between its start and its stop."""

    STARTING = "starting"
    UP = "up"
    DOWN = "down"
    STOPPING = "stopping"
    STOPPED = "stopped"


@dataclass
class Child:
    """A part as it runs now. `since` is the monotonic time of the last change of its state."""

    part: Part
    log: Path
    state: State = State.STARTING
    since: float = field(default_factory=time.monotonic)
    restarts: int = 0
    process: Process | None = None
    opened: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def pid(self) -> int | None:
        """The process id while the part runs."""
        return self.process.pid if self.process and self.process.returncode is None else None

    def enter(self, state: State) -> None:
        """Changes the state and notes when."""
        self.state, self.since = state, time.monotonic()


class Backoff:
    """How long to wait before the next start: doubling, and short again after the part ran steadily."""

    def __init__(self) -> None:
        self._next = FIRST_PAUSE

    def pause(self, lived: float) -> float:
        """Seconds to wait, given for how many the part has lived."""
        if lived >= STEADY_AFTER:
            self._next = FIRST_PAUSE
        pause, self._next = self._next, min(self._next * 2, LONGEST_PAUSE)
        return pause


class Supervisor:
    """Runs parts under `data_dir`: their logs in `logs/`, the records of their processes in `run/`.

    `say` is told each change as one line for people.
    """

    def __init__(self, data_dir: Path, say: Callable[[str], None]) -> None:
        self.children: list[Child] = []
        self.log_dir = data_dir / "logs"
        self._run_dir = data_dir / "run"
        self._say = say
        self._keepers: list[asyncio.Task[None]] = []
        for directory in (self.log_dir, self._run_dir):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    async def start(self, *parts: Part) -> None:
        """Starts parts side by side and returns once all are ready; from then on they are kept running.

        Raises `PartFailed` when one ends too often, or takes too long, before it was ever ready.
        """
        started = [Child(part, self.log_dir / f"{part.name}.log") for part in parts]
        self.children += started
        keepers = [asyncio.create_task(self._keep(child), name=child.part.name) for child in started]
        self._keepers += keepers
        await asyncio.gather(*map(self._opened, started, keepers))

    async def stop(self, within: float = STOP_WITHIN) -> None:
        """Stops every part, the last started first; kills what does not stop, so that all ends `within`."""
        deadline = time.monotonic() + within
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        for later, child in reversed(list(enumerate(self.children))):
            patience = deadline - time.monotonic() - later * _KEPT_FOR_LATER_STOPS
            await self._end(child, max(patience, 0.1))

    async def _opened(self, child: Child, keeper: asyncio.Task[None]) -> None:
        """Waits until a part is ready for the first time. Raises `PartFailed` when that fails."""
        opened = asyncio.create_task(child.opened.wait())
        try:
            await asyncio.wait({opened, keeper}, timeout=READY_WITHIN, return_when=asyncio.FIRST_COMPLETED)
        finally:
            opened.cancel()
        if keeper.done():
            keeper.result()
        if not child.opened.is_set():
            raise _failure(child, f"is not ready after {READY_WITHIN:g} s")

    async def _keep(self, child: Child) -> None:
        """Starts a part again whenever it ends. Returns never; raises `PartFailed` if it never was ready."""
        backoff = Backoff()
        while True:
            started = time.monotonic()
            how = await self._run(child)
            child.enter(State.DOWN)
            if not child.opened.is_set() and child.restarts + 1 >= MOST_FIRST_STARTS:
                raise _failure(child, f"does not start ({MOST_FIRST_STARTS} times it {how})")
            pause = backoff.pause(time.monotonic() - started)
            self._say(f"{child.part.name}: {how}; starting it again in {pause:g} s")
            await asyncio.sleep(pause)
            child.restarts += 1

    async def _run(self, child: Child) -> str:
        """Runs a part once, from start to end, and returns how it ended."""
        part = child.part
        child.enter(State.STARTING)
        try:
            part.before_start()
            child.process = process = await spawn(
                part.command, env=part.env, user=part.user, log=child.log, death_signal=part.stop_signal
            )
        except OSError as error:
            return f"could not be run: {error}"
        self._record(child, process)
        self._say(f"{part.name}: starting, pid {process.pid}")
        watch = asyncio.create_task(self._watch(child))
        try:
            code = await process.wait()
        finally:
            watch.cancel()
        _kill_group(process.pid)
        return f"was ended by {_signal_name(-code)}" if code < 0 else f"ended with exit code {code}"

    async def _watch(self, child: Child) -> None:
        """Waits until a part is ready, and says so."""
        while True:
            if await _is_ready(child.part):
                break
            await asyncio.sleep(_CHECK_EVERY)
        child.enter(State.UP)
        self._say(f"{child.part.name}: up")
        child.opened.set()

    async def _end(self, child: Child, patience: float) -> None:
        process = child.process
        if process is not None and process.returncode is None:
            child.enter(State.STOPPING)
            with suppress(ProcessLookupError):
                process.send_signal(child.part.stop_signal)
            try:
                await asyncio.wait_for(process.wait(), patience)
            except TimeoutError:
                self._say(f"{child.part.name}: does not stop, killed")
                _kill_group(process.pid)
                await process.wait()
            _kill_group(process.pid)
        self._record_path(child).unlink(missing_ok=True)
        child.enter(State.STOPPED)
        self._say(f"{child.part.name}: stopped")

    def _record(self, child: Child, process: Process) -> None:
        with suppress(psutil.NoSuchProcess):
            created = psutil.Process(process.pid).create_time()
            record = _Record(process.pid, created, child.part.stop_signal)
            write_private(self._record_path(child), json.dumps(asdict(record)))

    def _record_path(self, child: Child) -> Path:
        return self._run_dir / f"{child.part.name}.json"


@dataclass(frozen=True)
class _Record:
    """What identifies a process that was started: a pid alone may be someone else's by now."""

    pid: int
    create_time: float
    stop_signal: int

    def process(self) -> psutil.Process | None:
        """The very process that was recorded, if it still lives."""
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.create_time) < _CLOCK_SLACK
            return process if same and _is_alive(process) else None
        return None


def running_parts(data_dir: Path) -> dict[str, psutil.Process]:
    """The recorded processes of `data_dir` that live, by the name of their part."""
    found = {path.stem: record.process() for path, record in _records(data_dir)}
    return {name: process for name, process in found.items() if process is not None}


def end_leftovers(data_dir: Path, patience: float = STOP_WITHIN) -> list[str]:
    """Ends what a former supervisor of `data_dir` left running, and returns the names of those parts.

    A process is known by its pid and its time of creation, so nobody else's is touched. Call it only as
    the `sole_owner`.
    """
    leftovers: list[str] = []
    processes: list[psutil.Process] = []
    for path, record in _records(data_dir):
        process = record.process()
        if process is not None:
            leftovers.append(path.stem)
            with suppress(psutil.NoSuchProcess):
                processes += [process, *process.children(recursive=True)]
                process.send_signal(record.stop_signal)
    if not _all_gone(processes, patience):
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        _all_gone(processes, patience)
    for path, _ in _records(data_dir):
        path.unlink(missing_ok=True)
    return leftovers


@contextmanager
def sole_owner(data_dir: Path) -> Iterator[None]:
    """Holds the lock of `data_dir`. Raises `Conflict` when another process holds it.

    The lock goes with the process that holds it, so a killed one never leaves it behind.
    """
    with (data_dir / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(
                f"another mall is running in {data_dir}: stop it, or choose another directory with --data-dir"
            ) from None
        yield


def is_owned(data_dir: Path) -> bool:
    """Whether a supervisor is at work in `data_dir` now."""
    if not os.path.exists(data_dir / "lock"):  # nor when we may not look
        return False
    try:
        with sole_owner(data_dir):
            return False
    except Conflict:
        return True


async def spawn(
    command: tuple[str, ...],
    *,
    log: Path,
    death_signal: signal.Signals,
    env: Mapping[str, str] | None = None,
    user: str | None = None,
) -> Process:
    """Starts a process in a session of its own; its output is appended to `log`.

    On Linux it gets `death_signal` when this process dies. Raises `OSError` when it cannot be run.
    """
    options: dict[str, Any] = {}
    if _LIBC is not None:
        options["preexec_fn"] = partial(_die_with, _LIBC, os.getpid(), death_signal)
    if user is not None:
        # Its own folder may be closed to that user, and no server needs it.
        options |= {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": [], "cwd": "/"}
    with _appending(log) as output:
        return await asyncio.create_subprocess_exec(
            *command, stdin=DEVNULL, stdout=output, stderr=STDOUT, env=env, start_new_session=True, **options
        )


def log_tail(log: Path) -> str:
    """The last lines of a log, or nothing."""
    with suppress(OSError):
        return "\n".join(log.read_text(errors="replace").splitlines()[-_LOG_TAIL:])
    return ""


def _die_with(libc: ctypes.CDLL, parent: int, death_signal: signal.Signals) -> None:
    # Runs in the child after it changed its user, which would clear the request. It does next to nothing,
    # for the supervisor may have threads and only this one exists in the child.
    libc.prctl(_PR_SET_PDEATHSIG, int(death_signal))
    if os.getppid() != parent:
        os._exit(1)


@contextmanager
def _appending(log: Path) -> Iterator[int]:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


async def _is_ready(part: Part) -> bool:
    with suppress(Exception):
        return await asyncio.wait_for(part.ready(), _CHECK_WITHIN)
    return False


def _failure(child: Child, what: str) -> PartFailed:
    tail = log_tail(child.log)
    end = f", which ends:\n{tail}" if tail else ""
    return PartFailed(f"{child.part.name} {what}; its log is {child.log}{end}")


def _kill_group(pid: int) -> None:
    # While a group has members its id is not given to a new process, so this reaches only the part's own.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _signal_name(number: int) -> str:
    with suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"


def _records(data_dir: Path) -> list[tuple[Path, _Record]]:
    records = []
    for path in sorted((data_dir / "run").glob("*.json")):
        with suppress(OSError, ValueError, TypeError):
            records.append((path, _Record(**json.loads(path.read_text()))))
    return records


def _is_alive(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _all_gone(processes: list[psutil.Process], patience: float) -> bool:
    deadline = time.monotonic() + patience
    while any(_is_alive(process) for process in processes):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True

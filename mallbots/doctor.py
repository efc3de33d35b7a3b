"""`mallbots doctor`: what the mall needs on this machine, whether it is there, and how to mend it."""

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, Final

import httpx
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from rich.markup import escape
from rich.table import Table

from clients.robots.fleet import gateway_of
from events.stream import connected
from kernel.database import connect as connect_database
from kernel.errors import MallError
from kernel.wording import count
from mallbots import embedded
from mallbots.event_views import all_dead_letters, log_numbering, relay_progress
from mallbots.settings import DATABASES, DatabaseName, Settings
from mallbots.supervisor import is_owned, running_parts
from mallbots.temporal import connect
from mallbots.tls import api_verification
from mallbots.up import Port, ports

NEEDED_PYTHON: Final = (3, 11)
NEEDED_DISK: Final = 1 << 30
LATE_AFTER: Final = 10.0
"""Seconds that an event may wait for its relay before that is a problem."""

_ANSWER_WITHIN = 5.0
_START_IT = "start the mall with `mallbots up`, or look into its logs"


class Outcome(StrEnum):
    """What became of a check."""

    OK = "ok"
    PROBLEM = "problem"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at; for a problem, `mend` says what to do."""

    subject: str
    outcome: Outcome
    finding: str
    mend: str = ""


async def examine(data_dir: Path) -> list[Check]:
    """Checks this machine and the mall of `data_dir`, an absolute path; also one without a mall is in order. Where
    the settings name servers of others, as in a container, this machine needs nothing for its own.

    Raises `pydantic.ValidationError` when a setting is wrong, `Misconfigured` if `MALLBOTS_SECRETS_DIR` is.
    """
    running = is_owned(data_dir)
    # While no mall runs, only what the environment and the secrets name is expected to answer.
    settings = Settings.load(data_dir, embedded=running)
    checks = [_python()]
    if running or settings.orders_database_url is None:
        checks += [*map(_program, _PROGRAMS), _data_dir(settings.data_dir), _disk(settings.data_dir)]
        ours = running_parts(settings.data_dir) if running else {}
        checks += [_port(port, port.part in ours) for port in ports(settings)]
    checks += await asyncio.gather(
        *(
            _answer(f"database {name}", f"{name}_database_url", settings, partial(_database, name))
            for name in DATABASES
        ),
        _answer("NATS", "nats_url", settings, _nats),
        _answer("Temporal", "temporal_address", settings, _temporal),
        _answer("API", "api_url", settings, _api),
        _answer("gRPC", "grpc_address", settings, _grpc),
        _answer("events", "nats_url", settings, _events),
    )
    # The interpreter may abort if it exits while Temporal's client still calls back.
    await asyncio.sleep(0.05)
    return checks


def report(checks: list[Check]) -> Table:
    """The checks as a table."""
    colours = {Outcome.OK: "green", Outcome.PROBLEM: "red", Outcome.SKIPPED: "dim"}
    table = Table(title="What the mall needs", title_justify="left")
    table.add_column("Check")
    table.add_column("Outcome")
    table.add_column("Finding", overflow="fold")
    table.add_column("How to mend it", overflow="fold")
    for check in checks:
        outcome = f"[{colours[check.outcome]}]{check.outcome}[/]"
        table.add_row(check.subject, outcome, escape(check.finding), escape(check.mend))
    return table


_PROGRAMS: Final[dict[str, tuple[Callable[[str], Path], str]]] = {
    "postgres": (embedded.postgres_binary, "--version"),
    "initdb": (embedded.postgres_binary, "--version"),
    "nats-server": (embedded.find_binary, "--version"),
    "temporal": (embedded.find_binary, "--version"),
}


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info >= NEEDED_PYTHON:
        return Check("Python", Outcome.OK, version)
    return Check("Python", Outcome.PROBLEM, version, "use Python 3.11 or newer")


def _program(name: str) -> Check:
    find, version_option = _PROGRAMS[name]
    try:
        answer = subprocess.run(
            (find(name), version_option), capture_output=True, text=True, timeout=10, check=True
        )
    except MallError as error:
        return Check(name, Outcome.PROBLEM, "missing", error.message)
    except (OSError, subprocess.SubprocessError) as error:
        return Check(name, Outcome.PROBLEM, f"does not run: {error}", "install MallBots again on this machine")
    return Check(name, Outcome.OK, answer.stdout.strip().splitlines()[0])


def _data_dir(data_dir: Path) -> Check:
    home = _nearest(data_dir)
    if not os.access(home, os.W_OK | os.X_OK):
        return Check(
            "data directory", Outcome.PROBLEM, f"{home} cannot be written to", "choose another: --data-dir"
        )
    return Check("data directory", Outcome.OK, str(data_dir) + ("" if home == data_dir else " (not made yet)"))


def _disk(data_dir: Path) -> Check:
    free = shutil.disk_usage(_nearest(data_dir)).free
    finding = f"{free / (1 << 30):.1f} GiB free"
    if free >= NEEDED_DISK:
        return Check("disk", Outcome.OK, finding)
    return Check("disk", Outcome.PROBLEM, finding, "free 1 GiB, or choose another place: --data-dir")


def _nearest(path: Path) -> Path:
    """`path`, or the folder that it would be made in."""
    # Unlike Path.exists, this takes what we may not look into as not there.
    return next(folder for folder in (path, *path.parents) if os.path.exists(folder))


def _port(port: Port, ours: bool) -> Check:
    subject = f"port {port.number}"
    if ours:
        return Check(subject, Outcome.OK, f"used by our {port.part}")
    trouble = port.trouble()
    if trouble is None:
        return Check(subject, Outcome.OK, f"free for {port.part}")
    return Check(subject, Outcome.PROBLEM, f"not free for {port.part}", trouble)


async def _answer(
    subject: str, setting: str, settings: Settings, ask: Callable[[Settings], Awaitable[Check]]
) -> Check:
    """Asks a server, if the settings say where it is."""
    if setting not in settings.model_fields_set:
        return Check(subject, Outcome.SKIPPED, "not running")
    try:
        return await asyncio.wait_for(ask(settings), _ANSWER_WITHIN)
    except TimeoutError:
        return Check(subject, Outcome.PROBLEM, f"no answer within {_ANSWER_WITHIN:g} s", _START_IT)
    except Exception as error:  # whatever a client raises is the finding
        return Check(subject, Outcome.PROBLEM, f"no answer: {_brief(error)}", _START_IT)


async def _database(name: DatabaseName, settings: Settings) -> Check:
    connection = await connect_database(name, settings.database_url(name))
    try:
        version = await connection.fetchval("SHOW server_version")
        migrated = await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", f"{name}.alembic_version")
    finally:
        await connection.close()
    if migrated:
        return Check(f"database {name}", Outcome.OK, f"PostgreSQL {version}, schema {name}")
    finding = f"PostgreSQL {version}, without the schema {name}"
    return Check(f"database {name}", Outcome.PROBLEM, finding, "run `mallbots migrate`")


async def _nats(settings: Settings) -> Check:
    async with connected(settings.nats_address(), "doctor") as nats:
        await nats.jetstream.account_info()
    return Check("NATS", Outcome.OK, "answers, with JetStream")


async def _temporal(settings: Settings) -> Check:
    client = await connect(settings)
    await client.count_workflows()
    return Check("Temporal", Outcome.OK, f"answers, with the namespace {client.namespace}")


async def _api(settings: Settings) -> Check:
    async with httpx.AsyncClient(trust_env=False, verify=api_verification(settings)) as client:
        answer = await client.get(f"{settings.api_url}/healthz/ready")
    if answer.status_code == httpx.codes.OK:
        return Check("API", Outcome.OK, "ready")
    return Check("API", Outcome.PROBLEM, f"not ready ({answer.status_code})", "mend the database or Temporal")


async def _grpc(settings: Settings) -> Check:
    async with gateway_of(settings).channel() as channel:
        health: Any = HealthStub(channel)
        answer = await health.Check(HealthCheckRequest())
    if answer.status == HealthCheckResponse.SERVING:
        return Check("gRPC", Outcome.OK, "serving")
    return Check("gRPC", Outcome.PROBLEM, "not serving", _START_IT)


async def log_check(settings: Settings) -> Check:
    """Whether new events will stand behind those that are there, in every log. Raises `Unavailable`."""
    behind = {domain: one for domain, one in (await log_numbering(settings)).items() if one.is_behind}
    if not behind:
        return Check("events", Outcome.OK, "every log goes on")
    # Where domains share a server, this one's command mends the others, too.
    domain, numbers = max(behind.items(), key=lambda one: one[1].last)
    finding = (
        f"{domain} was read up to transaction {numbers.last}, but its server gives {numbers.next} next: "
        "new events would be lost. Was it restored from a dump, or is it older than who reads it?"
    )
    mend = f"stop PostgreSQL, run `{numbers.mend}` as its user, and start it"
    return Check("events", Outcome.PROBLEM, finding, f"{mend} (docs/backup.md)")


async def _events(settings: Settings) -> Check:
    check = await log_check(settings)
    if check.outcome is Outcome.PROBLEM:
        return check
    late = [one for one in await relay_progress(settings) if one.seconds > LATE_AFTER]
    if late:
        worst = max(late, key=lambda one: one.seconds)
        finding = f"{worst.waiting} events of {worst.domain} wait, the oldest for {worst.seconds:.0f} s"
        return Check("events", Outcome.PROBLEM, finding, "look into the relay's log; `mallbots events status`")
    letters = await all_dead_letters(settings)
    if letters:
        finding = (
            f"{count(len(letters), 'dead letter')}: {letters[0].consumer} could not handle {letters[0].subject}"
        )
        mend = "`mallbots events dead-letters` says why; `mallbots events retry` sends them again"
        return Check("events", Outcome.PROBLEM, finding, mend)
    return Check("events", Outcome.OK, "published, and no dead letters")


def _brief(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

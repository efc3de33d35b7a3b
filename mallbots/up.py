"""`mallbots up`: the whole mall on this machine, as child processes of one supervisor."""

import asyncio
import errno
import os
import signal
import socket
import sys
import time
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from kernel.errors import Misconfigured
from mallbots import embedded
from mallbots.console import MallConsole
from mallbots.embedded import CREDENTIALS_FILE, Credentials, Postgres
from mallbots.files import write_private
from mallbots.kept_keys import keys_file
from mallbots.observing import Observed
from mallbots.settings import ADDRESSES_FILE, DATABASES, Settings
from mallbots.supervisor import Child, Part, State, Supervisor, end_leftovers, sole_owner
from mallbots.temporal import prepare_namespace
from mallbots.tls import child_verification

MAIN_DATABASE: Final = "mallbots"
SANDBOX_DATABASE: Final = "sandbox"

_OF_ONE_PART = ("MALLBOTS_METRICS_PORT", "MALLBOTS_TEMPORAL_METRICS_PORT")
_OF_OTHER_SERVERS = (
    "database_tls_ca",
    "database_tls_certificate",
    "database_tls_key",
    "nats_tls_ca",
    "nats_tls_certificate",
    "nats_tls_key",
    "temporal_tls",
    "temporal_tls_ca",
    "temporal_tls_server_name",
    "temporal_tls_certificate",
    "temporal_tls_key",
    "temporal_api_key",
)
_OF_CLIENTS = (
    "api_tls_ca",
    "api_tls_client_certificate",
    "api_tls_client_key",
    "grpc_tls_ca",
    "grpc_tls_client_certificate",
    "grpc_tls_client_key",
)
_REFRESH_EVERY = 1.0
_COLOURS = {State.UP: "green", State.DOWN: "red", State.STOPPED: "dim"}


@dataclass(frozen=True)
class Port:
    """A port that the mall listens on, the part that does, and the setting that says so."""

    part: str
    setting: str
    host: str
    number: int

    def trouble(self) -> str | None:
        """Why nobody can listen on it now, as one line with what to do; None if it is free."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        try:
            socket.create_server((self.host, self.number), family=family).close()
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return f"port {self.number} is taken: stop what uses it or set {self.setting}"
            return f"cannot listen on {self.host}:{self.number} ({error.strerror}): set {self.setting}"
        return None


def ports(settings: Settings, *, observe: bool = False) -> list[Port]:
    """Every port that a mall with these settings listens on; those of metrics are chosen among the free ones."""
    page = Port("prometheus", "MALLBOTS_PROMETHEUS_PORT", embedded.HOST, settings.prometheus_port)
    codec = Port("codec", "MALLBOTS_CODEC_PORT", settings.codec_host, settings.codec_port)
    return [
        *([page] if observe else []),
        *([codec] if settings.temporal_encryption_keys else []),
        Port("postgres", "MALLBOTS_POSTGRES_PORT", embedded.HOST, settings.postgres_port),
        Port("nats", "MALLBOTS_NATS_PORT", embedded.HOST, settings.nats_port),
        Port("temporal", "MALLBOTS_TEMPORAL_PORT", embedded.HOST, settings.temporal_port),
        Port("temporal", "MALLBOTS_TEMPORAL_UI_PORT", embedded.HOST, settings.temporal_ui_port),
        Port("api", "MALLBOTS_API_PORT", settings.api_host, settings.api_port),
        Port("grpc", "MALLBOTS_GRPC_PORT", settings.grpc_host, settings.grpc_port),
    ]


def run(data_dir: Path, *, robots: int = 0, observe: bool = False) -> None:
    """Opens the mall that lives in `data_dir`, with so many shopper bots, and keeps it open until SIGINT,
    SIGTERM or SIGHUP. With `observe` its parts serve metrics.

    Its settings come from the environment alone: the file that an earlier run left says what was, not what
    shall be. Raises `MallError` when the mall cannot open, after all that was started has been stopped.
    """
    settings = Settings(data_dir=data_dir.absolute())
    _check_tls(settings)
    os.umask(0o077)
    embedded.make_data_dir(settings.data_dir)
    console = MallConsole()
    with sole_owner(settings.data_dir):
        leftovers = end_leftovers(settings.data_dir)
        if leftovers:
            console.say(f"ended what an earlier run left: {', '.join(leftovers)}")
        listened_on = ports(settings, observe=observe)
        _check_ports(listened_on)
        observed = Observed.of(settings, {port.number for port in listened_on}) if observe else None
        asyncio.run(_Mall(settings, console, robots, observed).run())


def _check_tls(settings: Settings) -> None:
    """Raises `Misconfigured` for a setting that says how to speak by TLS with what we bring along ourselves."""
    for name in _OF_OTHER_SERVERS:
        if getattr(settings, name):
            raise Misconfigured(
                f"{_variable(name)} is for servers of your own, and `mallbots up` brings its own, which speak "
                "plainly on this machine: do not set it (a database of yours may have `?sslmode=…` in its URL)"
            )


def _check_ports(listened_on: list[Port]) -> None:
    """Raises `Misconfigured` for the first port that is set twice or is not free."""
    seen: dict[int, Port] = {}
    for port in listened_on:
        other = seen.setdefault(port.number, port)
        if other is not port:
            raise Misconfigured(f"{other.setting} and {port.setting} are both {port.number}: change one of them")
        trouble = port.trouble()
        if trouble is not None:
            raise Misconfigured(trouble)


class _Mall:
    """One run of the mall, from the first server to the last stop."""

    def __init__(self, settings: Settings, console: MallConsole, robots: int, observed: Observed | None) -> None:
        self._robots = robots
        self._observed = observed
        self._prometheus = observed.prometheus(settings) if observed else None
        self._credentials = Credentials.of(settings.data_dir)
        self._postgres = Postgres(settings.data_dir, settings.postgres_port, self._credentials.postgres_password)
        self._addresses = addresses(settings, self._postgres, self._credentials)
        self._settings = Settings.model_validate({"data_dir": settings.data_dir, **self._addresses})
        self._console = console
        self._supervisor = Supervisor(settings.data_dir, console.say)
        self._http = httpx.AsyncClient(trust_env=False, verify=child_verification(settings))

    async def run(self) -> None:
        """Opens, waits for the signal, and stops everything, also when opening fails."""
        asked_to_stop = _stop_signals()
        display = asyncio.create_task(self._display()) if self._console.is_terminal else None
        try:
            if await _unless(asked_to_stop, self._open()):
                self._announce()
                await asked_to_stop.wait()
        finally:
            self._console.say("closing the mall")
            await self._supervisor.stop()
            await self._http.aclose()
            self._addresses_file.unlink(missing_ok=True)
            if display is not None:
                display.cancel()
                await asyncio.gather(display, return_exceptions=True)

    async def _open(self) -> None:
        from mallbots.opening import open_mall

        settings = self._settings
        await _side_by_side(
            self._open_databases(),
            self._open_temporal(),
            self._supervisor.start(
                embedded.nats_part(settings.data_dir, settings.nats_port, self._credentials.nats_token)
            ),
        )
        if await open_mall(settings):
            self._console.say("the mall opens for the first time, with a small catalogue")
        write_private(self._addresses_file, as_dotenv(self._addresses))
        processes = map(self._process, ("worker", "relay", "consumers", "analytics", "grpc"))
        await self._supervisor.start(*processes, self._api(), *self._codec())
        if self._prometheus is not None:
            await self._supervisor.start(self._prometheus)
        if self._robots:
            await self._supervisor.start(self._process("robots", "robot", "--count", str(self._robots)))

    async def _open_databases(self) -> None:
        from mallbots.migrations import migrate

        await self._postgres.prepare()
        await self._supervisor.start(self._postgres.part())
        await self._postgres.create_databases(MAIN_DATABASE, SANDBOX_DATABASE)
        await migrate(self._settings)

    async def _open_temporal(self) -> None:
        settings = self._settings
        await self._supervisor.start(
            embedded.temporal_part(
                settings.data_dir,
                settings.temporal_port,
                settings.temporal_ui_port,
                self._observed.server_port if self._observed else None,
                _codec_url(settings),
            )
        )
        await prepare_namespace(settings)

    def _process(self, name: str, *command: str) -> Part:
        """A process of ours that says by a file that it works: `mallbots NAME`, or another command."""
        ready_file = self._settings.data_dir / "run" / f"{name}.ready"

        async def is_ready() -> bool:
            return ready_file.exists()

        return Part(
            name,
            _mallbots(*(command or (name,))),
            is_ready,
            env=self._environment(name) | {"MALLBOTS_READY_FILE": str(ready_file)},
            before_start=lambda: ready_file.unlink(missing_ok=True),
        )

    def _api(self) -> Part:
        url = f"{_http_url(self._settings)}/healthz/ready"

        async def is_ready() -> bool:
            return (await self._http.get(url)).status_code == httpx.codes.OK

        return Part("api", _mallbots("api"), is_ready, env=self._environment("api"))

    def _codec(self) -> list[Part]:
        """The codec server, if there is something to decode."""
        return [self._process("codec", "codec-server")] if _codec_url(self._settings) else []

    def _environment(self, part: str) -> dict[str, str]:
        """The environment of our own programs: what we were given, where the servers are, and what is this part's
        own: no two can serve metrics on one port."""
        given = {name: value for name, value in os.environ.items() if name not in _OF_ONE_PART}
        own = self._observed.environment(part) if self._observed else {}
        ours = {_variable(name): value for name, value in self._addresses.items()}
        data_dir = str(self._settings.data_dir)
        return {**given, **ours, **own, "MALLBOTS_DATA_DIR": data_dir, "PYTHONUNBUFFERED": "1"}

    @property
    def _addresses_file(self) -> Path:
        return self._settings.data_dir / ADDRESSES_FILE

    def _announce(self) -> None:
        with suppress(OSError):
            self._console.print(self._address_table())
        self._console.say("mall is open")

    def _address_table(self) -> Table:
        settings, data_dir = self._settings, self._settings.data_dir
        table = Table(title="The mall", title_justify="left", show_header=False)
        table.add_column(style="bold")
        table.add_column(overflow="fold")
        table.add_row("Kiosk API", f"{settings.api_url}/v1 (docs: {settings.api_url}/docs)")
        table.add_row("Staff app", f"{settings.api_url}/staff ({self._manager()})")
        table.add_row(
            "Kiosk page",
            f"{settings.api_url}/kiosk (make a browser a kiosk by a kiosk's key at /sign-in?next=/kiosk)",
        )
        table.add_row("gRPC", f"{settings.grpc_address} (robots, and a service for each domain)")
        table.add_row("Temporal Web UI", settings.temporal_ui_url)
        codec_url = _codec_url(settings)
        if codec_url is not None:
            table.add_row("Codec server", f"{codec_url} (let the Web UI send it cookies: docs/temporal-ui.md)")
        table.add_row(
            "PostgreSQL",
            f"{embedded.HOST}:{settings.postgres_port}, databases {MAIN_DATABASE} and {SANDBOX_DATABASE}",
        )
        table.add_row("NATS", f"{embedded.HOST}:{settings.nats_port}")
        table.add_row("Logs", escape(str(self._supervisor.log_dir)))
        table.add_row("Server passwords", escape(str(data_dir / CREDENTIALS_FILE)))
        table.add_row("Kiosk keys", escape(str(keys_file(settings, "kiosks"))))
        table.add_row("Addresses as settings", escape(str(self._addresses_file)))
        if self._observed is not None:
            for name, told in self._observed.told(settings, has_prometheus=self._prometheus is not None):
                table.add_row(name, escape(told))
        return table

    def _manager(self) -> str:
        """Who can sign in after the first start."""
        from mallbots.opening import FIRST_MANAGER, PASSWORD_FILE

        file = self._settings.data_dir / PASSWORD_FILE
        if file.exists():
            return f"first sign in as {FIRST_MANAGER}; the password is in {escape(str(file))}"
        return "`mallbots accounts create` lets somebody in"

    async def _display(self) -> None:
        """Keeps a table of the parts at the foot of the terminal."""
        children = self._supervisor.children
        with Live(get_renderable=lambda: _part_table(children), console=self._console, auto_refresh=False) as live:
            while True:
                live.refresh()
                await asyncio.sleep(_REFRESH_EVERY)


def _part_table(children: list[Child]) -> Table:
    table = Table(box=None)
    table.add_column("Part", min_width=10)
    table.add_column("State", min_width=10)
    for heading in ("PID", "For", "Restarts"):
        table.add_column(heading, justify="right", min_width=8)
    for child in children:
        state = Text(child.state, style=_COLOURS.get(child.state, "yellow"))
        since = _duration(time.monotonic() - child.since)
        table.add_row(child.part.name, state, str(child.pid or ""), since, str(child.restarts))
    return table


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def addresses(settings: Settings, postgres: Postgres, credentials: Credentials) -> dict[str, str]:
    """Where everything is, as values of settings.

    An explicit database URL wins over the embedded server, and explicit links over those that only this
    machine can follow.
    """
    databases = {}
    for name in DATABASES:
        given = getattr(settings, f"{name}_database_url")
        home = SANDBOX_DATABASE if name == "sandbox" else MAIN_DATABASE
        databases[f"{name}_database_url"] = given.get_secret_value() if given else postgres.url(home)
    links = {
        "temporal_ui_url": f"http://{embedded.HOST}:{settings.temporal_ui_port}",
        "api_url": _http_url(settings),
        "grpc_address": _reachable(settings.grpc_host, settings.grpc_port),
    }
    keys = settings.temporal_encryption_keys
    encryption = (
        {
            "temporal_encryption_keys": keys.get_secret_value(),
            "codec_host": settings.codec_host,
            "codec_port": str(settings.codec_port),
        }
        if keys
        else {}
    )
    given_links = {name: getattr(settings, name) for name in links if name in settings.model_fields_set}
    files = {name: str(file.absolute()) for name in _OF_CLIENTS if (file := getattr(settings, name)) is not None}
    return {
        **databases,
        **links,
        **given_links,
        **encryption,
        **files,
        "temporal_address": f"{embedded.HOST}:{settings.temporal_port}",
        "temporal_namespace": settings.temporal_namespace,
        "nats_url": embedded.nats_url(settings.nats_port, credentials.nats_token),
        "api_host": settings.api_host,
        "grpc_host": settings.grpc_host,
        "currency": settings.currency,
        "postgres_port": str(settings.postgres_port),
        "nats_port": str(settings.nats_port),
        "temporal_port": str(settings.temporal_port),
        "temporal_ui_port": str(settings.temporal_ui_port),
        "api_port": str(settings.api_port),
        "grpc_port": str(settings.grpc_port),
    }


def _codec_url(settings: Settings) -> str | None:
    """Where browsers reach the codec server: on the host of the API, or its cookie would not come along. None if
    nothing is encrypted."""
    if settings.temporal_encryption_keys is None:
        return None
    api = urlsplit(settings.api_url)
    return f"{api.scheme}://{_reachable(api.hostname or embedded.HOST, settings.codec_port)}"


def _http_url(settings: Settings) -> str:
    scheme = "https" if settings.api_tls_certificate else "http"
    return f"{scheme}://{_reachable(settings.api_host, settings.api_port)}"


def _reachable(host: str, port: int) -> str:
    """Host and port from this machine: one cannot connect to "every address"."""
    everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
    host = everywhere.get(host, host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def as_dotenv(values: Mapping[str, str]) -> str:
    """The text of a file that gives these settings, for `Settings.load` and for a shell."""
    lines = ["# Where the running mall is. Written by `mallbots up`, and removed when it stops."]
    for name, value in values.items():
        quoted = value.replace("\\", "\\\\").replace("'", "\\'")
        lines.append(f"{_variable(name)}='{quoted}'")
    return "\n".join(lines) + "\n"


def _variable(setting: str) -> str:
    return f"MALLBOTS_{setting.upper()}"


def _mallbots(*command: str) -> tuple[str, ...]:
    # -P: what happens to lie in the current directory must not stand in for our own modules.
    return (sys.executable, "-P", "-m", "mallbots", *command)


def _stop_signals() -> asyncio.Event:
    """An event that the signals to stop set, as often as they come."""
    event = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, event.set)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as it is under nohup
        loop.add_signal_handler(signal.SIGHUP, event.set)
    return event


async def _unless(event: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Does `work` and returns True, or cancels it and returns False when `event` comes first."""
    task = asyncio.create_task(work)
    waiting = asyncio.create_task(event.wait())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if not task.done():
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return False
    task.result()
    return True


async def _side_by_side(*work: Coroutine[Any, Any, None]) -> None:
    """Does all at once. The first failure cancels the rest and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            for one in work:
                group.create_task(one)
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None

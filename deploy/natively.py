"""Run docker-compose.yml on this machine without containers: `python -m deploy.natively`, `make compose-check`.

Each service is started by its own command with its own environment, secrets and mounted files, as the file has
them. Only what a container would have of its own is changed, and mechanically: `name:port` becomes `127.0.0.1:`
and a free port, and a path inside becomes one below a temporary directory of the service. PostgreSQL, NATS and
Temporal are the embedded ones: PostgreSQL with the options of the file, NATS with its configuration, Temporal as
the development server. The proxy is Caddy with its Caddyfile. Each service counts as started once its own health
check says so, in the order of `depends_on`. Then the mall is used through the proxy, as docs/deploying.md does it.

Not run: Temporal's schema on PostgreSQL and Temporal's server on it, Temporal's UI, the collector (something that
takes what is sent to it stands there), Jaeger, Prometheus, Grafana; nor what only an engine does: the image,
users, read-only roots, limits, networks.
"""

import argparse
import asyncio
import base64
import json
import os
import random
import re
import shutil
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import asyncpg
import httpx
from rich.table import Table

from deploy.compose_file import Service, read_document, services
from deploy.make_secrets import make_secrets
from kernel.errors import MallError, Unavailable
from mallbots.console import MallConsole, complain
from mallbots.embedded import HOST, Postgres, find_binary, make_data_dir, postgres_binary, temporal_part
from mallbots.supervisor import Part, PartFailed, Supervisor, log_tail, spawn

NOT_RUN: Final = frozenset({"temporal-schema", "temporal-ui", "otel-collector", "jaeger", "prometheus", "grafana"})
COLLECTOR: Final = ("otel-collector", 4318)
ROOT: Final = Path(__file__).parent.parent
CATALOG: Final = ROOT / "tests" / "data" / "catalog.jsonl"
BASKETS: Final = ROOT / "tests" / "data" / "baskets.jsonl"

_SECRETS_INSIDE = "/run/secrets"
_REPORT = "/tmp/report.json"  # noqa: S108
_PORT_LINE = re.compile(r"(?<=^port: )\d+", re.MULTILINE)
_TAKEN = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Type: application/x-protobuf\r\n\r\n"
_AT_ONCE = 4
_STOP_WITHIN = 90.0
_ONE_SHOT_WITHIN = 60.0
_COMMAND_WITHIN = 300.0
_SHOPPED_WITHIN = 300.0
_OPEN_ORDERS = "SELECT status, count(*) FROM orders.orders WHERE status IN ('pending', 'approved') GROUP BY status"


class Places:
    """Where a service's addresses and paths are on this machine."""

    def __init__(self, root: Path, names: Sequence[str]) -> None:
        self._root = root
        self._ports: dict[tuple[str, int], int] = {}
        known = "|".join(sorted(map(re.escape, names), key=len, reverse=True))
        own = r"127\.0\.0\.1|0\.0\.0\.0"
        self._address = re.compile(rf"(?<![\w.\-\]])(?:({known}|{own}))?:(\d{{2,5}})(?!\d)")

    def port(self, name: str, number: int) -> int:
        """The port of this machine that stands for a service's; below those of outgoing connections."""
        taken = self._ports.values()
        while (name, number) not in self._ports:
            port = random.randrange(20_000, 32_000)  # noqa: S311
            with socket.socket() as probe:
                if port not in taken and probe.connect_ex((HOST, port)) != 0:
                    self._ports[name, number] = port
        return self._ports[name, number]

    def path(self, service: Service, inside: str) -> Path:
        """The path of this machine that stands for one inside."""
        return self._root / service.name / inside.lstrip("/")

    def text(self, service: Service, text: str) -> str:
        """An argument, a value or a configuration of a service, as it holds on this machine."""

        def address(found: re.Match[str]) -> str:
            host, number = found[1], int(found[2])
            if number in self._ports.values():
                return found[0]
            name = host if host and not host[0].isdigit() else service.name
            return f"{HOST if host else ''}:{self.port(name, number)}"

        text = self._address.sub(address, text)
        text = _PORT_LINE.sub(lambda found: str(self.port(service.name, int(found[0]))), text)
        inside = sorted((*service.files, *service.volumes, _SECRETS_INSIDE), key=len, reverse=True)
        paths = rf"(?<![\w./\-])(?:{'|'.join(map(re.escape, inside))})(?![\w\-])"
        text = re.sub(paths, lambda found: str(self.path(service, found[0])), text)
        return HOST if text == "0.0.0.0" else text  # noqa: S104

    def environment(self, service: Service) -> dict[str, str]:
        """The environment of a service, with what an image has of its own: programs and a home."""
        programs = (Path(sys.executable).parent, postgres_binary("psql").parent, "/usr/bin", "/bin")
        here = self.path(service, "/")
        environment = {"PATH": os.pathsep.join(map(str, programs)), "HOME": str(here), "TMPDIR": str(here)}
        for name, value in service.environment.items():
            is_port = name.endswith("_PORT") and value.isdecimal()
            environment[name] = str(self.port(service.name, int(value))) if is_port else self.text(service, value)
        return environment

    def furnish(self, service: Service, secrets: Path) -> None:
        """Lay out what is mounted into a service."""
        for inside in (*service.volumes, _SECRETS_INSIDE):
            self.path(service, inside).mkdir(parents=True, exist_ok=True)
        for name in service.secrets:
            secret = self.text(service, (secrets / name).read_text())
            self.path(service, f"{_SECRETS_INSIDE}/{name}").write_text(secret)
        for inside, outside in service.files.items():
            if outside.is_file():
                target = self.path(service, inside)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(self.text(service, outside.read_text()))


@dataclass(frozen=True)
class Checked:
    """Something that was tried, whether it went well, and what was seen."""

    what: str
    well: bool
    seen: str


class Natively:
    """The services of the file as processes below `root`. `say` is told each change as one line."""

    def __init__(self, root: Path, say: Callable[[str], None]) -> None:
        make_data_dir(root)
        self.places = Places(root, list(read_document()["services"]))
        outside = {
            "PUBLIC_URL": f"http://{HOST}:{self.places.port('proxy', 80)}",
            "TOOLS_API_URL": "http://proxy:80",
            "TOOLS_GRPC_ADDRESS": "proxy:50051",
            "PROXY_SITE": f"http://{HOST}:{self.places.port('proxy', 80)}",
        }
        every = services(read_document(variables=outside))
        self.services = {name: one for name, one in every.items() if name not in NOT_RUN}
        self.traced = 0
        self._root = root
        self._say = say
        self._secrets = root / "secrets"
        self._supervisor = Supervisor(root, say)
        self._collector: asyncio.Server | None = None
        self._turn = asyncio.Semaphore(_AT_ONCE)

    async def open(self) -> list[Checked]:
        """Start everything that `up` starts. Raises `PartFailed` for what does not get healthy."""
        make_secrets(self._secrets)
        # So that the codec server has something to read.
        key = base64.b64encode(os.urandom(32)).decode()
        (self._secrets / "mallbots_temporal_encryption_keys").write_text(f"first:{key}")
        for service in self.services.values():
            self.places.furnish(service, self._secrets)
        self._collector = await asyncio.start_server(self._take, HOST, self.places.port(*COLLECTOR))
        started: list[Checked] = []
        done: set[str] = set(NOT_RUN)
        waiting = {name: one for name, one in self.services.items() if name != "tools"}
        while waiting:
            next_ones = [one for one in waiting.values() if done.issuperset(one.depends_on)]
            took = await asyncio.gather(*map(self._start, next_ones))
            for one, seconds in zip(next_ones, took, strict=True):
                started.append(
                    Checked(one.name, True, f"{'healthy' if one.healthcheck else 'done'} in {seconds:.1f} s")
                )
                done.add(waiting.pop(one.name).name)
        return started

    async def close(self) -> None:
        """Stop everything, in the reverse order."""
        await self._supervisor.stop(_STOP_WITHIN)
        if self._collector is not None:
            self._collector.close()

    async def healthy(self, service: Service) -> bool:
        """What a service's own health check says."""
        program, *arguments = (self.places.text(service, word) for word in service.healthcheck)
        if program == "wget":
            async with httpx.AsyncClient(trust_env=False) as client:
                return (await client.get(arguments[-1])).is_success
        return await self._run(service, (program, *arguments), "health") == 0

    async def tool(self, *arguments: str, stop_after: Awaitable[object] | None = None) -> tuple[int, str]:
        """Run `docker compose run tools mallbots …`: its exit code, and what it said last. With `stop_after` it is
        ended by SIGTERM when that returns."""
        tools = self.services["tools"]
        log = f"tools-{arguments[0]}"
        code = await self._run(tools, ("mallbots", *arguments), log, _COMMAND_WITHIN, stop_after)
        return code, log_tail(self._supervisor.log_dir / f"{log}.log")

    def mount(self, file: Path) -> str:
        """Where `tools` has a copy of a file."""
        inside = f"/tmp/{file.name}"  # noqa: S108
        target = self.places.path(self.services["tools"], inside)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
        return inside

    def secret(self, name: str) -> str:
        """A secret as `tools` or a person sees it."""
        return self.places.text(self.services["tools"], (self._secrets / name).read_text())

    def url(self, path: str = "") -> str:
        """Where the mall is: at the proxy."""
        return f"http://{HOST}:{self.places.port('proxy', 80)}{path}"

    def kill(self, name: str) -> None:
        """End a service by SIGKILL; it is started again, as its restart policy has it."""
        (child,) = (child for child in self._supervisor.children if child.part.name == name)
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)

    async def _start(self, service: Service) -> float:
        """Start a service, or run it to its end; the seconds that it took."""
        # All at once, each would take longer than it may on a small machine.
        async with self._turn:
            began = time.monotonic()
            await self._start_now(service)
            return time.monotonic() - began

    async def _start_now(self, service: Service) -> None:
        if service.healthcheck:
            await self._supervisor.start(await self._part(service))
        elif await self._run(service, service.command, service.name) != 0:
            log = self._supervisor.log_dir / f"{service.name}.log"
            raise PartFailed(f"{service.name} failed; its log is {log}, which ends:\n{log_tail(log)}")

    async def _part(self, service: Service) -> Part:
        command = tuple(self.places.text(service, word) for word in service.command)
        ready = partial(self._ready, service)
        if service.name == "postgres":
            return await self._postgres(command[1:], ready)
        if service.name == "temporal":
            return self._temporal(ready)
        program, *arguments = command
        return Part(
            service.name,
            (str(find_binary(program)), *arguments),
            ready,
            env=self.places.environment(service),
            before_start=partial(self._ready_file(service).unlink, missing_ok=True),
        )

    async def _postgres(self, options: Sequence[str], ready: Callable[[], Awaitable[bool]]) -> Part:
        password = (self._secrets / "postgres_password").read_text()
        server = Postgres(self._root / "server", self.places.port("postgres", 5432), password, durable=False)
        (self._root / "server" / "logs").mkdir(parents=True)
        await server.prepare()
        part = server.part()
        return replace(part, command=(*part.command, *options), ready=ready)

    def _temporal(self, ready: Callable[[], Awaitable[bool]]) -> Part:
        data_dir = self._root / "dev-server"
        data_dir.mkdir()
        part = temporal_part(data_dir, self.places.port("temporal", 7233), self.places.port("temporal", 8233))
        http = ("--http-port", str(self.places.port("temporal", 7243)))
        return replace(part, command=(*part.command, *http), ready=ready)

    def _ready_file(self, service: Service) -> Path:
        return Path(self.places.environment(service).get("MALLBOTS_READY_FILE", self._root / "none"))

    async def _ready(self, service: Service) -> bool:
        """Ask the health check, but not before it can say yes: each is a process."""
        if "mallbots.healthy" in service.healthcheck and not self._ready_file(service).exists():
            return False
        return await self.healthy(service)

    async def _run(
        self,
        service: Service,
        command: Sequence[str],
        log: str,
        within: float = _ONE_SHOT_WITHIN,
        stop_after: Awaitable[object] | None = None,
    ) -> int:
        program, *arguments = (self.places.text(service, word) for word in command)
        environment = self.places.environment(service)
        found = shutil.which(program, path=environment["PATH"])
        if found is None:
            raise PartFailed(f"{service.name}: there is no program {program} here")
        process = await spawn(
            (found, *arguments),
            log=self._supervisor.log_dir / f"{log}.log",
            env=environment,
            death_signal=signal.SIGTERM,
        )
        try:
            async with asyncio.timeout(within):
                if stop_after is not None:
                    await stop_after
                    process.terminate()
                return await process.wait()
        except TimeoutError:
            raise Unavailable(f"{service.name}: {' '.join(command)} took more than {within:g} s") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Stand where the collector would: take traces, and count how often some came."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
                await reader.readexactly(int(length[1]) if length else 0)
                self.traced += head.startswith(b"POST /v1/traces")
                writer.write(_TAKEN)
                await writer.drain()
        writer.close()


async def use(mall: Natively, baskets: int) -> list[Checked]:
    """Use an open mall as people do, through the proxy: from the first product to the audit."""
    checked: list[Checked] = []

    def check(what: str, well: bool, seen: str) -> None:
        checked.append(Checked(what, well, seen))

    async def tool(what: str, *arguments: str) -> None:
        code, said = await mall.tool(*arguments)
        lines = [line.strip(" │┃") for line in said.splitlines() if re.search(r"\w", line)]
        check(what, code == 0, lines[-1] if lines else f"exit code {code}")

    async with httpx.AsyncClient(base_url=mall.url(), trust_env=False, timeout=30) as client:
        password = mall.secret("mallbots_manager_password")
        signed_in = await client.post(
            "/sign-in", data={"name": "manager", "password": password}, headers={"Origin": mall.url()}
        )
        check("the first manager signs in", signed_in.status_code == httpx.codes.SEE_OTHER, str(signed_in))
        hidden = await client.get("/metrics")
        check("metrics are not for the world", hidden.status_code == httpx.codes.NOT_FOUND, str(hidden))

        await tool("the catalogue", "catalog", "import", mall.mount(CATALOG), "--stock", "1000")
        code, said = await mall.tool("replay", mall.mount(BASKETS), "--count", str(baskets), "--out", _REPORT)
        report = mall.places.path(mall.services["tools"], _REPORT)
        told = json.loads(report.read_text()) if code == 0 else {}
        seen = f"{told['approved']} approved, rejected: {told['rejected'] or 'none'}" if told else said
        check(f"{baskets} baskets through the proxy", bool(told) and told["approved"] > baskets // 2, seen)

        shopped = asyncio.ensure_future(_shopped(mall))
        code, said = await mall.tool("robot", "--count", "8", "--speed", "50", stop_after=shopped)
        left = shopped.result()
        check("robots shop them, by gRPC through the proxy", code == 0 and not left, f"{left or 'none'} open")
        await tool("the desk hands over", "desk", "--concurrency", "4")

        mall.kill("api-1")
        answers = Counter([(await client.get("/healthz")).status_code for _ in range(20)])
        check("one API process is killed: the other answers", answers == {200: 20}, f"{dict(answers)}")
    await tool("the audit", "audit")
    check("traces were sent", mall.traced > 0, f"{mall.traced} times")
    return checked


async def _shopped(mall: Natively) -> dict[str, int]:
    """Wait until no order is left to shop; gives those that are, when it takes too long."""
    url = mall.secret("mallbots_orders_database_url").replace("+asyncpg", "")
    connection = await asyncpg.connect(url)
    deadline = time.monotonic() + _SHOPPED_WITHIN
    try:
        while True:
            left = {row["status"]: row["count"] for row in await connection.fetch(_OPEN_ORDERS)}
            if not left or time.monotonic() > deadline:
                return left
            await asyncio.sleep(0.2)
    finally:
        await connection.close()


async def check_compose(root: Path, baskets: int, say: Callable[[str], None]) -> list[Checked]:
    """Start the mall of the compose file below `root`, use it, and stop it. Raises `MallError` for what fails
    before it can be used."""
    mall = Natively(root, say)
    try:
        return [*await mall.open(), *await use(mall, baskets)]
    finally:
        await mall.close()


def main() -> None:
    """The command: a table of what was tried, and exit code 0 only if all went well."""
    parser = argparse.ArgumentParser(prog="python -m deploy.natively")
    parser.add_argument("--baskets", type=int, default=100, help="so many, up to 200")
    parser.add_argument("--keep", type=Path, help="work there, and leave everything: logs are in logs/")
    options = parser.parse_args()
    console = MallConsole()
    os.umask(0o077)
    with TemporaryDirectory(prefix="mallbots-", ignore_cleanup_errors=True) as directory:
        root = options.keep.absolute() if options.keep else Path(directory) / "mall"
        try:
            checked = asyncio.run(check_compose(root, options.baskets, console.say))
        except MallError as error:
            complain(error.message)
            sys.exit(1)
    table = Table("Tried", "", "Seen", title="docker-compose.yml, natively", title_justify="left")
    for one in checked:
        table.add_row(one.what, "[green]ok[/]" if one.well else "[red]NOT OK[/]", one.seen)
    console.print(table)
    console.say(f"not run here: {', '.join(sorted(NOT_RUN))}, and what only an engine does")
    sys.exit(0 if all(one.well for one in checked) else 1)


if __name__ == "__main__":
    main()

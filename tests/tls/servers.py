"""Servers that are spoken to by TLS: NATS, PostgreSQL, and a proxy before Temporal as its cloud is."""

import asyncio
import contextlib
import json
import os
import socket
import ssl
import struct
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from mallbots.embedded import find_binary, free_port
from tests.nats import TOKEN, NatsServer, run
from tests.tls.certificates import HOST, Certificates
from tests.waiting import eventually, wait_until

API_KEY = "a-key-of-the-cloud"

_SSL_REQUEST = struct.pack("!II", 8, 80877103)

_CADDYFILE = """
{{
    admin off
    auto_https off
    fallback_sni {host}
    servers {{
        strict_sni_host insecure_off
    }}
    log {{
        level ERROR
    }}
}}
https://{host}:{plain} {{
    tls {server.certificate} {server.key}
    reverse_proxy h2c://{temporal}
}}
https://{host}:{mutual} {{
    tls {server.certificate} {server.key} {{
        client_auth {{
            mode require_and_verify
            trust_pool file {{
                pem_file {ca}
            }}
        }}
    }}
    reverse_proxy h2c://{temporal}
}}
https://{host}:{cloud} {{
    tls {server.certificate} {server.key}
    @stranger not header Authorization "Bearer {api_key}"
    @operator path /temporal.api.operatorservice.* *RegisterNamespace
    handle @stranger {{
        header Content-Type application/grpc
        header Grpc-Status 16
        header Grpc-Message "Request unauthorized."
        respond 200
    }}
    handle @operator {{
        header Content-Type application/grpc
        header Grpc-Status 7
        header Grpc-Message "Request unauthorized."
        respond 200
    }}
    reverse_proxy h2c://{temporal}
}}
"""


@dataclass(frozen=True)
class TemporalByTls:
    """Addresses of one Temporal server: without TLS, by TLS, by mutual TLS, and as its cloud, which wants an API
    key and lets nobody make namespaces or search attributes."""

    without: str
    plain: str
    mutual: str
    cloud: str


@contextmanager
def temporal_by_tls(directory: Path, certificates: Certificates, temporal: str) -> Iterator[TemporalByTls]:
    """A proxy before the Temporal server at this address."""
    ports = {name: free_port() for name in ("plain", "mutual", "cloud")}
    caddyfile = directory / "Caddyfile"
    caddyfile.write_text(
        _CADDYFILE.format(
            **ports,
            host=HOST,
            server=certificates.server,
            ca=certificates.ours.ca,
            api_key=API_KEY,
            temporal=temporal,
        )
    )
    home = {"XDG_DATA_HOME": str(directory), "XDG_CONFIG_HOME": str(directory)}
    proxy = subprocess.Popen(
        (find_binary("caddy"), "run", "--config", caddyfile, "--adapter", "caddyfile"),
        env=os.environ | home,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: all(listens(HOST, port) for port in ports.values()))
        yield TemporalByTls(temporal, **{name: f"{HOST}:{port}" for name, port in ports.items()})
    finally:
        proxy.terminate()
        proxy.wait()


class NatsByTls(NatsServer):
    """NATS that is spoken to by TLS, and that wants a certificate of its clients."""

    def __init__(self, directory: Path, certificates: Certificates) -> None:
        super().__init__(directory)
        settings = json.loads(self._configuration.read_text())
        settings["tls"] = {
            "cert_file": str(certificates.server.certificate),
            "key_file": str(certificates.server.key),
            "ca_file": str(certificates.ours.ca),
            "verify": True,
        }
        self._configuration.write_text(json.dumps(settings))
        self._port = settings["port"]
        self.url = f"tls://{TOKEN}@{HOST}:{self._port}"

    async def start(self) -> None:
        """Start it, and return when it listens."""
        self._process = run(self._part.command)
        await eventually(lambda: listens(HOST, self._port))


def listens(host: str, port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


@dataclass(frozen=True)
class DatabaseByTls:
    """The URL of a database, without a word of TLS, and the names in the certificates that were shown there."""

    url: str
    seen: list[str]


class PostgresByTls:
    """TLS as PostgreSQL has it, with a certificate of each client, before a server that was built without TLS, as
    the one of our wheel is. `seen` are the names in the certificates that were shown."""

    def __init__(self, certificates: Certificates, host: str, port: int) -> None:
        self.seen: list[str] = []
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificates.ours.ca)
        self._context.load_cert_chain(certificates.server.certificate, certificates.server.key)
        # PostgreSQL takes whoever shows none, and then refuses him in words of its own.
        self._context.verify_mode = ssl.CERT_OPTIONAL
        self._server = (host, port)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        """Listen as long as the context lasts; gives the port."""
        server = await asyncio.start_server(self._serve, HOST)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Whoever is refused hangs up as he likes.
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            if await reader.readexactly(len(_SSL_REQUEST)) != _SSL_REQUEST:
                writer.write(_refusal('no pg_hba.conf entry for host "127.0.0.1", user "mallbots", no encryption'))
            else:
                writer.write(b"S")
                await writer.start_tls(self._context)
                shown = writer.get_extra_info("peercert")
                if shown:
                    self.seen.append(dict(part[0] for part in shown["subject"])["commonName"])
                    server = await asyncio.open_connection(*self._server)
                    await asyncio.wait(
                        [
                            asyncio.create_task(_pipe(reader, server[1])),
                            asyncio.create_task(_pipe(server[0], writer)),
                        ],
                        return_when=asyncio.FIRST_COMPLETED,
                    )
                    server[1].close()
                else:
                    writer.write(_refusal("connection requires a valid client certificate"))
        writer.close()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)


def _refusal(message: str) -> bytes:
    """What PostgreSQL answers to a user or host that it does not want."""
    fields = b"".join(part.encode() + b"\0" for part in ("SFATAL", "VFATAL", "C28000", f"M{message}", ""))
    return b"E" + struct.pack("!I", len(fields) + 4) + fields

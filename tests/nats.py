"""A NATS server of a test's own, that can be killed and started again on what it had stored."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mallbots.embedded import free_port, nats_answers, nats_part, nats_url
from tests.directories import server_directory
from tests.waiting import eventually

TOKEN = "test"


class NatsServer:
    """JetStream on files in a directory; `max_store` bounds them, in bytes."""

    def __init__(self, directory: Path, max_store: int | None = None) -> None:
        self._part = nats_part(directory, free_port(), TOKEN)
        self._configuration = directory / "nats" / "nats.conf"
        settings = json.loads(self._configuration.read_text())
        self.url = nats_url(settings["port"], TOKEN)
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self.limit(max_store)

    def limit(self, max_store: int | None) -> None:
        """How much room it has, from its next start on."""
        jetstream = {**self._settings["jetstream"], **({"max_file_store": max_store} if max_store else {})}
        self._configuration.write_text(json.dumps(self._settings | {"jetstream": jetstream}))

    async def start(self) -> None:
        """Start it, and return when it answers."""
        self._process = run(self._part.command)

        async def answers() -> bool:
            try:
                return await nats_answers(self.url)
            except Exception:
                return False

        await eventually(answers)

    def kill(self) -> None:
        """End it by SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def run(command: tuple[str, ...]) -> "subprocess.Popen[bytes]":
    """Start a server that keeps what it says to itself."""
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@contextmanager
def a_nats_server(max_store: int | None = None) -> Iterator[NatsServer]:
    """A server to be started; it is ended with the block."""
    with server_directory() as directory:
        server = NatsServer(Path(directory), max_store)
        try:
            yield server
        finally:
            server.kill()

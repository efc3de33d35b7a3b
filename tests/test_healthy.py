"""The health check of a container: it says yes only to a process that works, and no to one that hangs."""

import asyncio
import os
import time
from pathlib import Path

import pytest

from mallbots import heartbeat
from mallbots.healthy import OLD_AFTER, trouble
from tests.waiting import eventually


@pytest.fixture
def ready_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "ready"
    monkeypatch.setenv("MALLBOTS_READY_FILE", str(file))
    monkeypatch.setattr(heartbeat, "EVERY", 0.01)
    return file


async def test_a_process_is_healthy_while_its_event_loop_turns(ready_file: Path) -> None:
    assert "FileNotFoundError" in (trouble(None) or "")
    async with heartbeat.heartbeat(ready_file):
        assert trouble(None) is None
        long_ago = time.time() - OLD_AFTER - 10
        os.utime(ready_file, (long_ago, long_ago))
        await eventually(lambda: trouble(None) is None)


def test_one_that_hangs_is_not(ready_file: Path) -> None:
    ready_file.touch()
    long_ago = time.time() - OLD_AFTER - 10
    os.utime(ready_file, (long_ago, long_ago))
    assert (trouble(None) or "").startswith("the event loop has not turned for 4")


@pytest.mark.parametrize(("line", "is_well"), [(b"200 OK", True), (b"503 Service Unavailable", False)])
async def test_one_that_speaks_http_must_answer_well(line: bytes, is_well: bool) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 " + line + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        said = await asyncio.to_thread(trouble, f"http://127.0.0.1:{port}/healthz")
        assert (said is None) == is_well


@pytest.mark.parametrize("target", ["http://127.0.0.1:1/healthz", "grpc://127.0.0.1:1"])
def test_one_that_is_not_there_is_not_healthy(target: str) -> None:
    assert trouble(target) is not None

"""The gRPC gateways as a process."""

import asyncio
from pathlib import Path

from api.grpc.server import GrpcServer
from api.grpc.services import grpc_services
from mallbots.heartbeat import heartbeat
from mallbots.processes import run_process
from mallbots.settings import Settings


def serve_grpc(settings: Settings) -> None:
    """Serve gRPC until SIGTERM or Ctrl-C; the ready file is made when that begins. Raises `Misconfigured`."""
    run_process(settings.model_copy(update={"ready_file": None}), "grpc", _serve(settings))


async def _serve(settings: Settings) -> None:
    serving = asyncio.Event()
    beating = asyncio.create_task(_beat_once(serving, settings.ready_file))
    try:
        async with grpc_services(settings) as services:
            await GrpcServer(settings, services).run(serving.set)
    finally:
        beating.cancel()


async def _beat_once(serving: asyncio.Event, file: Path | None) -> None:
    await serving.wait()
    async with heartbeat(file):
        await asyncio.Event().wait()

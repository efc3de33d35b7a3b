"""The gRPC gateways as a process."""

from collections.abc import Callable

from api.grpc.server import GrpcServer
from api.grpc.services import grpc_services
from mallbots.processes import run_process
from mallbots.settings import Settings


def serve_grpc(settings: Settings) -> None:
    """Serve gRPC until SIGTERM or Ctrl-C; the ready file is made when that begins. Raises `Misconfigured`."""

    def ready() -> None:
        if settings.ready_file is not None:
            settings.ready_file.touch()

    run_process(settings.model_copy(update={"ready_file": None}), _serve(settings, ready))


async def _serve(settings: Settings, ready: Callable[[], None]) -> None:
    async with grpc_services(settings) as services:
        await GrpcServer(settings, services).run(ready)

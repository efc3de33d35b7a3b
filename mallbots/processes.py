"""What every long-running process of ours has in common: it works until it is told to stop."""

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any

import uvloop

from mallbots.heartbeat import heartbeat
from mallbots.logs import configure_logging
from mallbots.settings import Settings
from mallbots.telemetry import configure_metrics
from mallbots.tracing import tracing


def run_process(settings: Settings, service: str, *work: Coroutine[Any, Any, None]) -> None:
    """Do all of this side by side until SIGTERM or Ctrl-C, then cancel it and return. `service` is what the
    process is called in traces.

    The ready file of the settings is made once the work has begun, and touched while it goes on. Raises what any
    of it raises.
    """
    configure_logging(settings)
    configure_metrics(settings)
    with tracing(settings, service):
        uvloop.run(_until_signal(settings, work))


async def _until_signal(settings: Settings, work: tuple[Coroutine[Any, Any, None], ...]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    stopping = asyncio.create_task(stop.wait())
    tasks = [asyncio.create_task(one) for one in work]
    async with heartbeat(settings.ready_file):
        done, _ = await asyncio.wait({stopping, *tasks}, return_when=asyncio.FIRST_COMPLETED)
    for task in (stopping, *tasks):
        task.cancel()
    await asyncio.gather(stopping, *tasks, return_exceptions=True)
    for task in done - {stopping}:
        task.result()

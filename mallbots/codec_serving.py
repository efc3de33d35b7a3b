"""The codec server as a process."""

import sys
from contextlib import suppress

import uvicorn

from api.codec.app import create_codec_app
from mallbots.heartbeat import heartbeat
from mallbots.logs import configure_logging
from mallbots.settings import Settings
from mallbots.telemetry import configure_metrics
from mallbots.tls import uvicorn_tls


class CodecServer(uvicorn.Server):
    """uvicorn's, that touches the ready file while it serves. It shows the API's certificate, if there is one: a
    browser sends the cookie that tells it who asks only if both are on the same host."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(
            uvicorn.Config(
                create_codec_app(settings),
                host=settings.codec_host,
                port=settings.codec_port,
                loop="uvloop",
                http="httptools",
                ws="none",
                access_log=False,
                log_config=None,
                log_level=settings.log_level,
                timeout_graceful_shutdown=3,
                **uvicorn_tls(settings),
            )
        )
        self._ready_file = settings.ready_file

    async def main_loop(self) -> None:
        """Serve until told to stop; the ready file says that it does."""
        async with heartbeat(self._ready_file):
            await super().main_loop()


def serve_codec(settings: Settings) -> None:
    """Serve until SIGTERM or Ctrl-C. Raises `Misconfigured` if there are no keys."""
    configure_logging(settings)
    configure_metrics(settings)
    server = CodecServer(settings)
    with suppress(KeyboardInterrupt):
        server.run()
    if not server.started:
        sys.exit(uvicorn.config.STARTUP_FAILURE)

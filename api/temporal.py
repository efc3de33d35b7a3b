"""A gateway's way to Temporal: it starts without it, and finds it when it is needed."""

import asyncio
from typing import Final

from temporalio.client import Client

from kernel.errors import Unavailable
from mallbots.settings import Settings
from mallbots.temporal import connect, tls_config
from workflows.client import OrderSagas
from workflows.shopping import ShoppingSteps

_CONNECT_TIMEOUT: Final = 3.0


class TemporalDoor:
    """One client of Temporal for a process, connected when it is first asked for.

    Raises `Misconfigured` at once if a file of its TLS is no good.
    """

    def __init__(self, settings: Settings) -> None:
        tls_config(settings)
        self._settings = settings
        self._connecting: asyncio.Task[Client] | None = None

    async def client(self) -> Client:
        """The client. Raises `Unavailable` while Temporal does not answer."""
        # One attempt for all who wait. A client that connected once reconnects by itself.
        attempt = self._connecting
        if attempt is None or (attempt.done() and (attempt.cancelled() or attempt.exception())):
            attempt = self._connecting = asyncio.create_task(
                asyncio.wait_for(connect(self._settings), _CONNECT_TIMEOUT)
            )
        try:
            return await asyncio.shield(attempt)
        except TimeoutError as error:
            raise Unavailable("Temporal does not answer") from error

    async def sagas(self) -> OrderSagas:
        """The orders' sagas. Raises `Unavailable` while Temporal does not answer."""
        return OrderSagas(await self.client())

    async def steps(self) -> ShoppingSteps:
        """The steps that robots complete. Raises `Unavailable` while Temporal does not answer."""
        return ShoppingSteps(await self.client())

    async def close(self) -> None:
        """Give up connecting, and let a client's threads come to rest."""
        if self._connecting is not None:
            self._connecting.cancel()
            # Without this pause a process that used a Temporal client may abort while the interpreter ends
            # (temporalio/sdk-python#300).
            await asyncio.sleep(0.05)

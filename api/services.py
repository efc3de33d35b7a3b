"""What the gateways stand on: the databases and Temporal, opened once a process and only when first needed,
so that the API starts while they are away and recovers by itself."""

import asyncio
import logging
from collections.abc import Awaitable
from datetime import timedelta
from typing import Final

from temporalio.client import Client

from api.keys import ApiKeys
from api.kiosk.idempotency import IdempotencyKeys
from api.live.hub import Hub
from consumers.analytics.queries import Analytics
from consumers.trail.consumer import Trail
from domains.orders.service import Orders
from domains.stores.service import Stores
from kernel.database import Database
from kernel.errors import MallError, Unavailable
from mallbots.settings import DatabaseName, Settings
from mallbots.temporal import connect
from workflows.client import OrderSagas

_CONNECT_TIMEOUT: Final = 3.0
_CHECK_TIMEOUT: Final = 2.0
_NEEDED_TO_ORDER: Final[tuple[DatabaseName, ...]] = ("orders", "stores", "kiosks")
_FOR_STAFF: Final[tuple[DatabaseName, ...]] = ("staff", "trail", "analytics")

_log = logging.getLogger(__name__)


class Services:
    """The services of one API process. Raises `Misconfigured` if a database or NATS has no URL."""

    def __init__(self, settings: Settings) -> None:
        self._databases: dict[DatabaseName, Database] = {
            name: Database(name, settings.database_url(name), pool_size=settings.database_pool_size)
            for name in (*_NEEDED_TO_ORDER, *_FOR_STAFF)
        }
        self.currency = settings.currency
        self.answer_timeout = timedelta(seconds=settings.answer_timeout)
        self.orders = Orders(self._databases["orders"])
        self.stores = Stores(self._databases["stores"])
        self.kiosk_keys = ApiKeys(self._databases["kiosks"], "kiosks")
        self.staff_keys = ApiKeys(self._databases["staff"], "staff")
        self.analytics = Analytics(self._databases["analytics"])
        self.trail = Trail(self._databases["trail"])
        self.idempotency_keys = IdempotencyKeys(self._databases["kiosks"])
        self.hub = Hub(settings.nats_address())
        self._settings = settings
        self._connecting: asyncio.Task[Client] | None = None

    async def sagas(self) -> OrderSagas:
        """The orders' sagas. Raises `Unavailable` while Temporal does not answer."""
        return OrderSagas(await self._temporal())

    async def check(self) -> dict[str, str]:
        """Everything that ordering depends on by name: `ok`, or what is wrong with it."""
        checks = {str(name): self._databases[name].ping() for name in _NEEDED_TO_ORDER}
        checks["temporal"] = self._ping_temporal()
        return dict(zip(checks, await asyncio.gather(*map(_outcome, checks.values())), strict=True))

    async def close(self) -> None:
        """Give everything back."""
        for database in self._databases.values():
            await database.close()
        if self._connecting is not None:
            self._connecting.cancel()
            # Without this pause a process that used a Temporal client may abort while the interpreter ends
            # (temporalio/sdk-python#300).
            await asyncio.sleep(0.05)

    async def _temporal(self) -> Client:
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

    async def _ping_temporal(self) -> None:
        if not await (await self._temporal()).service_client.check_health():
            raise Unavailable("Temporal is not serving")


async def _outcome(check: Awaitable[None]) -> str:
    try:
        await asyncio.wait_for(check, _CHECK_TIMEOUT)
    except MallError as error:
        return error.message
    except TimeoutError:
        return f"no answer within {_CHECK_TIMEOUT:g} s"
    except Exception as error:
        # Anybody may ask; what the driver says is for operators.
        _log.warning("a dependency is not ready", exc_info=error)
        return type(error).__name__
    return "ok"

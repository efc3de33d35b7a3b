"""What the gateways stand on: the databases and Temporal, opened once a process and only when first needed,
so that the API starts while they are away and recovers by itself."""

import asyncio
import logging
from collections.abc import Awaitable
from datetime import timedelta
from typing import Final

from api.keys import ApiKeys
from api.kiosk.idempotency import IdempotencyKeys
from api.live.hub import Hub
from api.temporal import TemporalDoor
from consumers.analytics.queries import Analytics
from consumers.trail.consumer import Trail
from domains.orders.service import Orders
from domains.payments.service import Payments
from domains.stores.service import Stores
from kernel.database import Database
from kernel.errors import MallError, Unavailable
from mallbots.payment_provider import payment_provider
from mallbots.settings import DatabaseName, Settings
from workflows.client import OrderSagas
from workflows.messages import PickupRules

_CHECK_TIMEOUT: Final = 2.0
_NEEDED_TO_ORDER: Final[tuple[DatabaseName, ...]] = ("orders", "stores", "kiosks")
_FOR_STAFF: Final[tuple[DatabaseName, ...]] = ("staff", "trail", "analytics", "payments")

_log = logging.getLogger(__name__)


class Services:
    """The services of one API process. Raises `Misconfigured` if a database or NATS has no URL."""

    def __init__(self, settings: Settings) -> None:
        self._databases: dict[DatabaseName, Database] = {}

        def database(name: DatabaseName) -> Database:
            if name not in self._databases:
                url, pool_size = settings.database_url(name), settings.database_pool_size
                self._databases[name] = Database(name, url, pool_size=pool_size)
            return self._databases[name]

        for name in (*_NEEDED_TO_ORDER, *_FOR_STAFF):
            database(name)
        self.currency = settings.currency
        self.answer_timeout = timedelta(seconds=settings.answer_timeout)
        self.pickup_rules = PickupRules(
            window=timedelta(hours=settings.pickup_window_hours),
            reminders=[timedelta(hours=hours) for hours in settings.pickup_reminder_hours],
        )
        self.robot_silence = timedelta(seconds=settings.robot_silence)
        self.orders = Orders(self._databases["orders"])
        self.stores = Stores(self._databases["stores"])
        self.payments = Payments(database("payments"), payment_provider(settings, database))
        self.stripe_webhook_secret = settings.stripe_webhook_secret
        self.kiosk_keys = ApiKeys(self._databases["kiosks"], "kiosks")
        self.staff_keys = ApiKeys(self._databases["staff"], "staff")
        self.analytics = Analytics(self._databases["analytics"])
        self.trail = Trail(self._databases["trail"])
        self.idempotency_keys = IdempotencyKeys(self._databases["kiosks"])
        self.hub = Hub(settings.nats_address())
        self._door = TemporalDoor(settings)

    async def sagas(self) -> OrderSagas:
        """The orders' sagas. Raises `Unavailable` while Temporal does not answer."""
        return OrderSagas(await self._door.client())

    async def check(self) -> dict[str, str]:
        """Everything that ordering depends on by name: `ok`, or what is wrong with it."""
        checks = {str(name): self._databases[name].ping() for name in _NEEDED_TO_ORDER}
        checks["temporal"] = self._ping_temporal()
        return dict(zip(checks, await asyncio.gather(*map(_outcome, checks.values())), strict=True))

    async def close(self) -> None:
        """Give everything back."""
        for database in self._databases.values():
            await database.close()
        await self._door.close()

    async def _ping_temporal(self) -> None:
        if not await (await self._door.client()).service_client.check_health():
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

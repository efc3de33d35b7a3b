"""What the gateways stand on: the databases and Temporal, opened once a process and only when first needed,
so that the API starts while they are away and recovers by itself."""

import asyncio
import logging
from collections.abc import Awaitable
from datetime import timedelta
from typing import Final

from temporalio.service import RPCError

from api.keys import ApiKeys
from api.kiosk.idempotency import IdempotencyKeys
from api.live.hub import Hub
from api.staff.accounts import Accounts
from api.staff.acts import Acts
from api.staff.provider import Provider
from api.staff.remembered import Remembered
from api.temporal import TemporalDoor
from consumers.analytics.queries import Analytics
from consumers.notifications.service import Notifications
from consumers.trail.consumer import Trail
from consumers.watch import Watch
from domains.depot.service import Depot
from domains.orders.service import Orders
from domains.payments.service import Payments
from domains.stores.service import Stores
from kernel.database import Database
from kernel.errors import MallError, Unavailable
from mallbots.payment_provider import payment_provider
from mallbots.settings import DatabaseName, Settings
from workflows.client import OrderSagas, as_unavailable
from workflows.messages import PickupRules
from workflows.operators import StuckSagas

_CHECK_TIMEOUT: Final = 2.0
_NEEDED_TO_ORDER: Final[tuple[DatabaseName, ...]] = ("orders", "stores", "kiosks")
_FOR_STAFF: Final[tuple[DatabaseName, ...]] = (
    "staff",
    "robots",
    "depot",
    "payments",
    "trail",
    "notifications",
    "analytics",
)

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
        self.settings = settings
        self.currency = settings.currency
        self.answer_timeout = timedelta(seconds=settings.answer_timeout)
        self.pickup_rules = PickupRules(
            window=timedelta(hours=settings.pickup_window_hours),
            reminders=[timedelta(hours=hours) for hours in settings.pickup_reminder_hours],
        )
        self.robot_silence = timedelta(seconds=settings.robot_silence)
        self.orders = Orders(self._databases["orders"])
        self.stores = Stores(self._databases["stores"])
        self.depot = Depot(self._databases["depot"], silent_after=settings.robot_silence)
        self.payments = Payments(database("payments"), payment_provider(settings, database))
        self.stripe_webhook_secret = settings.stripe_webhook_secret
        self.kiosk_keys = ApiKeys(self._databases["kiosks"], "kiosks")
        self.service_keys = ApiKeys(self._databases["staff"], "staff")
        self.known_services = Remembered(self.service_keys.principal_of)
        self.acts = Acts(self._databases["staff"])
        self.accounts = Accounts(self._databases["staff"], session_hours=settings.session_hours)
        self.provider = Provider.of(settings)
        self.robot_tokens = ApiKeys(self._databases["robots"], "robots")
        self.notifications = Notifications(self._databases["notifications"])
        self.analytics = Analytics(self._databases["analytics"])
        self.trail = Trail(self._databases["trail"])
        self.idempotency_keys = IdempotencyKeys(self._databases["kiosks"])
        self.hub = Hub(settings.nats_address())
        self.watch = Watch(settings.nats_address(), self.database)
        self._door = TemporalDoor(settings)

    async def sagas(self) -> OrderSagas:
        """The orders' sagas. Raises `Unavailable` while Temporal does not answer."""
        return OrderSagas(await self._door.client())

    async def operators(self) -> StuckSagas:
        """The sagas that are stuck. Raises `Unavailable` while Temporal does not answer."""
        return StuckSagas(await self._door.client())

    def database(self, name: DatabaseName) -> Database:
        """One of the databases that this process has opened."""
        return self._databases[name]

    async def check(self) -> dict[str, str]:
        """Everything that ordering depends on by name: `ok`, or what is wrong with it."""
        checks = {str(name): self._databases[name].ping() for name in _NEEDED_TO_ORDER}
        checks["temporal"] = self.ping_temporal()
        return dict(zip(checks, await asyncio.gather(*map(_outcome, checks.values())), strict=True))

    async def close(self) -> None:
        """Give everything back."""
        if self.provider is not None:
            await self.provider.close()
        for database in self._databases.values():
            await database.close()
        await self._door.close()

    async def ping_temporal(self) -> None:
        """Return if Temporal serves; raise `Unavailable` if not."""
        client = await self._door.client()
        try:
            is_serving = await client.service_client.check_health()
        except RPCError as error:
            raise as_unavailable(error) from error
        if not is_serving:
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

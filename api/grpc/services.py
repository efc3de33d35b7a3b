"""What the gRPC gateways work with."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

from api.keys import ApiKeys
from api.robots.gateway import RobotGateway
from api.staff.acts import Acts
from api.temporal import TemporalDoor
from domains.depot.service import Depot
from domains.orders.service import Orders
from domains.payments.messages import PaymentView
from domains.payments.sandbox import Sandbox
from domains.payments.service import Payments
from domains.stores.service import Stores
from kernel.database import Database
from mallbots.settings import DatabaseName, Settings
from workflows.client import OrderSagas

_DATABASES: Final[tuple[DatabaseName, ...]] = ("orders", "stores", "payments", "depot", "staff", "robots")


@dataclass(frozen=True)
class GrpcServices:
    """Everything that the methods call."""

    orders: Orders
    stores: Stores
    depot: Depot
    payment: Callable[[UUID], Awaitable[PaymentView | None]]
    sagas: Callable[[], Awaitable[OrderSagas]]
    robots: RobotGateway
    service_keys: ApiKeys
    robot_tokens: ApiKeys
    acts: Acts
    answer_timeout: timedelta


@asynccontextmanager
async def grpc_services(settings: Settings) -> AsyncIterator[GrpcServices]:
    """The services of a process, closed behind the block; PostgreSQL and Temporal may be away at first.

    Raises `Misconfigured` if a database has no URL.
    """
    databases = {
        name: Database(name, settings.database_url(name), pool_size=settings.database_pool_size)
        for name in _DATABASES
    }
    temporal = TemporalDoor(settings)
    depot = Depot(databases["depot"], silent_after=settings.robot_silence)
    # Payments are only read here: whichever provider takes them, it is not asked.
    payments = Payments(databases["payments"], Sandbox(databases["payments"]))
    try:
        yield GrpcServices(
            orders=Orders(databases["orders"]),
            stores=Stores(databases["stores"]),
            depot=depot,
            payment=payments.view,
            sagas=temporal.sagas,
            robots=RobotGateway(depot, databases["depot"], temporal.steps),
            service_keys=ApiKeys(databases["staff"], "staff"),
            robot_tokens=ApiKeys(databases["robots"], "robots"),
            acts=Acts(databases["staff"]),
            answer_timeout=timedelta(seconds=settings.answer_timeout),
        )
    finally:
        for database in databases.values():
            await database.close()
        await temporal.close()

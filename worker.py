"""The Temporal workers: of all domains, or of those that are named.

`python worker.py` runs everything; `python worker.py --domain stores --domain depot` runs two of the domains;
`--domain workflows` runs the sagas themselves, without any domain's steps.
"""

import asyncio
import inspect
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any, Final

import uvloop
from temporalio.client import Client
from temporalio.common import VersioningBehavior, WorkerDeploymentVersion
from temporalio.worker import Worker, WorkerDeploymentConfig
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from activities.depot import DepotActivities
from activities.interceptor import StepInterceptor
from activities.orders import OrderActivities
from activities.payments import PaymentActivities
from activities.stores import StoreActivities
from domains.depot.service import Depot
from domains.orders.service import Orders
from domains.payments.service import Payments
from domains.stores.service import Stores
from kernel.database import Database
from mallbots.heartbeat import heartbeat
from mallbots.logs import configure_logging
from mallbots.payment_provider import payment_provider
from mallbots.settings import DatabaseName, Settings
from mallbots.telemetry import configure_metrics
from mallbots.temporal import connect
from mallbots.tracing import tracing
from workflows.order import OrderWorkflow
from workflows.refund import RefundWorkflow
from workflows.steps import UNDOS, WORKFLOW_QUEUE

# A killed worker's workflows wait this long for it before another takes them; the default is 10 s.
STICKY_TIMEOUT: Final = timedelta(seconds=1)
GRACE: Final = timedelta(seconds=5)
# The sandbox would import the story anew for every order; it holds no state, so once is enough.
RUNNER: Final = SandboxedWorkflowRunner(
    restrictions=SandboxRestrictions.default.with_passthrough_modules("workflows")
)

Databases = Callable[[DatabaseName], Database]


def _orders(settings: Settings, database: Databases) -> object:
    return OrderActivities(Orders(database("orders")))


def _stores(settings: Settings, database: Databases) -> object:
    return StoreActivities(Stores(database("stores")))


def _payments(settings: Settings, database: Databases) -> object:
    return PaymentActivities(Payments(database("payments"), payment_provider(settings, database)))


def _depot(settings: Settings, database: Databases) -> object:
    return DepotActivities(Depot(database("depot"), silent_after=settings.robot_silence))


DOMAINS: Final[dict[str, Callable[[Settings, Databases], object]]] = {
    "orders": _orders,
    "stores": _stores,
    "payments": _payments,
    "depot": _depot,
}
CHOICES: Final = (WORKFLOW_QUEUE, *DOMAINS)


def activities_of(domain: str, settings: Settings, database: Databases) -> list[Callable[..., Any]]:
    """Every activity that a domain offers; none for the workflows' own queue."""
    if domain not in DOMAINS:
        return []
    offered = inspect.getmembers(DOMAINS[domain](settings, database), inspect.ismethod)
    return [method for name, method in offered if not name.startswith("_")]


def _undos_of(domain: str) -> frozenset[str]:
    return frozenset(undo for undo in UNDOS if undo.partition(".")[0] == domain)


def versioning(settings: Settings, queue: str) -> WorkerDeploymentConfig | None:
    """How the worker of a queue is versioned: workflows stay on the build that began them. Steps are not of any
    version: each takes the commands of all."""
    if settings.worker_build_id is None or queue != WORKFLOW_QUEUE:
        return None
    return WorkerDeploymentConfig(
        version=WorkerDeploymentVersion(settings.worker_deployment, settings.worker_build_id),
        use_worker_versioning=True,
        default_versioning_behavior=VersioningBehavior.PINNED,
    )


def run(domains: Sequence[str] = ()) -> None:
    """Run the workers of these domains (of all, if none is named) until SIGTERM or Ctrl-C."""
    settings = Settings.load()
    configure_logging(settings)
    configure_metrics(settings)
    with tracing(settings, "-".join(["worker", *domains])):
        uvloop.run(_run_until_signal(settings, domains or CHOICES))


async def _run_until_signal(settings: Settings, domains: Sequence[str]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    client = await connect(settings)
    await run_workers(client, settings, domains, until=stop.wait)
    # Without this pause a process that used a Temporal client may abort while the interpreter ends
    # (temporalio/sdk-python#300).
    await asyncio.sleep(0.05)


async def run_workers(
    client: Client, settings: Settings, domains: Sequence[str], until: Callable[[], Awaitable[Any]]
) -> None:
    """Run a worker for each of the domains (and `workflows`) until `until` returns; then let them finish."""
    async with AsyncExitStack() as stack:
        opened: dict[DatabaseName, Database] = {}

        def database(name: DatabaseName) -> Database:
            if name not in opened:
                opened[name] = Database(name, settings.database_url(name), pool_size=settings.database_pool_size)
                stack.push_async_callback(opened[name].close)
            return opened[name]

        for domain in domains:
            await stack.enter_async_context(
                Worker(
                    client,
                    task_queue=domain,
                    workflows=[OrderWorkflow, RefundWorkflow] if domain == WORKFLOW_QUEUE else [],
                    activities=activities_of(domain, settings, database),
                    workflow_runner=RUNNER,
                    interceptors=[StepInterceptor(_undos_of(domain))],
                    sticky_queue_schedule_to_start_timeout=STICKY_TIMEOUT,
                    graceful_shutdown_timeout=GRACE,
                    max_concurrent_activities=settings.activity_slots,
                    deployment_config=versioning(settings, domain),
                )
            )
        async with heartbeat(settings.ready_file):
            await until()


if __name__ == "__main__":
    from mallbots.cli import main

    sys.argv[1:1] = ["worker"]
    main()

"""The API: every gateway in one application. `uvicorn --factory api.app:create_app`, or `mallbots api`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.middleware.gzip import GZipMiddleware
from fastapi.openapi.utils import get_openapi

from api.docs import docs_page
from api.endpoints import ServicesDependency
from api.figures import Told, tell_figures
from api.kiosk.routes import router as kiosk_router
from api.kiosk.schemas import Health, Readiness
from api.metrics import RequestMetrics
from api.problems import Problem, install_problems
from api.services import Services
from api.staff.access import whoever_asks
from api.staff.accounts_routes import router as staff_accounts_router
from api.staff.analytics import router as staff_analytics_router
from api.staff.board import router as staff_board_router
from api.staff.catalog import router as staff_catalog_router
from api.staff.events import router as staff_events_router
from api.staff.keys import router as staff_keys_router
from api.staff.orders import router as staff_orders_router
from api.staff.resources import add_actions
from api.staff.robots import router as staff_robots_router
from api.staff.routes import router as staff_router
from api.staff.stores import router as staff_stores_router
from api.staff.stuck import router as staff_stuck_router
from api.tracing import SPANS, TraceContext
from api.web.me import router as me_router
from api.web.routes import router as pages_router
from api.web.sign_in import router as sign_in_router
from api.webhooks.stripe import router as stripe_webhook_router
from kernel.errors import Unauthenticated, Unavailable
from mallbots.settings import Settings

_DESCRIPTION = """Kiosks show the catalogue and order from it. An order is one durable saga: it is approved \
or refused as a whole, and whatever fails on the way is tried again or undone.

Every error is a problem (RFC 9457) with a stable `code`."""

_TAGS = [
    {"name": "Catalogue", "description": "What the mall sells, at which price."},
    {"name": "Orders", "description": "Order, see how the order is, cancel it."},
    {"name": "Staff", "description": "What staff see of orders and do with them."},
    {"name": "Stores", "description": "Stock, prices and stores: the daily work of staff."},
    {"name": "Robots", "description": "Where robots are, and what staff let them do."},
    {"name": "Operators", "description": "What is stuck, and what can be done about it."},
    {"name": "Analytics", "description": "Numbers about the mall, made of its events."},
    {
        "name": "Access",
        "description": "Who may come in, and what was done and refused: for managers and operators.",
    },
    {"name": "Webhooks", "description": "For the payment provider: what happened to a payment."},
    {"name": "Health", "description": "For whoever runs the mall; no key is needed."},
]


_HUB_ENDS_WITHIN = 1.0
_WORTH_COMPRESSING = 1_000


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application. It starts also while PostgreSQL, NATS or Temporal is away, and answers 503 until then.

    Settings are loaded from the environment if not given. Raises `Misconfigured` if a database or NATS has no URL.
    """
    services = Services(settings or Settings.load())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        beside = {asyncio.create_task(services.hub.run())}
        if services.settings.metrics_port is not None:
            told = Told()
            told.begin()
            beside.add(asyncio.create_task(tell_figures(services, told)))
        yield
        for task in beside:
            task.cancel()
        await asyncio.wait(beside, timeout=_HUB_ENDS_WITHIN)
        await services.close()

    app = FastAPI(
        title="MallBots",
        version="1",
        description=_DESCRIPTION,
        openapi_tags=_TAGS,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        strict_content_type=False,
        lifespan=lifespan,
        telemetry=SPANS,
    )
    app.state.services = services
    app.add_middleware(GZipMiddleware, minimum_size=_WORTH_COMPRESSING, compresslevel=5)
    app.add_middleware(TraceContext)
    if services.settings.metrics_port is not None:
        app.add_middleware(RequestMetrics)
    install_problems(app)
    app.include_router(kiosk_router)
    app.include_router(staff_router)
    app.include_router(staff_keys_router)
    app.include_router(staff_accounts_router)
    app.include_router(staff_orders_router)
    app.include_router(staff_board_router)
    app.include_router(staff_stores_router)
    app.include_router(staff_stuck_router)
    app.include_router(staff_robots_router)
    app.include_router(staff_catalog_router)
    app.include_router(stripe_webhook_router)
    app.include_router(staff_analytics_router)
    app.include_router(staff_events_router)
    app.include_router(pages_router)
    app.include_router(sign_in_router)
    app.include_router(me_router)
    _add_health(app)
    _describe(app)
    return app


def _add_health(app: FastAPI) -> None:
    @app.get(
        "/healthz",
        operation_id="isAlive",
        summary="Whether the process lives",
        response_description="It does",
        tags=["Health"],
    )
    async def is_alive() -> Health:
        """Says nothing of what it depends on: restarting it would not mend that."""
        return Health()

    @app.get(
        "/healthz/ready",
        operation_id="isReady",
        summary="Whether orders can be taken",
        response_description="They can",
        tags=["Health"],
        response_model_exclude_none=True,
        responses={503: {"model": Readiness, "description": "Some dependency is away"}},
    )
    async def is_ready(services: ServicesDependency, request: Request, response: Response) -> Readiness:
        """Whether, for everybody; every dependency by name, for who may see what is stuck."""
        dependencies = await services.check()
        ready = all(outcome == "ok" for outcome in dependencies.values())
        response.status_code = 200 if ready else 503
        told = dependencies if await _may_see_what_is_stuck(request, services) else None
        return Readiness(status="ready" if ready else "not ready", dependencies=told)


async def _may_see_what_is_stuck(request: Request, services: Services) -> bool:
    try:
        return (await whoever_asks(request, services)).may("stuck.read")
    except (Unauthenticated, Unavailable):
        return False


def _describe(app: FastAPI) -> None:
    """Serve the OpenAPI document with our problems in it, and a page that people can read made from it."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                tags=app.openapi_tags,
                routes=app.routes,
            )
            problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas = document["components"]["schemas"]
            schemas |= problem.pop("$defs") | {"Problem": problem}
            add_actions(document, app.routes)
            app.openapi_schema = document
        return app.openapi_schema

    # Assigned, as FastAPI documents it.
    app.openapi = openapi  # type: ignore[method-assign]

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return docs_page(app.openapi())

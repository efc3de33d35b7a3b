"""The API: every gateway in one application. `uvicorn --factory api.app:create_app`, or `mallbots api`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Response
from fastapi.openapi.utils import get_openapi

from api.docs import docs_page
from api.endpoints import ServicesDependency
from api.kiosk.routes import router as kiosk_router
from api.kiosk.schemas import Health, Readiness
from api.problems import Problem, install_problems
from api.services import Services
from api.staff.analytics import router as staff_analytics_router
from api.staff.events import router as staff_events_router
from api.staff.orders import router as staff_orders_router
from api.staff.routes import router as staff_router
from api.staff.stores import router as staff_stores_router
from api.tracing import TraceContext
from api.webhooks.stripe import router as stripe_webhook_router
from mallbots.settings import Settings

_DESCRIPTION = """Kiosks show the catalogue and order from it. An order is one durable saga: it is approved \
or refused as a whole, and whatever fails on the way is tried again or undone.

Every error is a problem (RFC 9457) with a stable `code`."""

_TAGS = [
    {"name": "Catalogue", "description": "What the mall sells, at which price."},
    {"name": "Orders", "description": "Order, see how the order is, cancel it."},
    {"name": "Staff", "description": "What staff see of orders and do with them, by a key of staff."},
    {"name": "Stores", "description": "Stock, prices and stores: the daily work of staff, by a key of staff."},
    {"name": "Analytics", "description": "Numbers about the mall, made of its events, by a key of staff."},
    {"name": "Webhooks", "description": "For the payment provider: what happened to a payment."},
    {"name": "Health", "description": "For whoever runs the mall; no key is needed."},
]


_HUB_ENDS_WITHIN = 1.0


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application. It starts also while PostgreSQL, NATS or Temporal is away, and answers 503 until then.

    Settings are loaded from the environment if not given. Raises `Misconfigured` if a database or NATS has no URL.
    """
    services = Services(settings or Settings.load())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        following = asyncio.create_task(services.hub.run())
        yield
        following.cancel()
        await asyncio.wait({following}, timeout=_HUB_ENDS_WITHIN)
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
    )
    app.state.services = services
    app.add_middleware(TraceContext)
    install_problems(app)
    app.include_router(kiosk_router)
    app.include_router(staff_router)
    app.include_router(staff_orders_router)
    app.include_router(staff_stores_router)
    app.include_router(stripe_webhook_router)
    app.include_router(staff_analytics_router)
    app.include_router(staff_events_router)
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
        "/readyz",
        operation_id="isReady",
        summary="Whether orders can be taken",
        response_description="They can",
        tags=["Health"],
        responses={503: {"model": Readiness, "description": "Some dependency is away"}},
    )
    async def is_ready(services: ServicesDependency, response: Response) -> Readiness:
        """Every dependency by name."""
        dependencies = await services.check()
        ready = all(outcome == "ok" for outcome in dependencies.values())
        response.status_code = 200 if ready else 503
        return Readiness(status="ready" if ready else "not ready", dependencies=dependencies)


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
            app.openapi_schema = document
        return app.openapi_schema

    # Assigned, as FastAPI documents it.
    app.openapi = openapi  # type: ignore[method-assign]

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return docs_page(app.openapi())

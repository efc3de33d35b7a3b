"""An API over a real database, and browsers that speak to it without a network."""

from collections.abc import AsyncIterator, Callable

import httpx
import pytest
from argon2 import PasswordHasher
from fastapi import FastAPI
from pydantic import SecretStr

from api.app import create_app
from api.services import Services
from api.staff.accounts import Accounts
from kernel.database import Database
from mallbots.settings import DATABASES, Settings

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
PASSWORD = "a long enough password"
Browser = Callable[..., httpx.AsyncClient]


def settings_for(database: Database, **more: object) -> Settings:
    """The settings of an API over this database, whose other servers are away."""
    url = SecretStr(database.engine.url.render_as_string(hide_password=False))
    nowhere = {"nats_url": SecretStr("nats://127.0.0.1:1"), "temporal_address": "127.0.0.1:1"}
    urls = {f"{name}_database_url": url for name in DATABASES}
    return Settings.model_validate(urls | nowhere | {"api_url": "http://mall", "database_pool_size": 2} | more)


def an_app(database: Database, **more: object) -> FastAPI:
    """An API over this database. Passwords are hashed cheaply."""
    settings = settings_for(database, **more)
    app = create_app(settings)
    services: Services = app.state.services
    services.accounts = Accounts(database, session_hours=settings.session_hours, hasher=CHEAP)
    return app


def a_browser(app: FastAPI, *, address: str = "198.51.100.7", **headers: str) -> httpx.AsyncClient:
    """A browser of its own, with its own cookies, that is on a page of the mall."""
    url = str(app.state.services.settings.api_url)
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app, raise_app_exceptions=False, client=(address, 50_000)),
        base_url=url,
        headers={"Origin": url, **headers},
    )


async def sign_in(
    browser: httpx.AsyncClient, name: str, password: str = PASSWORD, **fields: str
) -> httpx.Response:
    """Send the form of the sign-in page."""
    return await browser.post("/sign-in", data={"name": name, "password": password, **fields})


@pytest.fixture
async def mall(fresh_database: Database) -> AsyncIterator[FastAPI]:
    """An API with two accounts: mia, a manager, and dan of the desk."""
    app = an_app(fresh_database)
    accounts: Accounts = app.state.services.accounts
    await accounts.create("mia", ["manager"], PASSWORD)
    await accounts.create("dan", ["desk"], PASSWORD)
    yield app
    await app.state.services.close()

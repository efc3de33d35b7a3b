"""PostgreSQL by TLS, by settings and by a URL's own words."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import pytest
from pydantic import SecretStr

from kernel.database import Database
from kernel.errors import Misconfigured, Unavailable
from mallbots.migrations import migrate_database
from mallbots.settings import Settings
from tests.tls.certificates import Certificates
from tests.tls.servers import DatabaseByTls


@pytest.fixture
def settings(database: DatabaseByTls, certificates: Certificates) -> Settings:
    return Settings(
        orders_database_url=SecretStr(database.url),
        database_tls_ca=certificates.ours.ca,
        database_tls_certificate=certificates.client.certificate,
        database_tls_key=certificates.client.key,
    )


@asynccontextmanager
async def orders(settings: Settings, **changes: Any) -> AsyncIterator[Database]:
    url = settings.model_copy(update=changes).database_url("orders")
    database = Database("orders", url, pool_size=1)
    try:
        yield database
    finally:
        await database.close()


async def test_by_settings_every_connection_is_by_tls_and_with_our_certificate(
    settings: Settings, database: DatabaseByTls
) -> None:
    async with orders(settings) as opened:
        await opened.ping()
        assert database.seen.pop() == "mallbots"
        async with opened.session() as session:
            await session.execute("LISTEN something")
        assert database.seen.pop() == "mallbots"
    await migrate_database("orders", settings.database_url("orders"))
    assert database.seen.pop() == "mallbots"


async def test_a_url_may_say_itself_how_tls_is_spoken(
    settings: Settings, database: DatabaseByTls, certificates: Certificates
) -> None:
    """As psql and every other program that takes such URLs understands it."""
    words = {
        "sslmode": "verify-full",
        "sslrootcert": certificates.ours.ca,
        "sslcert": certificates.client.certificate,
        "sslkey": certificates.client.key,
    }
    itself = SecretStr(f"{database.url}?{urlencode(words)}")
    missing = SecretStr(f"{database.url}?{urlencode(words | {'sslrootcert': '/no/such/ca.pem'})}")
    nothing = dict.fromkeys(("database_tls_ca", "database_tls_certificate", "database_tls_key"))
    async with orders(settings, orders_database_url=itself, **nothing) as opened:
        await opened.ping()
    async with orders(settings, orders_database_url=missing) as opened:
        with pytest.raises(Misconfigured, match=r"orders database: /no/such/ca\.pem can not be read"):
            await opened.ping()


async def test_what_is_wrong_with_a_database_is_said_in_one_line(
    settings: Settings, database: DatabaseByTls, certificates: Certificates
) -> None:
    async def fault(**changes: Any) -> str:
        async with orders(settings, **changes) as opened:
            with pytest.raises(Unavailable) as refused:
                await opened.ping()
            with pytest.raises(Unavailable, match="the orders database"):
                async with opened.session():
                    pass
        return refused.value.message

    nobody = {"database_tls_certificate": None, "database_tls_key": None}
    stranger = {
        "database_tls_certificate": certificates.stranger.certificate,
        "database_tls_key": certificates.stranger.key,
    }
    elsewhere = SecretStr(database.url.replace("127.0.0.1", "localhost"))
    plainly = SecretStr(f"{database.url}?sslmode=disable")
    password = SecretStr(database.url.replace("mallbots:", "mallbots:not-"))
    assert "its certificate is not trusted" in await fault(database_tls_ca=certificates.strangers.ca)
    assert "Hostname mismatch" in await fault(orders_database_url=elsewhere)
    assert "it wants a client's certificate" in await fault(**nobody)
    assert "does it want another certificate of us?" in await fault(**stranger)
    assert "it is to be spoken to by TLS" in await fault(orders_database_url=plainly)
    assert "the user or password of its URL is wrong" in await fault(orders_database_url=password)


async def test_a_renewed_certificate_is_used_for_the_next_connection(
    settings: Settings, certificates: Certificates
) -> None:
    own = certificates.ours.pair("renewed", "client.example", common_name="mallbots")
    changes = {"database_tls_certificate": own.certificate, "database_tls_key": own.key}
    async with orders(settings, **changes) as opened:
        await opened.ping()
        own.replace_by(certificates.strangers.pair("renewed", "client.example", common_name="mallbots"))
        await opened.ping()  # on the connection that is there
        await opened.close()
        with pytest.raises(Unavailable, match="another certificate of us"):
            await opened.ping()

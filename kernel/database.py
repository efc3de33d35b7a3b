"""A domain's door to its PostgreSQL: one pool, short transactions, outages told as `Unavailable`."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, TypeAlias

import asyncpg
from sqlalchemy import event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, DisconnectionError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from kernel.errors import Misconfigured, Unavailable
from kernel.tls import HUNG_UP, trouble

# What asyncpg raises when the server went away; SQLAlchemy wraps some of them and not others.
_AWAY = (
    OSError,
    TimeoutError,
    PoolTimeout,
    InterfaceError,
    OperationalError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.PostgresSystemError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.LockNotAvailableError,
)
_HANGS_UP: Final = (ConnectionResetError, BrokenPipeError, asyncpg.ConnectionDoesNotExistError)
_FILES: Final = ("sslrootcert", "sslcert", "sslkey")


Session: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


async def connect(
    name: str,
    url: str,
    *,
    command_timeout: float | None = None,
    server_settings: dict[str, str] | None = None,
) -> Session:
    """A connection to the database that is called `name` in errors. The parameters of `url` are those of `libpq`,
    such as `?sslmode=verify-full&sslrootcert=…`; their files are read anew each time, so that they may be renewed.

    Raises `Unavailable` if it refuses us, or TLS with it fails; `Misconfigured` if the URL makes no sense, or a
    file that it names can not be read; and what asyncpg raises if the server is away.
    """
    address = make_url(url).set(drivername="postgresql")
    for file in (address.query.get(parameter) for parameter in _FILES):
        if file is not None and not os.access(str(file), os.R_OK):
            raise Misconfigured(f"TLS with the {name} database: {file} can not be read")
    try:
        return await asyncpg.connect(
            address.render_as_string(hide_password=False),
            timeout=5,
            command_timeout=command_timeout,
            server_settings=server_settings,
        )
    except asyncpg.InvalidAuthorizationSpecificationError as error:
        raise Unavailable(f"the {name} database refuses us: {_refusal(error)}") from error
    except (OSError, asyncpg.PostgresConnectionError) as error:
        wrong = trouble(error)
        if "rejected SSL upgrade" in str(error):
            wrong = "it does not speak it"
        elif wrong is None and "sslcert" in address.query and isinstance(error, _HANGS_UP):
            wrong = HUNG_UP
        if wrong is None:
            raise
        raise Unavailable(f"the {name} database can not be spoken to by TLS: {wrong}") from error
    except asyncpg.ClientConfigurationError as error:
        raise Misconfigured(f"the URL of the {name} database: {error}") from error


def _refusal(error: asyncpg.InvalidAuthorizationSpecificationError) -> str:
    """Why, without what only operators may know: the names of users and hosts."""
    said = str(error)
    if "certificate" in said:
        return "it wants a client's certificate, for the user of its URL"
    if "no encryption" in said:
        return "it is to be spoken to by TLS"
    return "the user or password of its URL is wrong, or may not connect from here"


class Database:
    """One database of one domain. Connections are made when first needed and pooled.

    `url` is `postgresql+asyncpg://…`, with the parameters of `libpq`; `name` appears in errors and as PostgreSQL's
    application name. A statement that takes more than `statement_timeout` seconds is given up, so that an
    activity's attempt ends before Temporal starts the next.
    """

    def __init__(self, name: str, url: str, *, pool_size: int = 8, statement_timeout: float = 8.0) -> None:
        self.name = name
        self._server_settings = {
            "application_name": f"mallbots-{name}",
            "jit": "off",
            "timezone": "UTC",
            # Whoever hangs in the middle of a transaction holds rows, and the relays of the whole server.
            "idle_in_transaction_session_timeout": "60s",
        }
        self._connect = partial(connect, name, url, server_settings=self._server_settings)
        self.engine: AsyncEngine = create_async_engine(
            url,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=statement_timeout,
            # Errors reach logs and traces, where no customer's name belongs.
            hide_parameters=True,
            async_creator=partial(self._connect, command_timeout=statement_timeout),
        )
        event.listen(self.engine.sync_engine.pool, "checkout", _replace_if_closed)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """A connection in a transaction: committed at the end, rolled back on any exception.

        Raises `Unavailable` when the server is away, also when that happens at the commit (whose effect is
        then unknown: repeat the whole, it is idempotent).
        """
        try:
            async with self.engine.begin() as connection:
                yield connection
        except _AWAY as error:
            raise Unavailable(f"the {self.name} database does not answer") from error
        except DBAPIError as error:
            # SQLAlchemy puts an error of its own between this one and the driver's.
            reason = error.orig and error.orig.__cause__
            if error.connection_invalidated or isinstance(reason, _AWAY):
                raise Unavailable(f"the {self.name} database does not answer") from error
            if isinstance(reason, asyncpg.TransactionRollbackError):
                raise Unavailable(f"the {self.name} database was asked for the same at once: try again") from error
            raise

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """A connection of its own, for what lasts as long as a connection does: LISTEN, and advisory locks.

        Raises `Unavailable` when the server is away, whenever that happens.
        """
        try:
            connection = await self._connect(command_timeout=8)
            try:
                yield connection
            finally:
                connection.terminate()
        # The last is what asyncpg makes of a server that ends the session while it is being used.
        except (*_AWAY, asyncpg.InternalClientError) as error:
            raise Unavailable(f"the {self.name} database does not answer") from error

    async def ping(self) -> None:
        """Return if the database answers; raise `Unavailable` if not."""
        async with self.transaction() as connection:
            await connection.execute(text("SELECT 1"))

    async def close(self) -> None:
        """Give all connections back."""
        await self.engine.dispose()


def _replace_if_closed(driver: Any, record: Any, proxy: Any) -> None:
    """Let the pool replace a connection that the server has closed. It is known without asking the server:
    SQLAlchemy's own ping costs three round trips."""
    if driver.driver_connection.is_closed():
        raise DisconnectionError

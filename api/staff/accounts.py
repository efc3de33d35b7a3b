"""The accounts of members of staff: who may sign in, by which password or provider, and with which roles."""

import asyncio
import re
import secrets
from collections.abc import Collection
from datetime import datetime
from typing import Any, Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from api.access import STAFF_ROLES, StaffRole
from api.keys import NAME
from api.staff.sessions import Sessions
from api.staff.throttle import Throttle
from kernel.database import Database
from kernel.errors import Conflict, Forbidden, InvalidInput, NotFound, Unauthenticated

SHORTEST_PASSWORD: Final = 12
LONGEST_PASSWORD: Final = 200

_HASHES_AT_ONCE: Final = 2

# One change of accounts at a time: of two managers that retire each other, one stays.
_LOCK = text("LOCK TABLE staff.accounts IN SHARE ROW EXCLUSIVE MODE")
_TAKEN = text("""
    SELECT EXISTS (SELECT FROM staff.accounts WHERE lower(name) = lower(:name))
        OR EXISTS (SELECT FROM staff.api_keys WHERE lower(name) = lower(:name)
            AND (revoked_at IS NULL OR revoked_at > statement_timestamp()))
""")
_ADD = text("""
    INSERT INTO staff.accounts (name, roles, password_hash, issuer, subject)
    VALUES (:name, :roles, :password_hash, :issuer, :subject)
""")
_ALL = text("""
    SELECT a.name, a.roles, a.created_at, a.disabled_at, a.issuer,
        count(s.token_hash) AS sessions, max(s.last_seen_at) AS last_seen_at
    FROM staff.accounts a LEFT JOIN staff.sessions s
        ON s.account = a.name AND s.last_seen_at > now() - :hours * interval '1 hour'
    WHERE CAST(:name AS varchar) IS NULL OR lower(a.name) = lower(:name)
    GROUP BY a.name ORDER BY lower(a.name)
""")
_ONE = text("SELECT * FROM staff.accounts WHERE lower(name) = lower(:name)")
_BY_SUBJECT = text("SELECT * FROM staff.accounts WHERE issuer = :issuer AND subject = :subject")
_SET_ROLES = text("UPDATE staff.accounts SET roles = :roles WHERE name = :name")
_DISABLE = text("UPDATE staff.accounts SET disabled_at = now() WHERE name = :name AND disabled_at IS NULL")
_ENABLE = text("UPDATE staff.accounts SET disabled_at = NULL WHERE name = :name")
_SET_PASSWORD = text("UPDATE staff.accounts SET password_hash = :password_hash WHERE name = :name")
_STILL_RIGHT = text("""
    UPDATE staff.accounts SET password_hash = :password_hash
    WHERE name = :name AND password_hash = :old_hash AND disabled_at IS NULL
""")
_HAS_MANAGER = text(
    "SELECT EXISTS (SELECT FROM staff.accounts WHERE disabled_at IS NULL AND 'manager' = ANY(roles))"
)


class Account(BaseModel):
    """What may be shown of an account. `issuer` is the provider that it signs in by, if not by a password."""

    name: str
    roles: list[StaffRole]
    created_at: datetime
    disabled_at: datetime | None
    issuer: str | None
    sessions: int
    last_seen_at: datetime | None


class Accounts:
    """The accounts in the database of staff. A name stays with whoever had it first: accounts are disabled, and
    never removed.

    `session_hours` is how long a session lasts that nobody uses; `hasher` is for tests, where time is short.
    """

    def __init__(
        self, database: Database, *, session_hours: float = 12, hasher: PasswordHasher | None = None
    ) -> None:
        self.sessions = Sessions(database, idle_hours=session_hours)
        self._database = database
        self._hours = session_hours
        self._throttle = Throttle(database)
        self._hasher = hasher or PasswordHasher()
        self._hashing = asyncio.Semaphore(_HASHES_AT_ONCE)
        self._nobodys_hash: str | None = None

    async def create(self, name: str, roles: Collection[str], password: str | None = None) -> str:
        """Add an account; its password, which is a random one if none is given.

        Raises `InvalidInput` for a bad name, password or role, and `Conflict` if somebody, or a service that has
        a key, is called so.
        """
        if not _is_name(name):
            raise InvalidInput("a name is 1 to 60 letters, digits, dots, dashes or underscores", "name")
        of_account = {"name": name, "roles": _roles(roles), "issuer": None, "subject": None}
        password = new_password() if password is None else password
        password_hash = await self._hash(password)
        async with self._database.transaction() as connection:
            await connection.execute(_LOCK)
            await _check_is_free(name, connection)
            await connection.execute(_ADD, {**of_account, "password_hash": password_hash})
        return password

    async def all(self) -> list[Account]:
        """Every account, by name."""
        async with self._database.transaction() as connection:
            rows = (await connection.execute(_ALL, {"hours": self._hours, "name": None})).mappings()
            return [Account.model_validate(dict(row)) for row in rows]

    async def account(self, name: str) -> Account:
        """One of them, whatever the case that the name is written in. Raises `NotFound`."""
        async with self._database.transaction() as connection:
            found = await connection.execute(_ALL, {"hours": self._hours, "name": name})
            row = found.mappings().one_or_none()
        if row is None:
            raise _nobody(name)
        return Account.model_validate(dict(row))

    async def change(
        self, name: str, *, roles: Collection[str] | None = None, disabled: bool | None = None
    ) -> Account:
        """Give an account these roles and no others, let it in no more (which ends its sessions), or again; the
        account then. What is not given stays. Open sessions have new roles at once, in other processes within
        seconds.

        Raises `NotFound`, `InvalidInput` for an unknown role or none, and `Conflict` if the mall would be left
        without a manager who can sign in, or if the roles come from a provider. Nothing is changed then.
        """
        wanted = None if roles is None else _roles(roles)
        async with self._database.transaction() as connection:
            account = await _locked(name, connection)
            if wanted is not None and account.issuer:
                raise Conflict(f"the roles of {account.name} come from {account.issuer} at every sign-in")
            if wanted is not None:
                await connection.execute(_SET_ROLES, {"name": account.name, "roles": wanted})
            if disabled is not None:
                await connection.execute(_DISABLE if disabled else _ENABLE, {"name": account.name})
            await _check_manager(account, connection)
            if disabled:
                await self.sessions.end_all(account.name, connection)
        self.sessions.forget()
        return await self.account(account.name)

    async def reset_password(self, name: str) -> str:
        """Give an account a new random password, and end all its sessions; the password.

        Raises `NotFound`, and `Conflict` if the account signs in by a provider."""
        password = new_password()
        password_hash = await self._hash(password)
        async with self._database.transaction() as connection:
            account = await _locked(name, connection)
            _check_has_password(account)
            await connection.execute(_SET_PASSWORD, {"name": account.name, "password_hash": password_hash})
            await self.sessions.end_all(account.name, connection)
        self.sessions.forget()
        await self._throttle.succeeded(account.name, None)
        return password

    async def change_password(self, name: str, old: str, new: str, *, session: str | None = None) -> None:
        """Change one's own password, and end all of one's sessions but `session`, a token.

        Raises `InvalidInput` if `old` is not the password or `new` is no good one, `TooManyAttempts` after many
        wrong ones, `NotFound`, and `Conflict` if the account signs in by a provider.
        """
        _check_password(new, "new")
        async with self._database.transaction() as connection:
            account = (await connection.execute(_ONE, {"name": name})).one_or_none()
        if account is None:
            raise _nobody(name)
        _check_has_password(account)
        await self._throttle.attempt(account.name, None)
        if not await self._is_right(account.password_hash, old):
            raise InvalidInput("this is not your password", "old")
        await self._throttle.succeeded(account.name, None)
        changed = {"name": account.name, "password_hash": await self._hash(new), "old_hash": account.password_hash}
        async with self._database.transaction() as connection:
            if not (await connection.execute(_STILL_RIGHT, changed)).rowcount:
                raise Conflict("the account was changed by somebody else at this moment: try again")
            await self.sessions.end_all(account.name, connection, but=session)
        self.sessions.forget()

    async def sign_in(self, name: str, password: str, address: str | None) -> str:
        """Begin a session; its token. `address` is where the client comes from, if that is known.

        Raises `Unauthenticated`, which tells not whether the name or the password is wrong, and `TooManyAttempts`
        after many failures by this name or from this address, also if the password is right.
        """
        await self._throttle.attempt(name, address)
        if self._nobodys_hash is None:
            self._nobodys_hash = await self._hash(new_password())
        async with self._database.transaction() as connection:
            account = (await connection.execute(_ONE, {"name": name})).one_or_none() if _is_name(name) else None
        # Names that nobody has take as long as others, so that nobody learns which there are.
        known_hash: str | None = account.password_hash if account else None
        is_right = await self._is_right(known_hash or self._nobodys_hash, password)
        if account is None or known_hash is None or not is_right or account.disabled_at is not None:
            raise _wrong()
        is_old = self._hasher.check_needs_rehash(known_hash)
        kept_hash = await self._hash(password) if is_old else known_hash
        signed_in = {"name": account.name, "old_hash": known_hash, "password_hash": kept_hash}
        async with self._database.transaction() as connection:
            # The password may have been changed, or the account disabled, since it was read.
            if not (await connection.execute(_STILL_RIGHT, signed_in)).rowcount:
                raise _wrong()
            token = await self.sessions.open(account.name, connection)
        await self._throttle.succeeded(name, address)
        return token

    async def sign_in_by_provider(self, issuer: str, subject: str, name: str, roles: Collection[str]) -> str:
        """Begin a session for somebody whom a provider vouches for, with these roles; its token. Who comes for the
        first time is given an account called `name`.

        Raises `Forbidden` if they may not come in: disabled, or the name is of somebody else; `InvalidInput` for
        a name that can not be one, or a role that is none.
        """
        wanted = _roles(roles)
        who = {"issuer": issuer, "subject": subject}
        async with self._database.transaction() as connection:
            await connection.execute(_LOCK)
            account = (await connection.execute(_BY_SUBJECT, who)).one_or_none()
            if account is None:
                if not _is_name(name):
                    raise InvalidInput(
                        "your name at the provider is not 1 to 60 letters, digits, dots, dashes or underscores"
                    )
                if await connection.scalar(_TAKEN, {"name": name}):
                    raise Forbidden(f"there is another account or service called {name}")
                await connection.execute(_ADD, {**who, "name": name, "roles": wanted, "password_hash": None})
            elif account.disabled_at is not None:
                raise Forbidden(f"the account {account.name} is disabled")
            else:
                name = account.name
                await connection.execute(_SET_ROLES, {"name": name, "roles": wanted})
            token = await self.sessions.open(name, connection)
        self.sessions.forget()
        return token

    async def sign_out(self, token: str) -> str | None:
        """End a session; whose it was, or None if it had ended before."""
        return await self.sessions.end(token)

    async def sign_out_everywhere(self, name: str) -> int:
        """End every session of an account; how many there were. Raises `NotFound`."""
        async with self._database.transaction() as connection:
            account = (await connection.execute(_ONE, {"name": name})).one_or_none()
            if account is None:
                raise _nobody(name)
            ended = await self.sessions.end_all(account.name, connection)
        self.sessions.forget()
        return ended

    async def _hash(self, password: str) -> str:
        _check_password(password, "password")
        async with self._hashing:
            return await asyncio.to_thread(self._hasher.hash, password)

    async def _is_right(self, password_hash: str, password: str) -> bool:
        async with self._hashing:
            try:
                return await asyncio.to_thread(
                    self._hasher.verify, password_hash, password[: LONGEST_PASSWORD + 1]
                )
            except (VerificationError, InvalidHashError):
                return False


def new_password() -> str:
    """A random one of 120 bits."""
    return secrets.token_urlsafe(15)


def _is_name(name: str) -> bool:
    return re.fullmatch(NAME, name) is not None


def _roles(roles: Collection[str]) -> list[str]:
    """The roles in their usual order. Raises `InvalidInput` for an unknown one, or none."""
    for role in roles:
        if role not in STAFF_ROLES:
            raise InvalidInput(f"there is no role {role[:20]!r}, only {', '.join(STAFF_ROLES)}", "roles")
    if not roles:
        raise InvalidInput(f"an account has at least one role: {', '.join(STAFF_ROLES)}", "roles")
    return [role for role in STAFF_ROLES if role in roles]


def _check_password(password: str, field: str) -> None:
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise InvalidInput(f"a password has {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters", field)


def _check_has_password(account: Any) -> None:
    if account.password_hash is None:
        raise Conflict(f"{account.name} signs in by {account.issuer}, and has no password here")


async def _check_is_free(name: str, connection: AsyncConnection) -> None:
    if await connection.scalar(_TAKEN, {"name": name}):
        raise Conflict(f"there is an account, or a service with a key, called {name}")


async def _check_manager(before: Any, connection: AsyncConnection) -> None:
    """The account was just changed from what it was `before`: was it the last enabled manager?"""
    was_manager = before.disabled_at is None and "manager" in before.roles
    if was_manager and not await connection.scalar(_HAS_MANAGER):
        raise Conflict(f"{before.name} is the last manager who can sign in: make another one first")


async def _locked(name: str, connection: AsyncConnection) -> Any:
    """The account, which nobody else changes until the transaction ends. Raises `NotFound`."""
    await connection.execute(_LOCK)
    account = (await connection.execute(_ONE, {"name": name})).one_or_none()
    if account is None:
        raise _nobody(name)
    return account


def _nobody(name: str) -> NotFound:
    return NotFound(f"there is no account {name[:60]!r}")


def _wrong() -> Unauthenticated:
    return Unauthenticated("this is not the name and the password of an account")

"""The API keys by which the gateways know who calls. Only their hashes are kept."""

import hashlib
import re
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from pydantic import BaseModel
from sqlalchemy import DateTime, ScalarResult, func, text
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import Field, SQLModel

from api.access import STAFF_ROLES, Principal, Role, StaffRole
from kernel.database import Database
from kernel.errors import Conflict, InvalidInput, NotFound, Unauthenticated

NAME: Final = "[A-Za-z0-9._-]{1,60}"
"""What a kiosk, or a service, may be called."""
ROBOT_NAME: Final = "[A-Za-z0-9_-]{1,60}"
"""What a robot may be called: its name is a part of the subject of its events, which dots divide."""

Gateway = Literal["kiosks", "staff", "robots"]
"""A gateway that knows its callers by keys; also the schema that they are kept in."""
KeyKind = Literal["kiosk", "service", "robot"]
"""Whom a key is of. People have accounts and no keys."""

GATEWAYS: Final[Mapping[KeyKind, Gateway]] = {"kiosk": "kiosks", "service": "staff", "robot": "robots"}
LONGEST_OVERLAP: Final = timedelta(days=7)
"""For how long at most a key may work beside the one that replaces it."""


@dataclass(frozen=True)
class _Kind:
    kind: KeyKind
    prefix: str
    name: str
    signs: str
    roles: str


_WITH_DOTS: Final = "letters, digits, dots, dashes or underscores"
_KINDS: Final[dict[Gateway, _Kind]] = {
    "kiosks": _Kind("kiosk", "mbk", NAME, _WITH_DOTS, "ARRAY['kiosk']"),
    "staff": _Kind("service", "mbs", NAME, _WITH_DOTS, "roles"),
    "robots": _Kind("robot", "mbr", ROBOT_NAME, "letters, digits, dashes or underscores", "ARRAY['robot']"),
}
_LOCK_ACCOUNTS: Final = text("LOCK TABLE staff.accounts IN SHARE ROW EXCLUSIVE MODE")
_ACCOUNT: Final = text("SELECT name FROM staff.accounts WHERE lower(name) = ANY(:names) LIMIT 1")
# Not now(), which is when the transaction began: it may have waited since for one that revoked.
_VALID: Final = "(revoked_at IS NULL OR revoked_at > statement_timestamp())"


class ApiKeyColumns(SQLModel):
    """A key that was given to somebody, known only by its hash. From `revoked_at` on, which may be still to come,
    it lets nobody in; it stays, so that it never works again. Each gateway derives its own table from it."""

    key_hash: str = Field(primary_key=True)
    name: str
    created_at: datetime | None = Field(
        default=None,
        sa_type=DateTime(timezone=True),
        nullable=False,
        sa_column_kwargs={"server_default": func.now()},
    )
    revoked_at: datetime | None = Field(default=None, sa_type=DateTime(timezone=True))


class IssuedKey(BaseModel):
    """What may be shown of a key. `revoked_at` is when it stops, or stopped, to let anybody in."""

    kind: KeyKind
    name: str
    roles: list[Role]
    hash_prefix: str
    created_at: datetime
    revoked_at: datetime | None
    valid: bool


class ApiKeys:
    """The keys of one gateway in their database. A holder may have several, so that a key can be replaced. Only
    those of services have roles of their own."""

    def __init__(self, database: Database, gateway: Gateway) -> None:
        self._database = database
        self._kind = _KINDS[gateway]
        table, roles = f"{gateway}.api_keys", self._kind.roles
        self._add = text(f"INSERT INTO {table} (key_hash, name) VALUES (:key_hash, :name)")
        if self._of_services:
            self._add = text(f"INSERT INTO {table} (key_hash, name, roles) VALUES (:key_hash, :name, :roles)")
        self._holder = text(f"SELECT name, {roles} AS roles FROM {table} WHERE key_hash = :key_hash AND {_VALID}")
        self._valid = text(f"SELECT key_hash FROM {table} WHERE key_hash = ANY(:hashes) AND {_VALID}")
        self._issued = text(
            f"SELECT name, {roles} AS roles, left(key_hash, 8) AS hash_prefix, created_at, revoked_at,"
            f" {_VALID} AS valid FROM {table} ORDER BY name, created_at"
        )
        self._newest = text(
            f"SELECT {roles} FROM {table} WHERE name = :name AND {_VALID}"
            " ORDER BY created_at DESC, key_hash LIMIT 1"
        )
        self._one_by_one = text(f"SELECT pg_advisory_xact_lock(hashtextextended('{table}', 0))")
        # One that stops earlier anyhow still does.
        self._end = text(
            f"UPDATE {table} SET revoked_at = statement_timestamp() + :overlap WHERE name = :name"
            " AND (revoked_at IS NULL OR revoked_at > statement_timestamp() + :overlap) RETURNING key_hash"
        )

    @property
    def _of_services(self) -> bool:
        return self._kind.kind == "service"

    def new_key(self) -> str:
        """A key that nobody can guess; the prefix lets people and scanners see what it is."""
        return f"{self._kind.prefix}_{secrets.token_urlsafe(32)}"

    async def issue(self, name: str, roles: Collection[StaffRole] = ()) -> str:
        """A new key for a holder, whose other keys stay valid; it can not be read again. A service's has `roles`.

        Raises `InvalidInput` for a bad name or wrong roles, `Conflict` for a service that is called as an account.
        """
        key = self.new_key()
        await self.add({name: key}, roles)
        return key

    async def add(self, keys: Mapping[str, str], roles: Collection[StaffRole] = ()) -> None:
        """Let every holder in by its key, or none. Raises as `issue` does."""
        for name in keys:
            if not re.fullmatch(self._kind.name, name):
                raise InvalidInput(f"the name of a {self._kind.kind} is 1 to 60 {self._kind.signs}", "name")
        self._check(roles)
        async with self._database.transaction() as connection:
            await self._insert(connection, keys, roles)

    async def rotate(self, name: str, overlap: timedelta = timedelta()) -> str:
        """A new key for a holder, with the roles of its newest; the others work for `overlap` more, as long as
        that takes to carry the new one there. Raises `NotFound` if it has no valid key, `InvalidInput`."""
        if not timedelta() <= overlap <= LONGEST_OVERLAP:
            raise InvalidInput(f"an old key is kept for 0 minutes to {LONGEST_OVERLAP.days} days", "keep_old")
        key = self.new_key()
        async with self._database.transaction() as connection:
            await connection.execute(self._one_by_one)
            roles = await connection.scalar(self._newest, {"name": name})
            if roles is None:
                raise NotFound(f"{self._kind.kind} {name} has no valid key")
            await connection.execute(self._end, {"name": name, "overlap": overlap})
            await self._insert(connection, {name: key}, roles)
        return key

    async def principal_of(self, key: str) -> Principal:
        """Whom a key was given to, and what they may do. Raises `Unauthenticated` if there is nobody, or not any
        more."""
        async with self._database.transaction() as connection:
            row = (await connection.execute(self._holder, {"key_hash": _hash(key)})).one_or_none()
        if row is None:
            raise Unauthenticated("this key is not known, or was revoked")
        return Principal(row.name, self._kind.kind, frozenset(row.roles))

    async def holder_of(self, key: str) -> str:
        """The name of whom a key was given to. Raises `Unauthenticated` as `principal_of` does."""
        return (await self.principal_of(key)).name

    async def valid_among(self, keys: Collection[str]) -> set[str]:
        """Those of the keys that let somebody in."""
        by_hash = {_hash(key): key for key in keys}
        async with self._database.transaction() as connection:
            hashes: ScalarResult[str] = await connection.scalars(self._valid, {"hashes": list(by_hash)})
            return {by_hash[key_hash] for key_hash in hashes}

    async def issued(self) -> list[IssuedKey]:
        """Every key ever given, by holder, the oldest first."""
        async with self._database.transaction() as connection:
            rows = (await connection.execute(self._issued)).mappings()
            return [IssuedKey.model_validate({"kind": self._kind.kind, **row}) for row in rows]

    async def revoke(self, name: str) -> int:
        """End every key of a holder now; how many there were."""
        async with self._database.transaction() as connection:
            await connection.execute(self._one_by_one)
            return len((await connection.execute(self._end, {"name": name, "overlap": timedelta()})).all())

    def _check(self, roles: Collection[StaffRole]) -> None:
        if not self._of_services:
            if roles:
                raise InvalidInput(f"only services have roles, and a {self._kind.kind} is none", "roles")
        elif not roles or not set(roles) <= set(STAFF_ROLES):
            raise InvalidInput(f"a service has one or more of the roles {', '.join(STAFF_ROLES)}", "roles")

    async def _insert(self, connection: AsyncConnection, keys: Mapping[str, str], roles: Collection[str]) -> None:
        rows: list[dict[str, Any]] = [{"key_hash": _hash(key), "name": name} for name, key in keys.items()]
        if self._of_services:
            known = [role for role in STAFF_ROLES if role in roles]
            rows = [{**row, "roles": known} for row in rows]
            # What is on record by a name is by one of them: no account gets this name meanwhile.
            await connection.execute(_LOCK_ACCOUNTS)
            taken = await connection.scalar(_ACCOUNT, {"names": [name.lower() for name in keys]})
            if taken:
                raise Conflict(f"there is an account called {taken}: choose another name")
        await connection.execute(self._add, rows)


def _hash(key: str) -> str:
    # A key has 256 random bits, so a fast hash without salt is as strong as a slow one.
    return hashlib.sha256(key.encode()).hexdigest()

"""The API keys by which the gateways know who calls. Only their hashes are kept."""

import hashlib
import re
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from pydantic import BaseModel
from sqlalchemy import DateTime, ScalarResult, func, text
from sqlmodel import Field, SQLModel

from kernel.database import Database
from kernel.errors import InvalidInput, Unauthenticated

NAME: Final = "[A-Za-z0-9._-]{1,60}"
"""What a kiosk, or a member of staff, may be called."""
ROBOT_NAME: Final = "[A-Za-z0-9_-]{1,60}"
"""What a robot may be called: its name is a part of the subject of its events, which dots divide."""

Gateway = Literal["kiosks", "staff", "robots"]
"""A gateway that knows its callers by keys; also the schema that they are kept in."""


@dataclass(frozen=True)
class _Kind:
    holder: str
    prefix: str
    name: str
    signs: str


_KINDS: Final[dict[Gateway, _Kind]] = {
    "kiosks": _Kind("a kiosk", "mbk", NAME, "letters, digits, dots, dashes or underscores"),
    "staff": _Kind("a member of staff", "mbs", NAME, "letters, digits, dots, dashes or underscores"),
    "robots": _Kind("a robot", "mbr", ROBOT_NAME, "letters, digits, dashes or underscores"),
}


class ApiKeyColumns(SQLModel):
    """A key that was given to somebody, known only by its hash. A revoked one stays, so that it never works
    again. Each gateway derives its own table from it."""

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
    """What may be shown of a key."""

    name: str
    hash_prefix: str
    created_at: datetime
    revoked_at: datetime | None


class ApiKeys:
    """The keys of one gateway in their database. A holder may have several, so that a key can be replaced."""

    def __init__(self, database: Database, gateway: Gateway) -> None:
        self._database = database
        self._kind = _KINDS[gateway]
        table = f"{gateway}.api_keys"
        self._add = text(f"INSERT INTO {table} (key_hash, name) VALUES (:key_hash, :name)")
        self._holder = text(f"SELECT name FROM {table} WHERE key_hash = :key_hash AND revoked_at IS NULL")
        self._valid = text(f"SELECT key_hash FROM {table} WHERE key_hash = ANY(:hashes) AND revoked_at IS NULL")
        self._issued = text(
            f"SELECT name, left(key_hash, 8) AS hash_prefix, created_at, revoked_at FROM {table}"
            " ORDER BY name, created_at"
        )
        self._revoke = text(
            f"UPDATE {table} SET revoked_at = now() WHERE name = :name AND revoked_at IS NULL RETURNING key_hash"
        )

    def new_key(self) -> str:
        """A key that nobody can guess; the prefix lets people and scanners see what it is."""
        return f"{self._kind.prefix}_{secrets.token_urlsafe(32)}"

    async def issue(self, name: str) -> str:
        """A new key for a holder; it can not be read again. Raises `InvalidInput` for a bad name."""
        key = self.new_key()
        await self.add({name: key})
        return key

    async def add(self, keys: Mapping[str, str]) -> None:
        """Let every holder in by its key, or none. Raises `InvalidInput` for a bad name."""
        for name in keys:
            if not re.fullmatch(self._kind.name, name):
                raise InvalidInput(f"the name of {self._kind.holder} is 1 to 60 {self._kind.signs}", "name")
        async with self._database.transaction() as connection:
            await connection.execute(
                self._add, [{"key_hash": _hash(key), "name": name} for name, key in keys.items()]
            )

    async def holder_of(self, key: str) -> str:
        """Whom a key was given to. Raises `Unauthenticated` if there is nobody, or not any more."""
        async with self._database.transaction() as connection:
            name: str | None = await connection.scalar(self._holder, {"key_hash": _hash(key)})
        if name is None:
            raise Unauthenticated("this key is not known, or was revoked")
        return name

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
            return [IssuedKey.model_validate(dict(row)) for row in rows]

    async def revoke(self, name: str) -> int:
        """End every key of a holder; how many there were."""
        async with self._database.transaction() as connection:
            return len((await connection.execute(self._revoke, {"name": name})).all())


def _hash(key: str) -> str:
    # A key has 256 random bits, so a fast hash without salt is as strong as a slow one.
    return hashlib.sha256(key.encode()).hexdigest()

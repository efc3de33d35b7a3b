"""The API keys by which kiosks are known. Only their hashes are kept."""

import hashlib
import re
import secrets
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from pydantic import BaseModel
from sqlalchemy import text

from kernel.database import Database
from kernel.errors import InvalidInput, Unauthenticated

KIOSK_NAME: Final = "[A-Za-z0-9._-]{1,60}"

_ADD = text("INSERT INTO kiosks.api_keys (key_hash, kiosk) VALUES (:key_hash, :kiosk)")
_KIOSK = text("SELECT kiosk FROM kiosks.api_keys WHERE key_hash = :key_hash AND revoked_at IS NULL")
_ISSUED = text(
    "SELECT kiosk, left(key_hash, 8) AS hash_prefix, created_at, revoked_at FROM kiosks.api_keys"
    " ORDER BY kiosk, created_at"
)
_REVOKE = text(
    "UPDATE kiosks.api_keys SET revoked_at = now() WHERE kiosk = :kiosk AND revoked_at IS NULL RETURNING key_hash"
)


class IssuedKey(BaseModel):
    """What may be shown of a key."""

    kiosk: str
    hash_prefix: str
    created_at: datetime
    revoked_at: datetime | None


class KioskKeys:
    """The kiosks' keys in their database. A kiosk may have several, so that a key can be replaced."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def issue(self, kiosk: str) -> str:
        """A new key for a kiosk; it can not be read again. Raises `InvalidInput` for a bad name."""
        key = new_key()
        await self.add({kiosk: key})
        return key

    async def add(self, keys: Mapping[str, str]) -> None:
        """Let every kiosk in by its key, or none. Raises `InvalidInput` for a bad name."""
        for kiosk in keys:
            if not re.fullmatch(KIOSK_NAME, kiosk):
                raise InvalidInput(
                    "a kiosk's name is 1 to 60 letters, digits, dots, dashes or underscores", "kiosk"
                )
        async with self._database.transaction() as connection:
            await connection.execute(
                _ADD, [{"key_hash": _hash(key), "kiosk": kiosk} for kiosk, key in keys.items()]
            )

    async def kiosk_of(self, key: str) -> str:
        """The kiosk that a key was given to. Raises `Unauthenticated` if there is none, or not any more."""
        async with self._database.transaction() as connection:
            kiosk: str | None = await connection.scalar(_KIOSK, {"key_hash": _hash(key)})
        if kiosk is None:
            raise Unauthenticated("this key is not known, or was revoked")
        return kiosk

    async def issued(self) -> list[IssuedKey]:
        """Every key ever given, by kiosk, the oldest first."""
        async with self._database.transaction() as connection:
            rows = (await connection.execute(_ISSUED)).mappings()
            return [IssuedKey.model_validate(dict(row)) for row in rows]

    async def revoke(self, kiosk: str) -> int:
        """End every key of a kiosk; how many there were."""
        async with self._database.transaction() as connection:
            return len((await connection.execute(_REVOKE, {"kiosk": kiosk})).all())


def new_key() -> str:
    """A key that nobody can guess; the prefix lets people and scanners see what it is."""
    return f"mbk_{secrets.token_urlsafe(32)}"


def _hash(key: str) -> str:
    # A key has 256 random bits, so a fast hash without salt is as strong as a slow one.
    return hashlib.sha256(key.encode()).hexdigest()

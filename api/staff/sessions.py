"""The sessions of members of staff: a random token in a cookie, of which only the hash is kept."""

import hashlib
import secrets
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from api.access import Principal
from api.staff.remembered import Remembered
from kernel.database import Database
from kernel.errors import Unauthenticated

LONGEST_DAYS: Final = 30
"""Whoever signed in so long ago does it again, however much the session is used."""

_OPEN = text("INSERT INTO staff.sessions (token_hash, account) VALUES (:token_hash, :account)")
_FORGET_OLD = text(
    "DELETE FROM staff.sessions WHERE account = :account AND last_seen_at < now() - :hours * interval '1 hour'"
)
_WHOSE = text("""
    SELECT a.name, a.roles, s.last_seen_at < now() - interval '1 minute' AS is_stale
    FROM staff.sessions s JOIN staff.accounts a ON a.name = s.account
    WHERE s.token_hash = :token_hash AND a.disabled_at IS NULL
      AND s.last_seen_at > now() - :hours * interval '1 hour'
      AND s.created_at > now() - :days * interval '1 day'
""")
_SEEN = text("UPDATE staff.sessions SET last_seen_at = now() WHERE token_hash = :token_hash")
_END = text("DELETE FROM staff.sessions WHERE token_hash = :token_hash RETURNING account")
_END_ALL = text(
    "DELETE FROM staff.sessions WHERE account = :account AND token_hash <> :kept_hash RETURNING token_hash"
)


class Sessions:
    """The sessions in the database of staff. One that nobody uses for `idle_hours` has ended.

    Who a session is of is remembered for a moment; what is changed in this process counts at once.
    """

    def __init__(self, database: Database, *, idle_hours: float = 12) -> None:
        self._database = database
        self._hours = {"hours": idle_hours}
        self._ends = {**self._hours, "days": LONGEST_DAYS}
        self._remembered = Remembered(self._use)
        self._watched = Remembered(self._look_up)

    async def open(self, account: str, connection: AsyncConnection) -> str:
        """Begin a session of an account, in the caller's transaction; its token."""
        token = secrets.token_urlsafe(32)
        await connection.execute(_FORGET_OLD, {"account": account, **self._hours})
        await connection.execute(_OPEN, {"token_hash": _hash(token), "account": account})
        return token

    async def principal(self, token: str, *, again: bool = False) -> Principal:
        """Who signed in with this token; asked `again` for what is still open, which is no use of the session.
        Raises `Unauthenticated` if that has ended, or never was."""
        return await (self._watched if again else self._remembered).principal_of(token)

    async def _use(self, token: str) -> Principal:
        return await self._look_up(token, is_use=True)

    async def _look_up(self, token: str, *, is_use: bool = False) -> Principal:
        token_hash = _hash(token)
        async with self._database.transaction() as connection:
            row = (await connection.execute(_WHOSE, {"token_hash": token_hash, **self._ends})).one_or_none()
            if row is None:
                raise Unauthenticated("your session has ended: sign in again")
            if is_use and row.is_stale:
                await connection.execute(_SEEN, {"token_hash": token_hash})
        return Principal(row.name, "account", frozenset(row.roles))

    async def end(self, token: str) -> str | None:
        """Sign out; the account's name, or None if the session had ended before."""
        async with self._database.transaction() as connection:
            account: str | None = await connection.scalar(_END, {"token_hash": _hash(token)})
        self.forget()
        return account

    async def end_all(self, account: str, connection: AsyncConnection, *, but: str | None = None) -> int:
        """End every session of an account (but the one of that token), in the caller's transaction; how many
        there were. Whoever commits it calls `forget` behind it."""
        rows = await connection.execute(_END_ALL, {"account": account, "kept_hash": _hash(but) if but else ""})
        return len(rows.all())

    def forget(self) -> None:
        """Look sessions up anew when they are next used: accounts or sessions were changed."""
        self._remembered.forget()
        self._watched.forget()


def _hash(token: str) -> str:
    # A token has 256 random bits, so a fast hash without salt is as strong as a slow one.
    return hashlib.sha256(token.encode()).hexdigest()

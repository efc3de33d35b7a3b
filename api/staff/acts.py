"""The log of acts: what staff, services, kiosks and robots did that no event tells, and what was refused."""

import logging
import time
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

from pydantic import BaseModel, Field
from sqlalchemy import text

from kernel.database import Database
from kernel.errors import Conflict, Forbidden, Refused, TooManyAttempts, Unavailable, WrongPickupCode
from kernel.ids import new_id

Outcome = Literal["done", "refused"]

REFUSALS: Final = (Forbidden, Conflict, Refused, TooManyAttempts, WrongPickupCode)
"""What is noted as refused; a mistake in what was sent is not."""

_QUIET_SECONDS: Final = 60.0
_SUBJECTS: Final = {
    "order_id": "order",
    "sku": "product",
    "store_id": "store",
    "robot": "robot",
    "name": "account",
}
_LONGEST: Final = {"by": 100, "act": 100, "subject": 200, "detail": 500}
_ADD: Final = text(
    "INSERT INTO staff.acts (id, by, act, subject, detail, outcome)"
    " VALUES (:id, :by, :act, :subject, :detail, :outcome)"
)
# A CAST tells PostgreSQL the type of a parameter that may be null.
_NEWEST: Final = text(
    "SELECT id, at, by, act, subject, detail, outcome FROM staff.acts"
    " WHERE (CAST(:before AS uuid) IS NULL OR id < :before)"
    " AND (CAST(:by AS varchar) IS NULL OR by = :by)"
    " AND (CAST(:outcome AS varchar) IS NULL OR outcome = :outcome)"
    " AND (CAST(:subject AS varchar) IS NULL OR subject = :subject)"
    " ORDER BY id DESC LIMIT :limit"
)

_log = logging.getLogger(__name__)


class Act(BaseModel):
    """Something that was done, or refused."""

    id: UUID
    at: datetime
    by: str = Field(description="The name of who did it, or tried to", examples=["bea"])
    act: str = Field(description="What was done, in a word", examples=["orders.refund", "sign in"])
    subject: str | None = Field(
        description="What it was done to", examples=["order-01a1f2c4-5b7e-7d30-9a41-6c2f80e1b355"]
    )
    detail: str = Field(description="A sentence for people; may be empty")
    outcome: Outcome


class Acts:
    """The log of acts in the database of the staff gateway."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._strangers: Counter[str] = Counter()
        self._quiet_until: dict[str, float] = {}

    async def note(
        self, by: str, act: str, subject: str | None = None, detail: str = "", outcome: Outcome = "done"
    ) -> None:
        """Note what `by` did (`act`, a word or two) to `subject`, such as `order-<id>`, `account-<name>` or
        `service-<name>`. Long texts are cut, and what can not be printed is left out.

        What was done stays done while the database is away: then it is in the process's log only.
        """
        values = {"by": by, "act": act, "subject": subject, "detail": detail}
        told = {name: value if value is None else _plain(value, _LONGEST[name]) for name, value in values.items()}
        try:
            async with self._database.transaction() as connection:
                await connection.execute(_ADD, {"id": new_id(), "outcome": outcome, **told})
        except Unavailable:
            _log.warning("an act could not be noted: %s", {**told, "outcome": outcome})

    async def note_stranger(self, where: str, address: str | None, what: str = "unknown or revoked keys") -> None:
        """Note that a stranger was refused at `where`, from `address` if that is known; `what` came there, in
        the plural. Whoever guesses does not fill the log: it is noted once a minute, with how many there were."""
        self._strangers[where] += 1
        if time.monotonic() < self._quiet_until.get(where, 0):
            return
        self._quiet_until[where] = time.monotonic() + _QUIET_SECONDS
        count, self._strangers[where] = self._strangers[where], 0
        detail = f"{count} {what} at {where}, the last from {address or 'an unknown address'}"
        await self.note("stranger", "come in", None, detail, "refused")

    async def newest(
        self,
        limit: int = 100,
        before: UUID | None = None,
        by: str | None = None,
        outcome: Outcome | None = None,
        subject: str | None = None,
    ) -> list[Act]:
        """The newest acts first, at most `limit`: those older than the act `before`, of `by`, with this outcome
        and subject, where given. Raises `Unavailable`."""
        asked = {"limit": limit, "before": before, "by": by, "outcome": outcome, "subject": subject}
        async with self._database.transaction() as connection:
            rows = (await connection.execute(_NEWEST, asked)).mappings()
            return [Act.model_validate(dict(row)) for row in rows]


def subject_of(parameters: Mapping[str, Any]) -> str | None:
    """What the log calls that which a request with these parameters is about, such as `order-<id>`."""
    if "kind" in parameters and "name" in parameters:
        return f"{parameters['kind']}-{parameters['name']}"
    return next((f"{kind}-{parameters[name]}" for name, kind in _SUBJECTS.items() if name in parameters), None)


def _plain(value: str, longest: int) -> str:
    printable = "".join(character for character in value if character.isprintable())
    return printable if len(printable) <= longest else f"{printable[: longest - 1]}…"

"""One idempotency key of a kiosk is one order, however often and from how many processes it is sent."""

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import text

from kernel.database import Database
from kernel.errors import IdempotencyKeyReused, NotFound
from kernel.ids import new_id

# Of two that claim a key at once, one inserts; the other waits for its commit and then finds the row.
_CLAIM = text(
    "INSERT INTO kiosks.idempotency_keys (kiosk, key, request_hash, order_id)"
    " VALUES (:kiosk, :key, :request_hash, :order_id) ON CONFLICT (kiosk, key) DO NOTHING RETURNING order_id"
)
_CLAIMED = text("SELECT request_hash, order_id FROM kiosks.idempotency_keys WHERE kiosk = :kiosk AND key = :key")
_ORDERED_AT = text("SELECT created_at FROM kiosks.idempotency_keys WHERE kiosk = :kiosk AND order_id = :order_id")


@dataclass(frozen=True)
class Claim:
    """The order that a key stands for, and whether this claim was the first."""

    order_id: UUID
    is_new: bool


class IdempotencyKeys:
    """The idempotency keys of all kiosks, kept for as long as the orders."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(self, kiosk: str, key: str, request: BaseModel) -> Claim:
        """The order that `request` is under this key: a new one the first time.

        Raises `IdempotencyKeyReused` if the key came with another request before.
        """
        values = {"kiosk": kiosk, "key": key}
        request_hash = _hash(request)
        new = new_id()
        async with self._database.transaction() as connection:
            inserted = await connection.execute(_CLAIM, {**values, "request_hash": request_hash, "order_id": new})
            if inserted.first():
                return Claim(new, is_new=True)
            first = (await connection.execute(_CLAIMED, values)).one()
        if first.request_hash != request_hash:
            raise IdempotencyKeyReused("this Idempotency-Key came with another order before: use a new one")
        return Claim(first.order_id, is_new=False)

    async def ordered_at(self, kiosk: str, order_id: UUID) -> datetime:
        """When the kiosk sent this order first. Raises `NotFound` if it is not an order of this kiosk."""
        async with self._database.transaction() as connection:
            at: datetime | None = await connection.scalar(_ORDERED_AT, {"kiosk": kiosk, "order_id": order_id})
        if at is None:
            raise NotFound(f"this kiosk has no order {order_id}")
        return at


def _hash(request: BaseModel) -> str:
    # Without defaults, so that a field added later does not change what was sent before.
    canonical = json.dumps(request.model_dump(mode="json", exclude_defaults=True), sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()

"""The consumer that keeps the audit trail, and what may be read of it."""

from datetime import datetime
from typing import Any, Final
from uuid import UUID

from pydantic import BaseModel, Field
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from consumers.trail.acts import act_of
from domains.stores.messages import EVENTS
from events.consumer import Consumer
from events.recorded import ROOT, RecordedEvent
from kernel.database import Database
from kernel.errors import NotFound

_ADD = text(
    "INSERT INTO trail.entries (event_id, order_id, recorded_at, who, what, domain, event, stream, version,"
    "  causation_id, data)"
    " VALUES (:event_id, :order_id, :recorded_at, :who, :what, :domain, :event, :stream, :version,"
    "  :causation_id, CAST(:data AS jsonb)) ON CONFLICT DO NOTHING"
)
_ENTRIES = (
    "SELECT event_id, recorded_at, who, what, domain, event, stream, version, causation_id, data"
    " FROM trail.entries"
)
_OF_ORDER = text(f"{_ENTRIES} WHERE order_id = :order_id ORDER BY recorded_at, stream, version")
_OF_STREAM = text(f"{_ENTRIES} WHERE stream = :stream ORDER BY version DESC LIMIT :most")
_OF_SOMEBODY: Final = {"order_id", "by", "robot"}


async def keep(connection: AsyncConnection, event: RecordedEvent) -> None:
    """Note what happened to an order, or what a member of staff or a robot did. An event that tells of none of
    them, as those of an import do, is passed over."""
    fields = event.fields()
    if not any(fields.get(name) for name in _OF_SOMEBODY):
        return
    order_id = fields.get("order_id")
    values = {
        "event_id": event.id,
        "order_id": UUID(order_id) if order_id else None,
        "recorded_at": event.recorded_at,
        **act_of(event)._asdict(),
        "domain": event.domain,
        "event": event.type,
        "stream": event.stream,
        "version": event.version,
        "causation_id": event.causation_id,
        "data": event.data.decode(),
    }
    await connection.execute(_ADD, values)


CONSUMER: Final = Consumer(
    "trail",
    "trail",
    (
        f"{ROOT}.orders.>",
        *(f"{ROOT}.stores.{kind.__name__}.*" for kind in EVENTS if _OF_SOMEBODY & kind.model_fields.keys()),
        f"{ROOT}.payments.>",
        f"{ROOT}.depot.>",
    ),
    keep,
)


class TrailEntry(BaseModel):
    """Who did what, and the event that says so."""

    recorded_at: datetime
    who: str = Field(examples=["kiosk kiosk-1"])
    what: str = Field(examples=["placed the order for ada: 2 items"])
    event_id: UUID
    domain: str
    event: str = Field(description="The event's type", examples=["OrderPlaced"])
    stream: str
    version: int = Field(description="The event's number in its stream")
    causation_id: str | None = Field(
        description="The step (activity, workflow run, activity id) or event that led to it"
    )
    data: dict[str, Any] = Field(description="The event as it was written")


class Trail:
    """The audit trail in its database. It follows the events within moments."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of(self, order_id: UUID) -> list[TrailEntry]:
        """All that happened to an order, the oldest first. Raises `NotFound` if nothing did."""
        async with self._database.transaction() as connection:
            rows = (await connection.execute(_OF_ORDER, {"order_id": order_id})).mappings().all()
        if not rows:
            raise NotFound(f"nothing is known of an order {order_id}")
        return [TrailEntry.model_validate(dict(row)) for row in rows]

    async def of_stream(self, stream: str, most: int = 100) -> list[TrailEntry]:
        """What was done to a product (`product-<sku>`), a store (`store-<id>`) or by a robot (`robot-<name>`), the
        newest first and at most so many. Raises `NotFound` if nothing was."""
        async with self._database.transaction() as connection:
            rows = (await connection.execute(_OF_STREAM, {"stream": stream, "most": most})).mappings().all()
        if not rows:
            raise NotFound(f"nothing is known of {stream}")
        return [TrailEntry.model_validate(dict(row)) for row in rows]

"""What a client of the events is sent: one JSON object a WebSocket message, told apart by its `type`."""

from datetime import datetime
from typing import Any, Literal, Self
from uuid import UUID

from pydantic import BaseModel, Field

from events.recorded import RecordedEvent
from kernel.messages import DomainName


class Hello(BaseModel):
    """The first message of every connection: what is delivered, and behind which position it begins."""

    type: Literal["hello"] = "hello"
    position: int
    topics: list[DomainName]


class EventMessage(BaseModel):
    """An event as its domain recorded it. `position` is its place among the events of all domains, `version` its
    place in its stream; `schema_version` says how to read `data`."""

    type: Literal["event"] = "event"
    position: int
    id: UUID
    domain: DomainName
    event: str = Field(description="The event's type, such as `OrderPlaced`")
    stream: str
    version: int
    schema_version: int
    data: dict[str, Any]
    correlation_id: UUID | None
    causation_id: str | None
    recorded_at: datetime

    @classmethod
    def of(cls, event: RecordedEvent) -> Self:
        """The message for an event that came by JetStream."""
        assert event.sequence is not None
        return cls(
            position=event.sequence,
            id=event.id,
            domain=event.domain,
            event=event.type,
            stream=event.stream,
            version=event.version,
            schema_version=event.schema_version,
            data=event.fields(),
            correlation_id=event.correlation_id,
            causation_id=event.causation_id,
            recorded_at=event.recorded_at,
        )


class PositionMessage(BaseModel):
    """Nothing of the client's topics has come for a while, up to this position: resume behind it."""

    type: Literal["position"] = "position"
    position: int

"""What an event is. Pure data, so that anybody may import a domain's events."""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict


class Event(BaseModel):
    """Something that happened, in the past tense; its class name is its type. Immutable."""

    model_config = ConfigDict(frozen=True)
    schema_version: ClassVar[int] = 1

"""What AsyncAPI is told of the WebSocket that brings events to staff, `WS /v1/staff/events`."""

from dataclasses import replace
from typing import Final

from pydantic import BaseModel

from api.live.messages import EventMessage, Hello, PositionMessage
from events.consumer import DOMAINS
from events.recorded import RecordedEvent
from mallbots.event_docs.documented import REFERENCE, Schema, prose, schemas_of

_NAME: Final = "staffEvents"
_QUERY: Final = {
    "type": "object",
    "properties": {
        "topics": {
            "type": "string",
            "description": "the domains whose events are wanted, separated by commas; without it, all",
        },
        "after": {
            "type": "integer",
            "minimum": 0,
            "description": "the position that the delivery begins behind; without it, with the next event",
        },
    },
}


class WebSocketDescription:
    """Its parts of the document. The example is of an event that is sent."""

    servers: Final = {
        "api": {
            "host": "127.0.0.1:8000",
            "protocol": "ws",
            "description": "The API as `mallbots up` serves it",
            "security": [
                {"$ref": "#/components/securitySchemes/serviceKey"},
                {"$ref": "#/components/securitySchemes/staffSession"},
            ],
        }
    }
    security_schemes: Final = {
        "serviceKey": {"type": "http", "scheme": "bearer", "description": "The key of a service"},
        "staffSession": {
            "type": "httpApiKey",
            "in": "cookie",
            "name": "mallbots_session",
            "description": "A member of staff who has signed in, on a page of the mall",
        },
    }
    operations: Final = {
        f"api.{_NAME}": {
            "action": "send",
            "channel": {"$ref": f"#/channels/{_NAME}"},
            "summary": "The API sends each event to staff as it happens",
        }
    }

    def __init__(self, example: RecordedEvent) -> None:
        self._examples: tuple[BaseModel, ...] = (
            Hello(position=18422, topics=list(DOMAINS)),
            EventMessage.of(replace(example, sequence=18423)),
            PositionMessage(position=18423),
        )

    @property
    def channels(self) -> dict[str, Schema]:
        channel = {
            "address": "/v1/staff/events",
            "description": "Every event of the mall, in one order, as it happens",
            "servers": [{"$ref": "#/servers/api"}],
            "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in self.messages},
            "bindings": {"ws": {"method": "GET", "query": _QUERY, "bindingVersion": "0.1.0"}},
        }
        return {_NAME: channel}

    @property
    def messages(self) -> dict[str, Schema]:
        return {type(example).__name__: _message(example) for example in self._examples}

    @property
    def schemas(self) -> dict[str, Schema]:
        return schemas_of([type(example) for example in self._examples], "serialization")


def _message(example: BaseModel) -> Schema:
    name = type(example).__name__
    return {
        "name": name,
        "title": name,
        "summary": prose(type(example)),
        "payload": {"$ref": f"{REFERENCE}{name}"},
        "examples": [{"payload": example.model_dump(mode="json")}],
    }

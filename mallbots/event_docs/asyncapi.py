"""The description of the events for programs, `docs/asyncapi.yaml`: AsyncAPI 3.0.

Of JetStream, the NATS binding of AsyncAPI knows nothing; what is to be said of it stands in extensions.
"""

from collections.abc import Iterator
from typing import Any, Final

import yaml

from events.consumer import DOMAINS
from events.recorded import ROOT
from events.stream import STREAM
from mallbots.event_docs.documented import (
    HEADERS,
    REFERENCE,
    Documentation,
    Documented,
    Schema,
    purpose,
)
from mallbots.event_docs.examples import headers_of
from mallbots.event_docs.websocket import WebSocketDescription

_ABOUT: Final = (
    "The facts that the four domains publish, in NATS and by a WebSocket for staff. Everybody may listen, and "
    "nobody's listening takes anything away. "
    "The catalogue `events.md` beside this file says how events travel, in which order they come, how to listen, "
    "and how they may change."
)
_NATS_BINDING: Final = {"nats": {"bindingVersion": "0.1.0"}}
_FORMS: Final[dict[str, Schema]] = {
    "Nats-Msg-Id": {"format": "uuid"},
    "Mallbots-Position": {"pattern": "^[0-9]+-[0-9]+$"},
    "Mallbots-Previous": {"pattern": "^[0-9]+-[0-9]+$"},
    "Mallbots-Stream-Version": {"pattern": "^[1-9][0-9]*$"},
    "Mallbots-Schema-Version": {"pattern": "^[1-9][0-9]*$"},
    "Mallbots-Recorded-At": {"format": "date-time"},
    "Mallbots-Correlation-Id": {"format": "uuid"},
    "traceparent": {"pattern": "^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}"},
}
_ALWAYS_THERE: Final = [
    "Nats-Msg-Id",
    "Mallbots-Position",
    "Mallbots-Previous",
    "Mallbots-Stream-Version",
    "Mallbots-Schema-Version",
    "Mallbots-Recorded-At",
]


def asyncapi(documentation: Documentation) -> str:
    """The whole document, in YAML."""
    websocket = WebSocketDescription(documentation.events[0].example)
    content = {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Events of MallBots",
            "version": "1",
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "nats": {
                "host": "127.0.0.1:4222",
                "protocol": "nats",
                "description": "NATS as `mallbots up` starts it; elsewhere it is where `MALLBOTS_NATS_URL` says",
                "security": [{"$ref": "#/components/securitySchemes/token"}],
                "x-jetstream-stream": STREAM,
            },
            **websocket.servers,
        },
        "channels": {event.name: _channel(event) for event in documentation.events} | websocket.channels,
        "operations": dict(_operations(documentation)) | websocket.operations,
        "components": {
            "messages": {event.name: _message(event) for event in documentation.events} | websocket.messages,
            "messageTraits": {
                "recorded": {
                    "headers": {"$ref": f"{REFERENCE}Headers"},
                    "correlationId": {"location": "$message.header#/Mallbots-Correlation-Id"},
                }
            },
            "schemas": {"Headers": _headers(), **documentation.schemas, **websocket.schemas},
            "securitySchemes": {
                "token": {
                    "type": "apiKey",
                    "in": "user",
                    "description": "The token of the NATS server, as in nats://TOKEN@host:port",
                },
                **websocket.security_schemes,
            },
        },
    }
    return yaml.dump(content, Dumper=_WithoutAnchors, sort_keys=False, allow_unicode=True, width=115)


def _channel(event: Documented) -> Schema:
    return {
        "address": f"{ROOT}.{event.domain}.{event.name}.{{stream}}",
        "description": event.meaning,
        "servers": [{"$ref": "#/servers/nats"}],
        "parameters": {"stream": {"description": f"`{event.stream}`", "examples": [event.example.stream]}},
        "messages": {event.name: {"$ref": f"#/components/messages/{event.name}"}},
    }


def _message(event: Documented) -> Schema:
    changes = {str(version): what for version, what in event.changes.items()}
    return {
        "name": event.name,
        "title": event.name,
        "summary": event.meaning,
        "traits": [{"$ref": "#/components/messageTraits/recorded"}],
        "payload": {"$ref": f"{REFERENCE}{event.name}"},
        "examples": [{"headers": headers_of(event.example), "payload": event.example.fields()}],
        "x-schema-version": event.kind.schema_version,
        **({"x-changes": changes} if changes else {}),
    }


def _operations(documentation: Documentation) -> Iterator[tuple[str, Schema]]:
    for domain in DOMAINS:
        for event in documentation.of(domain):
            yield (
                f"relay-{domain}.{event.name}",
                _operation("send", event, f"The relay of {domain.title()} publishes it"),
            )
    for consumer in documentation.consumers:
        for event in documentation.events:
            if consumer.name in event.listeners:
                yield f"{consumer.name}.{event.name}", _operation("receive", event, purpose(consumer))


def _operation(action: str, event: Documented, summary: str) -> Schema:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{event.name}"},
        "summary": summary,
        "bindings": _NATS_BINDING,
    }


def _headers() -> Schema:
    return {
        "type": "object",
        "description": "What is recorded beside the data. NATS carries all of it as text.",
        "properties": {
            name: {"type": "string", "description": meaning, **_FORMS.get(name, {})}
            for name, meaning in HEADERS.items()
        },
        "required": _ALWAYS_THERE,
    }


class _WithoutAnchors(yaml.SafeDumper):
    """What is said twice is written twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

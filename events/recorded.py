"""An event as it stands in the log of its domain, and as it travels in JetStream."""

import builtins
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, NamedTuple, Self, TypeVar
from uuid import UUID

from pydantic_core import from_json

from events.event import Event
from kernel.messages import DomainName

Known = TypeVar("Known", bound=Event)

ROOT: Final = "mallbots"


class LogPosition(NamedTuple):
    """Where an event stands in its domain's log: by the transaction that wrote it, then by its number.

    This order skips nothing that commits late (see `EventLog`), and within a stream it is that of the versions.
    """

    transaction_id: int
    number: int

    def __str__(self) -> str:
        return f"{self.transaction_id}-{self.number}"

    @classmethod
    def parse(cls, written: str) -> Self:
        """The position that was written as `12-34`. Raises `ValueError`."""
        transaction_id, number = written.split("-")
        return cls(int(transaction_id), int(number))


START: Final = LogPosition(0, 0)
"""Before the first event of every log."""


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """An event with all that was recorded beside it. `data` is its JSON; `sequence` is its number in JetStream's
    stream, and `previous` the position of the event before it in its domain's log, both if it came that way."""

    id: UUID
    domain: DomainName
    position: LogPosition
    stream: str
    version: int
    type: str
    schema_version: int
    data: bytes
    correlation_id: UUID | None
    causation_id: str | None
    trace_context: Mapping[str, str] | None
    recorded_at: datetime
    sequence: int | None = None
    previous: LogPosition | None = None

    @property
    def subject(self) -> str:
        """Its subject in NATS: `mallbots.<domain>.<Event>.<stream>`."""
        return f"{ROOT}.{self.domain}.{self.type}.{self.stream}"

    def fields(self) -> dict[str, Any]:
        """The data as Python values, as it was written."""
        fields: dict[str, Any] = from_json(self.data)
        return fields

    def read(self, kind: builtins.type[Known]) -> Known:
        """The event itself, upcast if it was written as an older version. Raises `pydantic.ValidationError`."""
        return kind.read(self.schema_version, self.fields())

    def read_one_of(self, kinds: Iterable[builtins.type[Known]]) -> Known | None:
        """The event itself if it is one of these; None if not."""
        return next((self.read(kind) for kind in kinds if kind.__name__ == self.type), None)

    def upcast(self, kinds: Iterable[builtins.type[Event]]) -> Self:
        """The same as it would be written today, if it is one of these and was written as an older version."""
        event = self.read_one_of(kinds)
        if event is None or event.schema_version == self.schema_version:
            return self
        return replace(self, schema_version=event.schema_version, data=event.model_dump_json().encode())

    def headers(self, previous: LogPosition) -> dict[str, str]:
        """What travels beside the data."""
        headers = {
            "Nats-Msg-Id": str(self.id),
            "Mallbots-Position": str(self.position),
            "Mallbots-Previous": str(previous),
            "Mallbots-Stream-Version": str(self.version),
            "Mallbots-Schema-Version": str(self.schema_version),
            "Mallbots-Recorded-At": self.recorded_at.isoformat(),
            "Mallbots-Correlation-Id": str(self.correlation_id or ""),
            "Mallbots-Causation-Id": self.causation_id or "",
        }
        return {name: value for name, value in headers.items() if value} | dict(self.trace_context or {})

    @classmethod
    def from_message(cls, subject: str, headers: Mapping[str, str], data: bytes, sequence: int) -> Self:
        """What `headers` and `subject` made of an event. Raises `KeyError` or `ValueError` for anything else."""
        _, domain, kind, stream = subject.split(".", 3)
        correlation_id = headers.get("Mallbots-Correlation-Id")
        return cls(
            id=UUID(headers["Nats-Msg-Id"]),
            domain=domain,  # type: ignore[arg-type]
            position=LogPosition.parse(headers["Mallbots-Position"]),
            previous=LogPosition.parse(headers["Mallbots-Previous"]),
            stream=stream,
            version=int(headers["Mallbots-Stream-Version"]),
            type=kind,
            schema_version=int(headers["Mallbots-Schema-Version"]),
            data=data,
            correlation_id=UUID(correlation_id) if correlation_id else None,
            causation_id=headers.get("Mallbots-Causation-Id"),
            trace_context={name: headers[name] for name in ("traceparent", "tracestate") if name in headers}
            or None,
            recorded_at=datetime.fromisoformat(headers["Mallbots-Recorded-At"]),
            sequence=sequence,
        )


def matches(subject: str, pattern: str) -> bool:
    """Whether a subject is one that a NATS pattern asks for: `*` is any one token, `>` any that are left."""
    tokens, wanted = subject.split("."), pattern.split(".")
    for number, part in enumerate(wanted):
        if part == ">":
            return len(tokens) > number
        if number >= len(tokens) or part not in ("*", tokens[number]):
            return False
    return len(tokens) == len(wanted)

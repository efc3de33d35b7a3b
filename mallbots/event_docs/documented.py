"""What both documents tell: every event with its schema, its stream, its example, and who listens."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from inspect import getdoc, getmodule
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, models_json_schema

from domains.published import PUBLISHED, stream_pattern
from events.consumer import Consumer
from events.event import Event
from events.recorded import RecordedEvent, matches
from kernel.messages import DomainName
from mallbots.event_docs.examples import example_of

REFERENCE: Final = "#/components/schemas/"

Schema = dict[str, Any]

HEADERS: Final = {
    "Nats-Msg-Id": "the event's id; JetStream drops a repeat by it",
    "Mallbots-Position": "where it stands in its domain's log: its transaction and its number",
    "Mallbots-Previous": "the position of the event before it in the log, so that a reader sees a gap",
    "Mallbots-Stream-Version": "its version in its stream",
    "Mallbots-Schema-Version": "the schema version of its data",
    "Mallbots-Recorded-At": "when it was written",
    "Mallbots-Correlation-Id": "the story that it belongs to: the order's id, or one for each import",
    "Mallbots-Causation-Id": "the step (activity, workflow run, activity id) or event that led to it, if one did",
    "traceparent": "the trace that it was written in (W3C Trace Context)",
    "tracestate": "what a tracing system wants to know of it besides",
}
"""What the headers of a message say."""

_MEANINGS: Final = {
    "alternatives": "products, the first choice first",
    "amount_cents": "what is held or due",
    "available": "pieces that could be sold",
    "brand": "the product's brand; may be empty",
    "by": "the member of staff",
    "carried": "what a robot still carries",
    "change_cents": "what was given back of the cash",
    "code": "the reason for programs",
    "currency": "ISO 4217",
    "customer": "for whom it is, if the kiosk knows",
    "dearer_substitute": "whether a substitute may cost more",
    "detail": "the reason for people",
    "difference": "pieces more than were known; fewer, if negative",
    "if_missing": "what to do if a robot does not find it",
    "kiosk": "the kiosk that sent it, by name",
    "low_at": "how few are few",
    "method": "how the customer pays",
    "missing": "what was not found, and was not known to be missing before",
    "on_hand": "pieces on the shelf, those held for orders included",
    "open": "whether it sells now",
    "order_id": "the order",
    "payment_method": "how the customer pays",
    "pickup_code": "what the customer shows at the desk",
    "pickup_until": "when its pickup window ends",
    "placed_at": "when it was placed",
    "price_cents": "the price of one piece",
    "quantity": "pieces",
    "receipt": "the delivery",
    "reference": "the hold at the payment provider; null if it is paid at pickup",
    "refund_id": "the refund",
    "robot": "the robot, by name",
    "round": "the number of the adjustment",
    "sku": "the product",
    "stops": "a stop for each store",
    "store": "the store, by name",
    "store_id": "the store",
    "substituted": "what is had instead of missing pieces",
    "substitutes": "what is held instead of missing pieces",
    "tendered_cents": "the cash that was given",
    "total_cents": "the sum of all lines",
    "unit_price_cents": "the price of one piece",
    "Cancellation.by": "who cancelled",
    "Cancellation.name": "the member of staff",
    "Cancellation.reason": "why, in their words",
    "PaymentCaptured.amount_cents": "what was taken",
    "PaymentCaptured.method": "how it was paid",
    "PaymentCaptured.reference": "the payment at the provider; null if it was cash",
    "PaymentRefunded.amount_cents": "what was given back",
    "PaymentRefunded.method": "how it had been paid",
    "PaymentRefunded.reference": "the refund at the provider; null if it was cash",
    "PaymentRefundFailed.amount_cents": "what was not given back",
    "OrderRefunded.amount_cents": "what is given back",
    "RefusedLine.quantity": "pieces that were asked for",
    "PickupReminded.number": "the number of the reminder",
    "ShoppingListReleased.robot": "the robot that lost it; null if none had it",
    "StockRanLow.available": "pieces that can still be ordered",
    "StockFoundMissing.quantity": "pieces that were not found",
    "Substitution.sku": "the product that is missing",
}
"""What a field means: one name means one thing, except where its model is named with it."""


@dataclass(frozen=True)
class Documented:
    """An event as the documents tell of it. `stream` reads as `order-<order id>`, `listeners` are consumers by
    name, and `changes` say for each schema version but the first what came with it."""

    domain: DomainName
    kind: type[Event]
    example: RecordedEvent
    listeners: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.kind.__name__

    @property
    def meaning(self) -> str:
        return prose(self.kind)

    @property
    def stream(self) -> str:
        prefix, _, field = stream_pattern(self.kind).partition("{")
        return f"{prefix}<{field.rstrip('}').replace('_', ' ')}>"

    @property
    def changes(self) -> Mapping[int, str]:
        return {version + 1: prose(upcast) for version, upcast in sorted(self.kind.upcasters.items())}


class Documentation:
    """All events of the mall, for these consumers. Domains, events and consumers are in the order of the code."""

    def __init__(self, consumers: Iterable[Consumer]) -> None:
        self.consumers = tuple(consumers)
        self.events = tuple(
            self._documented(domain, kind) for domain, published in PUBLISHED.items() for kind in published.events
        )

    def of(self, domain: DomainName) -> list[Documented]:
        """The events that a domain writes."""
        return [event for event in self.events if event.domain == domain]

    @cached_property
    def schemas(self) -> Mapping[str, Schema]:
        """The JSON schema of each event and of each part of one, by name.

        They tell what a reader meets: a field with a default may be missing in what older code wrote.
        """
        return schemas_of([event.kind for event in self.events], "validation")

    @property
    def parts(self) -> list[str]:
        """The names of what events are made of."""
        events = {event.name for event in self.events}
        return sorted(name for name in self.schemas if name not in events)

    def _documented(self, domain: DomainName, kind: type[Event]) -> Documented:
        example = example_of(domain, kind)
        listeners = (
            consumer.name
            for consumer in self.consumers
            if any(matches(example.subject, pattern) for pattern in consumer.subjects)
        )
        return Documented(domain, kind, example, tuple(listeners))


def schemas_of(models: Iterable[type[BaseModel]], mode: JsonSchemaMode) -> dict[str, Schema]:
    """The JSON schema of each model and of each part of one, by name, as it is read or as it is written."""
    _, schema = models_json_schema(
        [(model, mode) for model in models],
        ref_template=f"{REFERENCE}{{model}}",
        schema_generator=_Schemas,
    )
    return {name: _described(name, one) for name, one in schema["$defs"].items()}


def purpose(consumer: Consumer) -> str:
    """What a consumer is for, as the module of its handler says it first."""
    module = getmodule(consumer.handle)
    assert module is not None
    return prose(module)


class _Schemas(GenerateJsonSchema):
    """Without a title for each field, which would only repeat its name. What is written has all of its fields."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def field_is_required(self, field: Any, total: bool) -> bool:
        return self.mode == "serialization" or super().field_is_required(field, total)


def _described(model: str, schema: Schema) -> Schema:
    """The schema with its docstring on one line, and a meaning for each field that has one."""
    fields = {}
    for name, field in schema["properties"].items():
        meaning = _MEANINGS.get(f"{model}.{name}") or _MEANINGS.get(name)
        fields[name] = {"description": meaning, **field} if meaning else field
    return schema | {"description": _one_line(schema["description"]), "properties": fields}


def prose(described: object) -> str:
    """The first paragraph of a docstring, as one line. Raises `LookupError` if there is none."""
    docstring = getdoc(described)
    if not docstring:
        raise LookupError(f"{described} has no docstring: the documents tell what it says")
    return _one_line(docstring.split("\n\n")[0])


def _one_line(text: str) -> str:
    return " ".join(text.split())

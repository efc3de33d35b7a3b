"""The catalogue of events for people, `docs/events.md`."""

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

from events.consumer import DOMAINS
from events.partition import MOST_ATTEMPTS
from events.recorded import ROOT, RecordedEvent
from events.stream import STREAM
from events.work_queue import WORK_STREAM
from mallbots.event_docs.documented import HEADERS, REFERENCE, Documentation, Documented, Schema, purpose
from mallbots.event_docs.examples import headers_of

_INTRODUCTION: Final = """\
# Events

<!-- Written by `make docs` from the code: edits here are lost. -->

An event is a fact: something that happened in one of the four domains, named in the past tense. The domain writes
it in the same transaction as the change that it tells of. It is never altered and never taken back. Whoever wants
to know, listens; the domain does not know who does.

[asyncapi.yaml](asyncapi.yaml) says the same for programs, and [decisions.md](decisions.md) why it is so.

- [How an event travels](#how-an-event-travels)
- [In which order](#in-which-order)
- [How to listen](#how-to-listen)
- [How an event may change](#how-an-event-may-change)
- [Streams and queues](#streams-and-queues)
- [Three uses of events](#three-uses-of-events)
- [Who listens](#who-listens)
- The events of {contents}
- The [parts](#parts) that events are made of

## How an event travels

```mermaid
flowchart LR
    service[a domain's service] -- "the change and its event<br/>in one transaction" --> table[(its table)]
    table -- relay --> stream[("{stream}<br/>in JetStream")]
    stream --> consumers[consumers,<br/>each with its position]
    table -. "what the stream<br/>has no more" .-> consumers
```

1. **Table.** Each domain has a table `events`: its event store and its outbox in one. An event has a place in a
   *stream*, the story of one thing such as an order, where it is version 1, 2, 3 and so on (`events/store.py`).
   (JetStream calls a stream what holds many of these.)
2. **Relay.** The relay of the domain reads the table in the order of its log and publishes each event once. It
   goes on after any crash of its own, of PostgreSQL or of NATS (`events/relay.py`).
3. **Stream.** JetStream keeps the events of all domains in `{stream}`. A subject is
   `{root}.<domain>.<Event>.<stream>`, so that a listener can ask for a domain (`{root}.orders.>`) or for an event
   (`{root}.orders.OrderApproved.*`) (`events/stream.py`).
4. **Consumers.** Each notes how far it has read in its own database, in the transaction of what it makes of an
   event (`events/consumer.py`).

A message is the event's data as JSON; all that is recorded beside it is in the headers:

```
{subject}

{headers}

{data}
```

| Header | What it says |
| --- | --- |
{header_rows}

## In which order

- **In a stream**, events come by version, without a gap. There is one writer for each version: of two that saw the
  same one, the later is sent back.
- **In a domain's log**, events have one order for everybody: that of their positions, which respects the versions
  of every stream. Nothing that commits late is skipped.
- **Between domains** there is no order. `PaymentAuthorized` may be read before the `OrderPlaced` that led to it.
  What belongs together shares the correlation id.
- **A consumer** handles the events of a stream one after the other, each after the one before took effect. With
  several partitions, different streams are handled side by side.
- An event may be delivered twice and **takes effect once**, as its effect and the consumer's position are written
  together. What acts on the world outside the consumer's database must bear a repeat: use the event's id as a key.
- An event that a consumer can not handle in {attempts} attempts is set aside with what follows in its stream; all
  other streams go on. `mallbots events dead-letters` lists what waits, `mallbots events retry` sends it again.

## How to listen

Nobody needs to be asked, and nobody notices. A new consumer begins with the first event of each domain, however
old: what `{stream}` has no more is read from the domain's table. This one counts what is sold:

```sql
CREATE TABLE analytics.pieces_sold (sku varchar PRIMARY KEY, pieces bigint NOT NULL)
```

```python
import asyncio

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domains.orders.messages import OrderApproved
from events.consumer import Consumer
from events.recorded import RecordedEvent
from mallbots.consuming import Role, consume
from mallbots.settings import Settings

ADD = text(
    "INSERT INTO analytics.pieces_sold VALUES (:sku, :quantity)"
    " ON CONFLICT (sku) DO UPDATE SET pieces = pieces_sold.pieces + excluded.pieces"
)


async def count(connection: AsyncConnection, event: RecordedEvent) -> None:
    for line in event.read(OrderApproved).lines:
        await connection.execute(ADD, {{"sku": line.sku, "quantity": line.quantity}})


CONSUMER = Consumer("pieces-sold", "analytics", ("{root}.orders.OrderApproved.*",), count)

if __name__ == "__main__":
    asyncio.run(consume(Settings.load(), [Role("analytics", lambda settings: CONSUMER)]))
```

The handler writes on the connection that it is given, and the position moves in the same transaction. The schema
needs the two tables of `events/tables.py`, as that of Analytics has them; a new schema gets them by its first
migration (`mallbots/migrations/consumer_tables.py`). A consumer that the mall is to run gets a line in
`consumers/homes.py`, and is in this catalogue with the next `make docs`.

## How an event may change

What was written stays as it was written, for ever. So a reader must understand every version that there ever was;
the class in the code is the newest, and `Event.read` makes it from any (`events/event.py`).

| Change | What to do |
| --- | --- |
| a new field that has a default | nothing: older data gets the default, and older readers pass the field over |
| another name, type or meaning; a field that goes; a new one without a default \
| raise `schema_version` by one, and give `upcasters` the way there from the version before |
| a new event | add it to `EVENTS` and `STREAMS` of its domain, and to `mallbots/event_docs/examples.py` |

An upcaster takes the data of one version and returns that of the next; `renamed("items", "lines")` is the one for
a new name. A class that lacks one is refused when it is defined. Consumers know nothing of this: the store and the
stream upcast alike. `tests/data/events.jsonl` has every event at every version as the code of its day wrote it,
and must be read for ever: a new version adds a line and changes none.

## Streams and queues

JetStream has two, because facts and jobs are not the same:

| | `{stream}` | `{work_stream}` |
| --- | --- | --- |
| holds | facts: every event of every domain | jobs: things to be done once |
| who reads | everybody; each subscriber sees every event | each job goes to one worker |
| reading | takes nothing away, and anybody may read again | an acknowledged job is gone |
| a reader dies | it goes on at its own position | the job is given to another until one acknowledges it |
| what is dropped | what is too old or too much, from NATS alone: the tables keep all | nothing |
| order | that of each domain's log | none |
| here | what this catalogue lists | notifications that are to be sent |
| code | `events/stream.py`, `events/consumer.py` | `events/work_queue.py` |

A consumer is the right place to *know* something: what it makes of an event goes into its database in one
transaction. It is the wrong place to wait for a slow service outside: the events behind would wait, too. So the
consumer `notifications` only writes down what a customer is to be told. Its job goes to the queue after that, and
whichever worker has it tries to send until it went through, while other events and other jobs go on
(`consumers/notifications/sender.py`).

## Three uses of events

**Notification**: the event says that something happened, and who hears it acts or asks back. `notifications` has
the customer told what becomes of the order (`consumers/notifications/consumer.py`). Stores hears from Depot what a
robot took back to the shelf, and lets it be sold again (`consumers/returns.py`). Clients of the staff's WebSocket
are told of every event (`api/staff/events.py`), and ask the API for what else they show.

**Carried state**: the event carries what its readers need, and they keep a copy, so that they never ask and go on
while the other domain is down. `depot-copies` keeps the names of stores and products for the robots, and
`orders-copies` the names of products for orders (`consumers/copies.py`). Analytics makes its figures of what the
events carry, and asks no domain.

**Event sourcing**: the events are the state. An order and a payment are the left fold of their streams, by
`domains/orders/model.py` and `domains/payments/model.py`; their rows are only there to find them by.
`mallbots events show order-<order id>` prints the stream and what it folds to, at any version. Stores and Depot
keep rows, where thousands touch the same numbers, and write their events beside them.

## Who listens

| Consumer | What it is for | Where it keeps its position | What it asks for |
| --- | --- | --- | --- |
{consumer_rows}

Below, times are UTC as in RFC 3339, and amounts are integers in cents. A field is always there, unless it is said
what it means that it is missing.
"""


def catalogue(documentation: Documentation) -> str:
    """The whole document, in Markdown."""
    example = next(event.example for event in documentation.events if event.name == "OrderApproved")
    introduction = _INTRODUCTION.format(
        attempts=MOST_ATTEMPTS,
        consumer_rows="\n".join(
            _row(f"`{one.name}`", purpose(one), f"schema `{one.schema}`", ", ".join(map(_code, one.subjects)))
            for one in documentation.consumers
        ),
        contents=", ".join(f"[{domain.title()}](#{domain})" for domain in DOMAINS),
        data=json.dumps(example.fields(), indent=2),
        header_rows="\n".join(_row(f"`{name}`", meaning) for name, meaning in HEADERS.items()),
        headers=_headers(example),
        root=ROOT,
        stream=STREAM,
        subject=example.subject,
        work_stream=WORK_STREAM.name,
    )
    return "\n".join([introduction, *_all_events(documentation)])


def _all_events(documentation: Documentation) -> Iterator[str]:
    for domain in DOMAINS:
        yield f"## {domain.title()}\n"
        yield from _events(documentation.of(domain), documentation)
    yield "## Parts\n"
    yield "What events are made of; several share them.\n"
    for name in documentation.parts:
        yield f"### {name}\n"
        yield f"{documentation.schemas[name]['description']}\n"
        yield from _fields(documentation.schemas[name])


def _events(events: Sequence[Documented], documentation: Documentation) -> Iterator[str]:
    yield _row("Event", "Schema version", "What it means", "Stream", "Who listens")
    yield _row(*["---"] * 5)
    for event in events:
        yield _row(
            f"[{event.name}](#{event.name.lower()})",
            str(event.kind.schema_version),
            event.meaning,
            _code(event.stream),
            ", ".join(map(_code, event.listeners)) or "nobody yet",
        )
    yield ""
    for event in events:
        yield f"### {event.name}\n"
        yield f"`{ROOT}.{event.domain}.{event.name}.{event.stream}`\n"
        yield from _fields(documentation.schemas[event.name])
        if event.changes:
            yield "What changed since its first version:\n"
            yield from (f"- in version {version}: {what}" for version, what in event.changes.items())
            yield ""


def _fields(schema: Schema) -> Iterator[str]:
    for name, field in schema["properties"].items():
        yield f"- {_code(name)}: {'; '.join([_type(field), *_rules(name, field)])}"
    yield ""


def _type(field: Schema) -> str:
    """What a field holds, in a word or a link."""
    match field:
        case {"$ref": str(reference)}:
            part = reference.removeprefix(REFERENCE)
            return f"[{part}](#{part.lower()})"
        case {"anyOf": list(choices)}:
            return " or ".join(map(_type, choices))
        case {"type": "array", "items": dict(items)}:
            return f"list of {_type(items)}"
        case {"format": "uuid"}:
            return "UUID"
        case {"format": "date-time"}:
            return "time"
        case {"type": "string"}:
            return "text"
        case {"type": str(name)}:
            return name
    raise LookupError(f"no words for the type of {field}")


def _rules(name: str, field: Schema) -> Iterator[str]:
    """What a field means and the rules that it keeps, in words."""
    if "description" in field:
        yield field["description"]
    if name.endswith("_cents"):
        yield "in cents"
    for choice in field.get("anyOf", [field]):
        yield from _limits(choice)
    if "default" in field:
        yield f"{_code(json.dumps(field['default']))} if it is missing"


def _limits(field: Schema) -> Iterator[str]:
    if "enum" in field:
        yield " or ".join(map(_code, field["enum"]))
    if "const" in field:
        yield f"always {_code(field['const'])}"
    if "minimum" in field or "maximum" in field:
        yield ", ".join(
            f"{words} {field[limit]:,}"
            for words, limit in (("at least", "minimum"), ("at most", "maximum"))
            if limit in field
        )
    if "minLength" in field:
        yield f"at least {field['minLength']} characters"
    if "maxLength" in field:
        yield f"at most {field['maxLength']} characters"
    if "pattern" in field:
        yield f"matches {_code(field['pattern'])}"


def _headers(example: RecordedEvent) -> str:
    return "\n".join(f"{name}: {value}" for name, value in headers_of(example).items())


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _code(value: Any) -> str:
    return f"`{value}`"

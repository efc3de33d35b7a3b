"""The documents of the events: up to date, true, and valid AsyncAPI."""

import copy
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator, FormatChecker
from referencing import Registry
from referencing.jsonschema import DRAFT7
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.routing import WebSocketRoute

from api.live.messages import EventMessage, Hello, PositionMessage
from api.staff.events import router as websocket
from domains.depot.messages import RobotOnline
from domains.orders.messages import ApproveOrder, OrderApproved
from domains.orders.service import Orders
from domains.published import PUBLISHED
from domains.stores.messages import StoreOpened
from events.consumer import Consumer
from events.event import Event
from events.recorded import RecordedEvent
from events.stream import connected
from kernel.database import Database
from mallbots.consuming import ALL_ROLES, Role, consume
from mallbots.event_docs import documents
from mallbots.event_docs.asyncapi import asyncapi
from mallbots.event_docs.catalogue import catalogue
from mallbots.event_docs.documented import HEADERS, Documentation
from mallbots.event_docs.examples import example_of
from mallbots.relaying import relay
from mallbots.settings import Settings
from tests.events.log import running
from tests.nats import a_nats_server
from tests.samples import place, priced
from tests.waiting import eventually

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
CATALOGUE = (DOCS / "events.md").read_text()
ASYNCAPI: dict[str, Any] = yaml.safe_load((DOCS / "asyncapi.yaml").read_text())
SPECIFICATION = json.loads((ROOT / "tests" / "data" / "asyncapi" / "3.0.0.json").read_text())
CONSUMERS = [role.consumer(Settings()) for role in ALL_ROLES.values()]


@pytest.mark.parametrize("name", ["events.md", "asyncapi.yaml"])
def test_the_documents_say_what_the_code_says(name: str) -> None:
    assert (DOCS / name).read_text() == documents()[name], "run `make docs`"


def test_the_documents_are_the_same_wherever_they_are_written(tmp_path: Path) -> None:
    environment = os.environ | {
        "MALLBOTS_CURRENCY": "JPY",
        "MALLBOTS_NATS_URL": "nats://elsewhere:4222",
        "PYTHONHASHSEED": "7",
        "TZ": "Asia/Tokyo",
    }
    command = (sys.executable, "-m", "mallbots.event_docs", str(tmp_path))
    subprocess.run(command, env=environment, check=True, timeout=30)
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == documents()


# The catalogue


def test_the_catalogue_tells_of_every_event_its_stream_its_meaning_and_who_listens() -> None:
    rows = [row for row in CATALOGUE.splitlines() if row.startswith("| [")]
    told = [tuple(cell.strip() for cell in row.strip("|").split("|")) for row in rows]
    assert len(told) == len(Documentation(CONSUMERS).events)
    assert (
        "[OrderApproved](#orderapproved)",
        "2",
        "The order will be shopped; prices are fixed.",
        "`order-<order id>`",
        ", ".join(f"`{one.name}`" for one in CONSUMERS if _hears(one, "orders", OrderApproved)),
    ) in told
    assert "- in version 2: `items` is now `lines`." in _section("OrderApproved")
    assert "- `total_cents`: integer; the sum of all lines; in cents" in _section("OrderApproved")


def test_every_link_of_the_catalogue_leads_somewhere() -> None:
    headings = {re.sub(r"[^\w-]", "", line.lstrip("# ").lower().replace(" ", "-")) for line in _headings()}
    links = re.findall(r"\]\(([^)]+)\)", CATALOGUE)
    assert links
    for link in links:
        assert link[1:] in headings if link.startswith("#") else (DOCS / link).exists(), link


def test_the_catalogue_names_only_code_and_consumers_that_there_are() -> None:
    files = set(re.findall(r"`((?:\w+/)+\w+\.\w+)`", CATALOGUE))
    assert "events/consumer.py" in files
    assert [file for file in sorted(files) if not (ROOT / file).exists()] == []
    uses = CATALOGUE.split("## Three uses of events")[1].split("\n## ")[0]
    named = set(re.findall(r"`([a-z]+(?:-[a-z]+)?)`", uses))
    assert named >= {"notifications", "depot-copies", "orders-copies"}
    assert named <= {consumer.name for consumer in CONSUMERS}


def test_the_message_in_the_catalogue_is_one() -> None:
    (block,) = (block for kind, block in _blocks() if kind == "")
    subject, head, data = block.split("\n\n", 2)
    headers = dict(line.split(": ", 1) for line in head.splitlines())
    event = RecordedEvent.from_message(subject, headers, data.encode(), sequence=1)
    example = example_of("orders", OrderApproved)
    assert event.read(OrderApproved) == example.read(OrderApproved)
    assert (event.stream, event.id, event.recorded_at) == (example.stream, example.id, example.recorded_at)
    told = re.findall(r"^\| `([A-Za-z-]+)` \|", CATALOGUE.split("## In which order")[0], re.MULTILINE)
    assert set(headers) <= set(told) == set(HEADERS)


async def test_the_consumer_in_the_catalogue_works(
    fresh_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = dict(_blocks())
    module = ModuleType("pieces_sold")
    exec(compile(blocks["python"], "events.md", "exec"), module.__dict__)  # noqa: S102
    url = fresh_database.engine.url.render_as_string(hide_password=False)
    for name in ("orders", "stores", "payments", "depot", "analytics"):
        monkeypatch.setenv(f"MALLBOTS_{name.upper()}_DATABASE_URL", url)
    orders = Orders(fresh_database)

    async def approve(quantity: int) -> None:
        await orders.place(order := place())
        lines = [priced("tea", quantity), priced("mug", 1)]
        await orders.approve(ApproveOrder(order_id=order.order_id, lines=lines, total_cents=1))

    async def sold() -> dict[str, int]:
        async with fresh_database.transaction() as connection:
            rows = await connection.execute(text("SELECT sku, pieces FROM analytics.pieces_sold"))
            return {row.sku: row.pieces for row in rows}

    async with fresh_database.transaction() as connection:
        await connection.execute(text(blocks["sql"]))
    await approve(2)
    with a_nats_server() as nats:
        await nats.start()
        monkeypatch.setenv("MALLBOTS_NATS_URL", nats.url)
        settings = Settings()
        mine = Role("analytics", lambda settings: module.CONSUMER)
        async with running(relay(settings, "orders"), consume(settings, [mine])):
            await eventually(lambda: _equals(sold, {"tea": 2, "mug": 1}))
            await approve(3)
            await eventually(lambda: _equals(sold, {"tea": 5, "mug": 2}))
        async with connected(nats.url, "test") as there:
            message = await there.jetstream.get_msg("MALLBOTS", seq=2)
    assert message.subject is not None
    assert message.subject.startswith("mallbots.orders.OrderApproved.order-")
    _valid(message.headers, "#/components/schemas/Headers")
    _valid(json.loads(message.data or b""), "#/components/schemas/OrderApproved")


# AsyncAPI


def test_the_description_is_valid_asyncapi() -> None:
    assert _errors(ASYNCAPI) == []


def _misspell(document: dict[str, Any]) -> None:
    channel = document["channels"]["OrderPlaced"]
    channel["adress"] = channel.pop("address")


def _say_what_is_not_done(document: dict[str, Any]) -> None:
    document["operations"]["relay-orders.OrderPlaced"]["action"] = "publish"


def _type_as_there_is_none(document: dict[str, Any]) -> None:
    document["components"]["schemas"]["OrderPlaced"]["properties"]["kiosk"]["type"] = "text"


@pytest.mark.parametrize(
    ("broken_by", "path"),
    [
        (_misspell, "$.channels.OrderPlaced"),
        (_say_what_is_not_done, "$.operations['relay-orders.OrderPlaced']"),
        (_type_as_there_is_none, "$.components.schemas.OrderPlaced.properties.kiosk.type"),
    ],
)
def test_a_description_that_is_not_valid_is_found_out(
    broken_by: Callable[[dict[str, Any]], None], path: str
) -> None:
    document = copy.deepcopy(ASYNCAPI)
    broken_by(document)
    assert set(_errors(document)) == {path}


def test_every_reference_leads_somewhere() -> None:
    references = list(_references(ASYNCAPI))
    assert len(references) > 100
    resolver = _registry().resolver("urn:asyncapi")
    for reference in references:
        resolver.lookup(reference)


@pytest.mark.parametrize("name", [event.name for event in Documentation(CONSUMERS).events])
def test_the_example_of_a_message_keeps_its_own_schemas(name: str) -> None:
    message = ASYNCAPI["components"]["messages"][name]
    (example,) = message["examples"]
    _valid(example["payload"], message["payload"]["$ref"])
    _valid(example["headers"], "#/components/schemas/Headers")
    assert example["headers"]["Mallbots-Schema-Version"] == str(message["x-schema-version"])
    address = ASYNCAPI["channels"][name]["address"]
    (stream,) = ASYNCAPI["channels"][name]["parameters"]["stream"]["examples"]
    subject = address.replace("{stream}", stream)
    event = RecordedEvent.from_message(
        subject, example["headers"], json.dumps(example["payload"]).encode(), sequence=1
    )
    assert event.subject == subject
    for field in ASYNCAPI["components"]["schemas"][name]["required"]:
        lacking = {one: value for one, value in example["payload"].items() if one != field}
        assert not _validator(message["payload"]["$ref"]).is_valid(lacking), field


def test_a_message_with_headers_of_another_form_is_found_out() -> None:
    (example,) = ASYNCAPI["components"]["messages"]["OrderPlaced"]["examples"]
    for name, wrong in {
        "Nats-Msg-Id": "7",
        "Mallbots-Position": "7",
        "Mallbots-Stream-Version": "0",
        "Mallbots-Recorded-At": "yesterday",
        "traceparent": "none",
    }.items():
        headers = {**example["headers"], name: wrong}
        assert not _validator("#/components/schemas/Headers").is_valid(headers), name


def test_relays_send_what_is_written_and_consumers_receive_what_they_ask_for() -> None:
    operations = {name: one["action"] for name, one in ASYNCAPI["operations"].items()}
    events = Documentation(CONSUMERS).events
    sent = {f"relay-{one.domain}.{one.name}": "send" for one in events}
    received = {
        f"{consumer.name}.{one.name}": "receive"
        for consumer in CONSUMERS
        for one in events
        if _hears(consumer, one.domain, one.kind)
    }
    assert operations == sent | received | {"api.staffEvents": "send"}
    assert {"depot-copies.StoreOpened", "orders-copies.ProductAdded", "trail.OrderPlaced"} <= set(received)
    for name in sent | received:
        operation = ASYNCAPI["operations"][name]
        assert operation["channel"]["$ref"] == f"#/channels/{name.rpartition('.')[2]}"


def test_the_websocket_for_staff_is_described_as_it_is() -> None:
    channel = ASYNCAPI["channels"]["staffEvents"]
    assert channel["address"] in [route.path for route in websocket.routes if isinstance(route, WebSocketRoute)]
    caused, uncaused = example_of("stores", StoreOpened), example_of("depot", RobotOnline)
    sent = [
        Hello(position=0, topics=["depot"]),
        EventMessage.of(replace(caused, sequence=1)),
        EventMessage.of(replace(uncaused, sequence=2)),
        PositionMessage(position=7),
    ]
    for message in sent:
        _valid(json.loads(message.model_dump_json()), f"#/components/schemas/{type(message).__name__}")
    assert set(channel["messages"]) == {type(message).__name__ for message in sent}
    for name in channel["messages"]:
        (example,) = ASYNCAPI["components"]["messages"][name]["examples"]
        _valid(example["payload"], f"#/components/schemas/{name}")
        for field in example["payload"]:
            lacking = {one: value for one, value in example["payload"].items() if one != field}
            assert not _validator(f"#/components/schemas/{name}").is_valid(lacking), field


def test_a_new_consumer_is_in_both_documents() -> None:
    async def handle(connection: AsyncConnection, event: RecordedEvent) -> None:
        """Nothing is made of it here."""

    documentation = Documentation([Consumer("newcomer", "mine", ("mallbots.payments.*.*",), handle)])
    described = yaml.safe_load(asyncapi(documentation))
    received = [name for name, one in described["operations"].items() if one["action"] == "receive"]
    assert received == [f"newcomer.{kind.__name__}" for kind in PUBLISHED["payments"].events]
    assert _errors(described) == []
    assert catalogue(documentation).count("| `newcomer` |") == 1 + len(received)


def test_an_event_without_an_example_is_told() -> None:
    class Rained(Event):
        """It rained."""

    with pytest.raises(LookupError, match="Rained has no example in mallbots"):
        example_of("orders", Rained)


def _hears(consumer: Consumer, domain: Any, kind: type[Event]) -> bool:
    event = example_of(domain, kind)
    return consumer.wants(event, consumer.partition_of(event))


def _headings() -> Iterator[str]:
    text_alone = re.sub(r"```.*?```", "", CATALOGUE, flags=re.DOTALL)
    return (line for line in text_alone.splitlines() if line.startswith("#"))


def _blocks() -> list[tuple[str, str]]:
    """The fenced blocks of the catalogue, with the language of each."""
    return re.findall(r"```(\w*)\n(.*?)\n```", CATALOGUE, flags=re.DOTALL)


def _section(name: str) -> str:
    return CATALOGUE.split(f"\n### {name}\n")[1].split("\n#")[0]


async def _equals(ask: Callable[[], Any], expected: Any) -> bool:
    return bool(await ask() == expected)


def _errors(document: dict[str, Any]) -> list[str]:
    """Where a document breaks AsyncAPI's own schema. That has all its parts in it, and nothing is fetched."""
    return [error.json_path for error in Draft7Validator(SPECIFICATION, registry=Registry()).iter_errors(document)]


def _registry() -> "Registry[Any]":
    registry: Registry[Any] = Registry().with_resource("urn:asyncapi", DRAFT7.create_resource(ASYNCAPI))
    return registry


_FORMATS = FormatChecker()


@_FORMATS.checks("date-time", raises=ValueError)
def _is_a_time(value: object) -> bool:
    return datetime.fromisoformat(str(value)).tzinfo is not None


def _validator(reference: str) -> Draft7Validator:
    return Draft7Validator({"$ref": f"urn:asyncapi{reference}"}, registry=_registry(), format_checker=_FORMATS)


def _valid(value: Any, reference: str) -> None:
    _validator(reference).validate(value)


def _references(node: Any) -> Iterator[str]:
    match node:
        case {"$ref": str(reference)}:
            yield reference
        case dict():
            for value in node.values():
                yield from _references(value)
        case list():
            for value in node:
                yield from _references(value)

"""The audit holds the stream against the tables: what is missing, foreign or out of order in it is told."""

import pytest

from events.log import EventLog
from events.recorded import START, RecordedEvent
from events.stream import connected
from kernel.database import Database
from kernel.ids import new_id
from mallbots.audit import PUBLISHED, _findings
from mallbots.audit_look import Look, _read_stream
from mallbots.settings import DATABASES, Settings
from tests.events.log import all_published, relay, running, write_many
from tests.nats import NatsServer


@pytest.fixture
async def settings(fresh_database: Database, own_nats: NatsServer) -> Settings:
    """Those of a mall whose Depot has published twelve events."""
    await write_many(fresh_database, streams=3, events=4)
    async with running(relay(fresh_database, own_nats.url)):
        await all_published(fresh_database, own_nats.url)
    url = fresh_database.engine.url.render_as_string(hide_password=False)
    return Settings.model_validate(
        {**{f"{name}_database_url": url for name in DATABASES}, "nats_url": own_nats.url}
    )


async def findings(settings: Settings) -> tuple[int, set[tuple[str, str]]]:
    """How many published events were looked at, and what was found: whom, and how."""
    look = Look()
    await _read_stream(settings, look)
    told = list(_findings(look))
    assert all(finding.promise == PUBLISHED for finding in told)
    return look.published, {(finding.subject, finding.detail) for finding in told}


async def publish(url: str, event: RecordedEvent, **changes: str) -> None:
    """Publish an event as no relay would."""
    headers = event.headers(event.previous or event.position) | changes
    async with connected(url, "test") as nats:
        await nats.jetstream.publish(event.subject, event.data, headers=headers)


async def test_a_stream_that_has_every_event_once_is_clean(settings: Settings) -> None:
    assert await findings(settings) == (12, set())


async def test_an_event_that_is_not_in_the_stream_is_told(settings: Settings) -> None:
    async with connected(settings.nats_address(), "test") as nats:
        await nats.jetstream.delete_msg("MALLBOTS", 7)
    lost = (await all_events(settings))[6]
    assert await findings(settings) == (11, {(f"depot {lost.id}", "not published")})


async def test_an_event_that_nobody_recorded_is_told(settings: Settings) -> None:
    (*_, last) = await all_events(settings)
    stranger = new_id()
    await publish(settings.nats_address(), last, **{"Nats-Msg-Id": str(stranger)})
    assert await findings(settings) == (13, {(f"depot {stranger}", "published, but not recorded")})


async def all_events(settings: Settings) -> list[RecordedEvent]:
    """What Depot has recorded, in the order of its log."""
    database = Database("depot", settings.database_url("depot"))
    async with database.transaction() as connection:
        events = (await EventLog("depot").after(connection, START)).events
    await database.close()
    return events

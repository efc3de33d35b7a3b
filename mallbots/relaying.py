"""The relays of the domains, as a process."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

from events.consumer import DOMAINS
from events.relay import Relay
from events.stream import Limits, event_stream
from kernel.database import Database
from kernel.messages import DomainName
from mallbots.processes import run_process
from mallbots.settings import Settings

_CONNECTIONS = 2


def run(settings: Settings, domains: Sequence[DomainName] = ()) -> None:
    """Relay these domains' events (all domains', if none is named) until SIGTERM or Ctrl-C.

    Raises `Misconfigured` if a domain has no URL, or the stream in NATS is not ours.
    """
    run_process(settings, "relay", *(relay(settings, domain) for domain in domains or DOMAINS))


async def relay(settings: Settings, domain: DomainName) -> None:
    """Relay one domain's events until cancelled."""
    stream = event_stream(Limits(timedelta(days=settings.stream_days), settings.stream_bytes))
    database = Database(domain, settings.database_url(domain), pool_size=_CONNECTIONS)
    try:
        await Relay(domain, database, settings.nats_address(), stream).run()
    finally:
        await asyncio.shield(database.close())

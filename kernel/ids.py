"""Ids and times, as all of MallBots makes them."""

from datetime import UTC, datetime
from uuid import UUID

from uuid_utils.compat import uuid7


def new_id() -> UUID:
    """A UUID of version 7: unique, and sorted by the time it was made."""
    return uuid7()


def now() -> datetime:
    """The time of this moment, aware, in UTC. Workflows use `workflow.now()` instead."""
    return datetime.now(UTC)

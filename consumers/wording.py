"""How consumers tell people of events."""

from datetime import UTC, datetime


def at(moment: datetime) -> str:
    """A time as people read it: `2026-03-15 09:26 UTC`."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def listed(words: list[str]) -> str:
    """`a, b and c`; empty if there are none."""
    return " and ".join(part for part in (", ".join(words[:-1]), *words[-1:]) if part)

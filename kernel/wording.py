"""How people read amounts and counts. Money itself is integer minor units with an ISO 4217 currency."""

from typing import Final

MINOR_UNITS: Final[dict[str, int]] = {"JPY": 0, "KRW": 0, "VND": 0, "CLP": 0, "KWD": 3, "BHD": 3, "JOD": 3}
"""Digits after the point where they are not two (ISO 4217), for showing amounts only."""


def format_money(amount_cents: int, currency: str) -> str:
    """An amount in minor units as people read it: `format_money(2949, "USD")` is `29.49 USD`."""
    digits = MINOR_UNITS.get(currency, 2)
    if digits == 0:
        return f"{amount_cents} {currency}"
    whole, part = divmod(amount_cents, 10**digits)
    return f"{whole}.{part:0{digits}d} {currency}"


def count(number: int, noun: str) -> str:
    """So many of a thing: `count(1, "stop")` is `1 stop`, `count(2, "stop")` is `2 stops`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"

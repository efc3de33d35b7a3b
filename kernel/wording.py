"""How people read amounts and counts. Money itself is integer minor units with an ISO 4217 currency."""

from typing import Final

_NONE: Final = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX VND VUV XAF XOF XPF"
_THREE: Final = "BHD IQD JOD KWD LYD OMR TND"
_FOUR: Final = "CLF UYW"
MINOR_UNITS: Final[dict[str, int]] = {
    currency: digits
    for digits, currencies in ((0, _NONE), (3, _THREE), (4, _FOUR))
    for currency in currencies.split()
}
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

"""Nobody guesses passwords fast: failed sign-ins are counted by name and by address, for all API processes."""

import math
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final

from sqlalchemy import text

from kernel.database import Database
from kernel.errors import TooManyAttempts

ALLOWED_TO_A_NAME: Final = 5
"""So many failures in a row, and a name is shut for a second; for twice as long with each that follows."""
ALLOWED_TO_AN_ADDRESS: Final = 20
"""The same for an address, from which a whole mall may come."""
LONGEST_WAIT: Final = 15 * 60
"""Seconds."""
FORGOTTEN_AFTER: Final = 60 * 60
"""Seconds without a failure after which all is as if there had been none."""

_FORGET = text("""
    DELETE FROM staff.failed_sign_ins WHERE who IN (
        SELECT who FROM staff.failed_sign_ins WHERE last_at < now() - :seconds * interval '1 second'
        FOR UPDATE SKIP LOCKED
    )
""")
_COUNT = text("""
    INSERT INTO staff.failed_sign_ins AS f (who, failures, last_at, shut_until) VALUES (:who, 1, now(), now())
    ON CONFLICT (who) DO UPDATE SET (failures, last_at, shut_until) = (
        SELECT n, now(), now() + interval '1 second' * CASE
            WHEN n < :allowed THEN 0
            ELSE least(:longest, power(2, least(n - :allowed, 20)))
        END
        FROM (SELECT 1 + greatest(0, f.failures
            - CAST(floor(extract(epoch FROM now() - f.last_at) / 60 * :forgotten_a_minute) AS integer))
        ) AS counted (n)
    )
    WHERE f.shut_until <= now()
    RETURNING failures
""")
_WAIT = text("SELECT extract(epoch FROM shut_until - now()) FROM staff.failed_sign_ins WHERE who = :who")
_CLEAR = text("DELETE FROM staff.failed_sign_ins WHERE who = :who")
_TAKE_BACK = text(
    "UPDATE staff.failed_sign_ins SET failures = greatest(failures - 1, 0), shut_until = now() WHERE who = :who"
)


class Throttle:
    """The failed sign-ins in the database of staff."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def attempt(self, name: str, address: str | None) -> None:
        """Count an attempt as failed before it is made, so that many at once are counted too; `succeeded` takes
        that back. Raises `TooManyAttempts` while the name or the address is shut, and counts nothing then."""
        async with self._database.transaction() as connection:
            await connection.execute(_FORGET, {"seconds": FORGOTTEN_AFTER})
            for who, allowed in _counted(name, address):
                # Many people share an address: their slips of a day must not add up.
                forgotten = 1 if allowed == ALLOWED_TO_AN_ADDRESS else 0
                counted = {
                    "who": who,
                    "allowed": allowed,
                    "longest": LONGEST_WAIT,
                    "forgotten_a_minute": forgotten,
                }
                if await connection.scalar(_COUNT, counted) is None:
                    wait = max(1, math.ceil(await connection.scalar(_WAIT, {"who": who}) or 0))
                    raise TooManyAttempts(f"too many failed sign-ins: try again in {wait} s", wait)

    async def succeeded(self, name: str, address: str | None) -> None:
        """The attempt was a good one: the name's failures are forgotten, those of others from the address not."""
        (by_name, _), *by_address = _counted(name, address)
        async with self._database.transaction() as connection:
            await connection.execute(_CLEAR, {"who": by_name})
            for who, _ in by_address:
                await connection.execute(_TAKE_BACK, {"who": who})


def _counted(name: str, address: str | None) -> list[tuple[str, int]]:
    """What is counted, always in this order, so that two never wait for each other."""
    counted = [(f"name {name.lower()[:60].replace(chr(0), '')}", ALLOWED_TO_A_NAME)]
    if address is not None:
        counted.append((f"address {_network(address)}", ALLOWED_TO_AN_ADDRESS))
    return counted


def _network(address: str) -> str:
    """Who has one IPv6 address has the 2^64 around it, too."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address[:60]
    if isinstance(parsed, IPv6Address):
        return str(parsed.ipv4_mapped or ip_network((parsed, 64), strict=False))
    return str(parsed)

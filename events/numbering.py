"""By which numbers of transactions a log is ordered, and which the server gives next.

A copy of PostgreSQL's files goes on counting. One that was made by `pg_dump`, or by logical replication, has the
events with the numbers of the old server and counts from its own beginning: what is recorded then stands before
all of them in the log, is published to nobody, and an event that follows one of the old in its stream is refused.
"""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.messages import DomainName

_EPOCH: Final = 1 << 32


@dataclass(frozen=True)
class Numbering:
    """The `last` number that an event of a domain has, and the `next` that the server gives to a transaction."""

    last: int
    next: int

    @property
    def is_behind(self) -> bool:
        """Whether new events would stand before old ones."""
        return self.last >= self.next

    @property
    def mend(self) -> str:
        """The command that lets the server count on from where the events are."""
        return reset_command(self.last)


def reset_command(last: int) -> str:
    """What to type so that a server gives only numbers behind this one: as the user of PostgreSQL, while it is
    stopped.

    Only the epoch is set. The 32 bits below it are what rows carry: where these jump, PostgreSQL takes rows for
    ones of the future, and its own catalogue is gone.
    """
    return f"pg_resetwal --epoch={last // _EPOCH + 1} DATA_DIRECTORY"


async def numbering(connection: AsyncConnection, domain: DomainName) -> Numbering:
    """How a domain's events and the server of its database are numbered."""
    # What is archived was published before.
    numbers = text(
        f"SELECT greatest((SELECT max(transaction_id) FROM {domain}.events),"
        f" (SELECT max(transaction_id) FROM {domain}.relay_position), 0) AS last,"
        " pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS next"
    )
    row = (await connection.execute(numbers)).one()
    return Numbering(row.last, row.next)

"""The group of processes that run a consumer: each partition is worked on by one of them at a time."""

import asyncio
import logging
import math
from typing import Final

from events.consumer import Consumer
from events.partition import Feed, Partition
from kernel.database import Database, Session
from kernel.errors import Unavailable
from kernel.locks import lock_key

_REBALANCE: Final = 1.0
_PAUSE: Final = 1.0

_log = logging.getLogger(__name__)


class GroupMember:
    """This process's part in a consumer. It takes its fair share of the partitions, by advisory locks in the
    consumer's own database, which go with the connection of a member that dies."""

    def __init__(self, consumer: Consumer, database: Database, feed: Feed) -> None:
        self._consumer = consumer
        self._database = database
        self._feed = feed
        self._running: dict[int, asyncio.Task[None]] = {}

    @property
    def partitions(self) -> set[int]:
        """The partitions that this process works on now."""
        return set(self._running)

    async def run(self) -> None:
        """Consume until cancelled, through every outage. Raises `Misconfigured`."""
        trouble = ""
        while True:
            try:
                async with self._database.session() as session:
                    await session.execute("SELECT pg_advisory_lock_shared($1)", self._member_key)
                    await self._share(session)
            except Unavailable as error:
                if error.message != trouble:
                    trouble = error.message
                    _log.warning("consumer %s: %s; it goes on when that is over", self._consumer.name, trouble)
            finally:
                for partition in self.partitions:
                    await self._stop(partition)
            await asyncio.sleep(_PAUSE)

    async def _share(self, session: Session) -> None:
        """Hold as many partitions as are our share, and work on them."""
        while True:
            members = await session.fetchval(
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1"
                " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
                " AND (classid::bigint << 32) | objid::bigint = $1",
                self._member_key,
            )
            share = math.ceil(self._consumer.partitions / members)
            for partition in sorted(self._running)[share:]:
                await self._stop(partition)
                await session.execute("SELECT pg_advisory_unlock($1)", self._key(partition))
            for partition in range(self._consumer.partitions):
                if len(self._running) >= share:
                    break
                if partition not in self._running and await session.fetchval(
                    "SELECT pg_try_advisory_lock($1)", self._key(partition)
                ):
                    self._start(partition)
            if self._running:
                done, _ = await asyncio.wait(
                    self._running.values(), timeout=_REBALANCE, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    task.result()
            else:
                await asyncio.sleep(_REBALANCE)

    def _start(self, partition: int) -> None:
        work = Partition(self._consumer, partition, self._database, self._feed)
        self._running[partition] = asyncio.create_task(work.run(), name=f"{self._consumer.name}/{partition}")

    async def _stop(self, partition: int) -> None:
        task = self._running.pop(partition)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    @property
    def _member_key(self) -> int:
        return lock_key("consumer", self._consumer.schema, self._consumer.name)

    def _key(self, partition: int) -> int:
        return lock_key("consumer", self._consumer.schema, self._consumer.name, partition)

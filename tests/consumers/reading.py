"""Let a consumer read all that there is, from the domains' own tables."""

from events.consumer import DOMAINS, Consumer
from events.log import EventLog
from events.partition import Feed, Partition
from events.recorded import START
from kernel.database import Database


async def read_all(consumer: Consumer, database: Database) -> None:
    """Let every event of the database's domains take effect that has not yet."""
    feed = Feed("nats://nowhere", dict.fromkeys(DOMAINS, database))
    for number in range(consumer.partitions):
        partition = Partition(consumer, number, database, feed)
        await partition._open_places()
        for domain in consumer.domains:
            await partition._read_table(domain)


async def handle_again(consumer: Consumer, database: Database) -> None:
    """Hand every event to the consumer once more, as if its position had been lost."""
    async with database.transaction() as connection:
        for domain in consumer.domains:
            for event in (await EventLog(domain).after(connection, START, 10_000)).events:
                if any(consumer.wants(event, number) for number in range(consumer.partitions)):
                    await consumer.handle(connection, event)

"""The least that Temporal could do for an order: the same hops, and nothing in them."""

from datetime import timedelta

from temporalio import activity, workflow

QUEUES = ("bench-orders", "bench-stores", "bench-payments", "bench-depot", "bench-orders")


@activity.defn(name="bench.nothing")
async def nothing() -> None:
    """A step that does nothing."""


@workflow.defn(name="Bench")
class FiveEmptySteps:
    """As many hops as an order has until it is approved, and nothing else."""

    @workflow.run
    async def run(self) -> None:
        for queue in QUEUES:
            await workflow.execute_activity(
                "bench.nothing", task_queue=queue, start_to_close_timeout=timedelta(seconds=10)
            )

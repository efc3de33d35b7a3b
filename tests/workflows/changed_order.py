"""A careless edit of the story, for the test of the tests."""

from datetime import timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from workflows.messages import OrderRequest


@workflow.defn(name="Order")
class ChangedOrder:
    """It charges before it reserves."""

    @workflow.run
    async def run(self, request: OrderRequest) -> None:
        for activity in ("orders.place", "payments.authorize", "stores.reserve"):
            await workflow.execute_activity(
                activity,
                request,
                task_queue=activity.partition(".")[0],
                start_to_close_timeout=timedelta(seconds=10),
            )

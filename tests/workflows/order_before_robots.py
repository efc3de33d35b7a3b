"""The story of an order as it was before there were robots, for the test of a deployment."""

import asyncio

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from workflows.messages import OrderOutcome, OrderRequest
    from workflows.order import OrderWorkflow


@workflow.defn(name="Order")
class OrderBeforeRobots(OrderWorkflow):
    """It ends with the approval, and then waits only for a cancel."""

    @workflow.init
    def __init__(self, request: OrderRequest) -> None:
        super().__init__(request)

    @workflow.run
    async def run(self, request: OrderRequest) -> OrderOutcome:
        self._main = asyncio.current_task()
        await self._from_the_kiosk_to_approved()
        await workflow.wait_condition(lambda: False)
        raise AssertionError

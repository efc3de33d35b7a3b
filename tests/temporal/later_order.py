"""The story of an order as a later version tells it: another step comes first."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from domains.orders.messages import RemindOfPickup
    from workflows.messages import OrderOutcome, OrderRequest
    from workflows.order import OrderWorkflow
    from workflows.steps import REMIND


@workflow.defn(name="Order")
class LaterOrder(OrderWorkflow):
    """It does not replay what the story of today began, nor the other way about."""

    @workflow.init
    def __init__(self, request: OrderRequest) -> None:
        super().__init__(request)

    @workflow.run
    async def run(self, request: OrderRequest) -> OrderOutcome:
        await self._saga.do(REMIND, RemindOfPickup(order_id=request.order_id, number=1), summary="a new step")
        return await super().run(request)

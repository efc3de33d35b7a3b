"""The steps that Orders offers a saga."""

from temporalio import activity

from domains.orders.messages import ApproveOrder, CancelOrder, OrderAnswer, PlaceOrder, RejectOrder
from domains.orders.service import Orders


class OrderActivities:
    """Each is idempotent, as the service is."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders

    @activity.defn(name="orders.place")
    async def place(self, command: PlaceOrder) -> None:
        await self._orders.place(command)

    @activity.defn(name="orders.approve")
    async def approve(self, command: ApproveOrder) -> OrderAnswer:
        return await self._orders.approve(command)

    @activity.defn(name="orders.reject")
    async def reject(self, command: RejectOrder) -> OrderAnswer:
        return await self._orders.reject(command)

    @activity.defn(name="orders.cancel")
    async def cancel(self, command: CancelOrder) -> OrderAnswer:
        return await self._orders.cancel(command)

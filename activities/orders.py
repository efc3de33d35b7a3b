"""The steps that Orders offers a saga."""

from temporalio import activity

from domains.orders.messages import (
    AdjustOrder,
    ApproveOrder,
    CancelOrder,
    CompleteOrder,
    ExpireOrder,
    OrderAnswer,
    PlaceOrder,
    ReadyOrder,
    Refund,
    RefundOrder,
    RejectOrder,
    RemindOfPickup,
    WithdrawRefund,
)
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

    @activity.defn(name="orders.expire")
    async def expire(self, command: ExpireOrder) -> OrderAnswer:
        return await self._orders.expire(command)

    @activity.defn(name="orders.adjust")
    async def adjust(self, command: AdjustOrder) -> None:
        await self._orders.adjust(command)

    @activity.defn(name="orders.ready")
    async def make_ready(self, command: ReadyOrder) -> None:
        await self._orders.make_ready(command)

    @activity.defn(name="orders.remind")
    async def remind(self, command: RemindOfPickup) -> None:
        await self._orders.remind(command)

    @activity.defn(name="orders.complete")
    async def complete(self, command: CompleteOrder) -> None:
        await self._orders.complete(command)

    @activity.defn(name="orders.refund")
    async def refund(self, command: RefundOrder) -> Refund:
        return await self._orders.refund(command)

    @activity.defn(name="orders.withdraw_refund")
    async def withdraw_refund(self, command: WithdrawRefund) -> None:
        await self._orders.withdraw_refund(command)

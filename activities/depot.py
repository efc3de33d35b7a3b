"""The steps that Depot offers a saga."""

from temporalio import activity

from domains.depot.messages import (
    AmendList,
    AssignList,
    Assignment,
    CancelledShopping,
    CancelShopping,
    ScheduleShopping,
    ShopList,
    ShoppingResult,
)
from domains.depot.service import Depot


class DepotActivities:
    """Each is idempotent, as the service is. Where the service says that a robot is waited for, the activity is
    completed from outside, by the robots' gateway (`workflows.shopping`)."""

    def __init__(self, depot: Depot) -> None:
        self._depot = depot

    @activity.defn(name="depot.schedule")
    async def schedule(self, command: ScheduleShopping) -> None:
        await self._depot.schedule(command)

    @activity.defn(name="depot.assign")
    async def assign(self, command: AssignList) -> Assignment:
        assignment = await self._depot.assign(command)
        if assignment is None:
            activity.raise_complete_async()
        return assignment

    @activity.defn(name="depot.shop")
    async def shop(self, command: ShopList) -> ShoppingResult:
        result = await self._depot.shop(command)
        if result is None:
            activity.raise_complete_async()
        return result

    @activity.defn(name="depot.amend")
    async def amend(self, command: AmendList) -> None:
        await self._depot.amend(command)

    @activity.defn(name="depot.cancel")
    async def cancel(self, command: CancelShopping) -> CancelledShopping:
        return await self._depot.cancel(command)

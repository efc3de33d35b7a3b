"""The steps that Depot offers a saga."""

from temporalio import activity

from domains.depot.messages import CancelShopping, ScheduleShopping
from domains.depot.service import Depot


class DepotActivities:
    """Each is idempotent, as the service is."""

    def __init__(self, depot: Depot) -> None:
        self._depot = depot

    @activity.defn(name="depot.schedule")
    async def schedule(self, command: ScheduleShopping) -> None:
        await self._depot.schedule(command)

    @activity.defn(name="depot.cancel")
    async def cancel(self, command: CancelShopping) -> None:
        await self._depot.cancel(command)

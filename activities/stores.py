"""The steps that Stores offers a saga."""

from temporalio import activity

from domains.stores.messages import ReleaseStock, Reservation, ReserveStock
from domains.stores.service import Stores


class StoreActivities:
    """Each is idempotent, as the service is."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    @activity.defn(name="stores.reserve")
    async def reserve(self, command: ReserveStock) -> Reservation:
        return await self._stores.reserve(command)

    @activity.defn(name="stores.release")
    async def release(self, command: ReleaseStock) -> None:
        await self._stores.release(command)

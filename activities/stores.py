"""The steps that Stores offers a saga."""

from temporalio import activity

from domains.stores.messages import (
    Adjustment,
    AdjustReservation,
    ConsumeStock,
    DropSubstitutes,
    ReleaseStock,
    Reservation,
    ReserveStock,
)
from domains.stores.service import Stores


class StoreActivities:
    """Each is idempotent, as the service is."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    @activity.defn(name="stores.reserve")
    async def reserve(self, command: ReserveStock) -> Reservation:
        return await self._stores.reserve(command)

    @activity.defn(name="stores.adjust")
    async def adjust(self, command: AdjustReservation) -> Adjustment:
        return await self._stores.adjust(command)

    @activity.defn(name="stores.drop_substitutes")
    async def drop_substitutes(self, command: DropSubstitutes) -> Adjustment:
        return await self._stores.drop_substitutes(command)

    @activity.defn(name="stores.consume")
    async def consume(self, command: ConsumeStock) -> None:
        await self._stores.consume(command)

    @activity.defn(name="stores.release")
    async def release(self, command: ReleaseStock) -> None:
        await self._stores.release(command)

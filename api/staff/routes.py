"""What staff may ask about orders."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path
from pydantic import BaseModel

from api.endpoints import ServicesDependency, problems
from api.staff.access import Staff
from consumers.trail.consumer import TrailEntry

router = APIRouter(prefix="/v1/staff", redirect_slashes=False)


class OrderTrail(BaseModel):
    """All that happened to an order, the oldest first."""

    order_id: UUID
    entries: list[TrailEntry]


@router.get(
    "/orders/{order_id}/trail",
    operation_id="getTrail",
    summary="Who did what to an order",
    response_description="The trail",
    tags=["Staff"],
    responses=problems({404: "Nothing is known of such an order", 422: "This can not be an order's id"}),
)
async def get_trail(
    mall: ServicesDependency, staff: Staff, order_id: Annotated[UUID, Path(description="The order's id")]
) -> OrderTrail:
    """The audit trail of an order, from the events of all domains: it follows them within moments."""
    return OrderTrail(order_id=order_id, entries=await mall.trail.of(order_id))

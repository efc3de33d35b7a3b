"""What staff may ask about what was done: to an order, a product, a store, or by a robot."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel

from api.endpoints import ServicesDependency, problems
from api.staff.access import Staff
from consumers.trail.consumer import TrailEntry

router = APIRouter(prefix="/v1/staff", redirect_slashes=False)


class StreamTrail(BaseModel):
    """What was done to a product or a store, or by a robot, the newest first."""

    subject: str
    entries: list[TrailEntry]


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


@router.get(
    "/trail",
    operation_id="getStreamTrail",
    summary="Who did what to a product or a store, or what a robot did",
    response_description="The trail",
    tags=["Staff"],
    responses=problems({404: "Nothing is known of it", 422: "A parameter breaks a rule"}),
)
async def get_stream_trail(
    mall: ServicesDependency,
    staff: Staff,
    subject: Annotated[
        str,
        Query(
            pattern=r"^(product|store|robot)-[A-Za-z0-9_-]{1,60}$",
            description="`product-<sku>`, `store-<id>` or `robot-<name>`",
        ),
    ],
    limit: Annotated[int, Query(ge=1, le=1000, description="How many at most, from the newest on")] = 100,
) -> StreamTrail:
    """The audit trail of what no order is about: it follows the events within moments."""
    return StreamTrail(subject=subject, entries=await mall.trail.of_stream(subject, limit))

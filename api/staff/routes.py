"""What staff may ask about what was done: to an order, a product, a store, or by a robot."""

from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, StringConstraints

from api.endpoints import ServicesDependency, problems
from api.kiosk.schemas import PRINTABLE
from api.staff.access import may
from api.staff.acts import Act, Outcome
from consumers.trail.consumer import TrailEntry

_MOST_ACTS: Final = 200

router = APIRouter(prefix="/v1/staff", redirect_slashes=False)
Words = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=PRINTABLE)]


class StreamTrail(BaseModel):
    """What was done to a product or a store, or by a robot, the newest first."""

    subject: str
    entries: list[TrailEntry]


class OrderTrail(BaseModel):
    """All that happened to an order, the oldest first; `acts` are what no event tells, as what was refused."""

    order_id: UUID
    entries: list[TrailEntry]
    acts: list[Act]


class ActPage(BaseModel):
    """Some acts, the newest first; `next` is the `before` of the following ones, null on the last page."""

    items: list[Act]
    next: UUID | None


@router.get(
    "/orders/{order_id}/trail",
    operation_id="getTrail",
    summary="Who did what to an order",
    response_description="The trail",
    tags=["Staff"],
    responses=problems({404: "Nothing is known of such an order", 422: "This can not be an order's id"}),
)
async def get_trail(
    mall: ServicesDependency,
    staff: Annotated[str, may("trail.read")],
    order_id: Annotated[UUID, Path(description="The order's id")],
) -> OrderTrail:
    """The audit trail of an order, from the events of all domains: it follows them within moments."""
    entries = await mall.trail.of(order_id)
    acts = await mall.acts.newest(_MOST_ACTS, subject=f"order-{order_id}")
    return OrderTrail(order_id=order_id, entries=entries, acts=acts[::-1])


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
    staff: Annotated[str, may("trail.read")],
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


@router.get(
    "/acts",
    operation_id="listActs",
    summary="What was done that no event tells, and what was refused",
    response_description="A page of acts",
    tags=["Access"],
    responses=problems({422: "A parameter breaks a rule"}),
    dependencies=[may("acts.read")],
)
async def list_acts(
    mall: ServicesDependency,
    by: Annotated[Words | None, Query(description="Only of this person, service, kiosk or robot")] = None,
    outcome: Annotated[Outcome | None, Query(description="Only what was done, or what was refused")] = None,
    subject: Annotated[
        Words | None, Query(description="Only about this: `order-<id>`, `account-<name>`, `service-<name>`, …")
    ] = None,
    before: Annotated[UUID | None, Query(description="Only those older than this act")] = None,
    limit: Annotated[int, Query(ge=1, le=200, description="How many at most")] = 50,
) -> ActPage:
    """Sign-ins, changes of accounts and keys, notices sent again, and every refusal, the newest first. What
    changes orders, stock or robots is told by events, and is in their trails."""
    acts = await mall.acts.newest(limit + 1, before, by, outcome, subject)
    return ActPage(items=acts[:limit], next=acts[limit - 1].id if len(acts) > limit else None)

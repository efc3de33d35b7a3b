"""Analytics for staff. Each endpoint only translates between HTTP and what does the work."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query
from pydantic import AwareDatetime, BaseModel, Field

from api.endpoints import ServicesDependency, problems
from api.staff.access import Staff
from consumers.analytics.queries import Minute, MissingProduct, Refusals, RobotUse, Sales, Times, Window
from kernel.errors import InvalidInput
from kernel.ids import now

USUAL_WINDOW: Final = timedelta(days=1)
LONGEST_WINDOW: Final = timedelta(days=366)

Moment = Annotated[AwareDatetime, Field(ge=datetime(2000, 1, 1, tzinfo=UTC), le=datetime(3000, 1, 1, tzinfo=UTC))]


def window(
    since: Annotated[
        Moment | None, Query(alias="from", description="From when, with a time zone; a day before `to`")
    ] = None,
    until: Annotated[Moment | None, Query(alias="to", description="Until when; now")] = None,
) -> Window:
    """The window that was asked for; the last 24 hours if none was. Raises `InvalidInput`."""
    end = until or now()
    begin = since or end - USUAL_WINDOW
    if begin >= end:
        raise InvalidInput("`from` must be before `to`", "from")
    if end - begin > LONGEST_WINDOW:
        raise InvalidInput(f"a window is at most {LONGEST_WINDOW.days} days long", "from")
    return Window(since=begin, until=end)


AskedWindow = Annotated[Window, Depends(window)]
Limit = Annotated[int, Query(ge=1, le=1000, description="How many at most")]
LongLimit = Annotated[int, Query(ge=1, le=10_000, description="How many at most, from the oldest on")]
MINUTES_OF_A_DAY: Final = 1440


class OrdersByMinute(BaseModel):
    """Orders a minute, oldest first."""

    window: Window
    items: list[Minute]
    more: bool = Field(description="Whether later ones were left out: ask for them by a later `from`")


class SalesByStore(BaseModel):
    """Sales by hour and store, oldest first."""

    window: Window
    items: list[Sales]
    more: bool = Field(description="Whether later ones were left out: ask for them by a later `from`")


class RefusalsByReason(BaseModel):
    """Refusals, the most frequent reason first."""

    window: Window
    items: list[Refusals]


class MissingProducts(BaseModel):
    """Products that were missing, those with the most pieces first."""

    window: Window
    items: list[MissingProduct]


class OrderTimes(BaseModel):
    """How long orders took."""

    window: Window
    times: Times


class RobotsUse(BaseModel):
    """What each robot did, by name."""

    window: Window
    items: list[RobotUse]


router = APIRouter(
    prefix="/v1/staff/analytics",
    tags=["Analytics"],
    redirect_slashes=False,
    responses=problems({422: "A parameter breaks a rule"}),
)


@router.get(
    "/orders",
    operation_id="getOrdersByMinute",
    summary="Orders a minute",
    response_description="The minutes in which something happened",
)
async def orders(
    mall: ServicesDependency, staff: Staff, asked: AskedWindow, limit: LongLimit = MINUTES_OF_A_DAY
) -> OrdersByMinute:
    """How many orders were placed, approved, rejected, cancelled and completed in each minute."""
    found = await mall.analytics.orders(asked, limit + 1)
    return OrdersByMinute(window=asked, items=found[:limit], more=len(found) > limit)


@router.get(
    "/sales",
    operation_id="getSales",
    summary="Sales by store and hour",
    response_description="The hours in which something was sold",
)
async def sales(
    mall: ServicesDependency, staff: Staff, asked: AskedWindow, limit: LongLimit = 1000
) -> SalesByStore:
    """What each store sold, in the hour in which the order was approved. A cancelled order is taken out again."""
    found = await mall.analytics.sales(asked, limit + 1)
    return SalesByStore(window=asked, items=found[:limit], more=len(found) > limit)


@router.get(
    "/refusals",
    operation_id="getRefusals",
    summary="Refusals by reason",
    response_description="The reasons",
)
async def refusals(mall: ServicesDependency, staff: Staff, asked: AskedWindow) -> RefusalsByReason:
    """Why orders were refused, and how many. An order that somebody cancelled is not refused."""
    return RefusalsByReason(window=asked, items=await mall.analytics.refusals(asked))


@router.get(
    "/missing-items",
    operation_id="getMissingItems",
    summary="Missing items by product",
    response_description="The products",
)
async def missing_items(
    mall: ServicesDependency, staff: Staff, asked: AskedWindow, limit: Limit = 100
) -> MissingProducts:
    """What robots did not find on the shelf."""
    return MissingProducts(window=asked, items=await mall.analytics.missing_items(asked, limit))


@router.get(
    "/times",
    operation_id="getTimes",
    summary="How long orders take",
    response_description="From placed to ready, and to completed",
)
async def times(mall: ServicesDependency, staff: Staff, asked: AskedWindow) -> OrderTimes:
    """The median and the 95th percentile of the time from placed to ready, and from placed to completed."""
    return OrderTimes(window=asked, times=await mall.analytics.times(asked))


@router.get(
    "/robots",
    operation_id="getRobotsUse",
    summary="The robots' use",
    response_description="The robots that were online or did something",
)
async def robots(mall: ServicesDependency, staff: Staff, asked: AskedWindow) -> RobotsUse:
    """For each robot how long it was online and busy, and what it brought."""
    return RobotsUse(window=asked, items=await mall.analytics.robots(asked))

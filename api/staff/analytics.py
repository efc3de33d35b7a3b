"""Analytics for staff. Each endpoint only translates between HTTP and what does the work."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query
from pydantic import AwareDatetime, BaseModel, Field

from api.endpoints import ServicesDependency, problems
from api.staff.access import may
from consumers.analytics.queries import (
    Counts,
    Minute,
    MissingProduct,
    Refusals,
    RobotUse,
    Sales,
    StoreSales,
    Times,
    TookInStep,
    Window,
)
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
Step = Annotated[int, Query(ge=1, le=1440, description="So many minutes together, from `from` on")]
MINUTES_OF_A_DAY: Final = 1440


class OrdersByMinute(BaseModel):
    """Orders a minute, oldest first."""

    window: Window
    items: list[Minute]
    more: bool = Field(description="Whether later ones were left out: ask for them by a later `from`")


class Summary(BaseModel):
    """The window in a few numbers. `approved_share` is of the orders that were approved or refused; null if none
    was. `sales` are by store, those that sold most first."""

    window: Window
    orders: Counts
    approved_share: float | None
    times: Times
    sales: list[StoreSales]
    refusals: list[Refusals]


class TimesToReady(BaseModel):
    """How long orders took from placed to ready, oldest first."""

    window: Window
    items: list[TookInStep]
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
    "/summary",
    operation_id="getSummary",
    summary="The window in a few numbers",
    response_description="Orders, times, sales by store and refusals by reason",
)
async def summary(
    mall: ServicesDependency, staff: Annotated[str, may("analytics.read")], asked: AskedWindow, limit: Limit = 100
) -> Summary:
    """All orders of the window together, how long they took, what each store sold (`limit` stores), and why orders
    were refused."""
    counts = await mall.analytics.counts(asked)
    answered = counts.approved + counts.rejected
    return Summary(
        window=asked,
        orders=counts,
        approved_share=counts.approved / answered if answered else None,
        times=await mall.analytics.times(asked),
        sales=await mall.analytics.sales_by_store(asked, limit),
        refusals=await mall.analytics.refusals(asked),
    )


@router.get(
    "/orders",
    operation_id="getOrdersByMinute",
    summary="Orders a minute",
    response_description="The minutes in which something happened",
)
async def orders(
    mall: ServicesDependency,
    staff: Annotated[str, may("analytics.read")],
    asked: AskedWindow,
    limit: LongLimit = MINUTES_OF_A_DAY,
    step: Step = 1,
) -> OrdersByMinute:
    """How many orders were placed, approved, rejected, cancelled and completed in each minute, or each `step`
    minutes."""
    found = await mall.analytics.orders(asked, limit + 1, step)
    return OrdersByMinute(window=asked, items=found[:limit], more=len(found) > limit)


@router.get(
    "/sales",
    operation_id="getSales",
    summary="Sales by store and hour",
    response_description="The hours in which something was sold",
)
async def sales(
    mall: ServicesDependency,
    staff: Annotated[str, may("analytics.read")],
    asked: AskedWindow,
    limit: LongLimit = 1000,
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
async def refusals(
    mall: ServicesDependency, staff: Annotated[str, may("analytics.read")], asked: AskedWindow
) -> RefusalsByReason:
    """Why orders were refused, and how many. An order that somebody cancelled is not refused."""
    return RefusalsByReason(window=asked, items=await mall.analytics.refusals(asked))


@router.get(
    "/missing-items",
    operation_id="getMissingItems",
    summary="Missing items by product",
    response_description="The products",
)
async def missing_items(
    mall: ServicesDependency, staff: Annotated[str, may("analytics.read")], asked: AskedWindow, limit: Limit = 100
) -> MissingProducts:
    """What robots did not find on the shelf."""
    return MissingProducts(window=asked, items=await mall.analytics.missing_items(asked, limit))


@router.get(
    "/times",
    operation_id="getTimes",
    summary="How long orders take",
    response_description="From placed to ready, and to completed",
)
async def times(
    mall: ServicesDependency, staff: Annotated[str, may("analytics.read")], asked: AskedWindow
) -> OrderTimes:
    """The median and the 95th percentile of the time from placed to ready, and from placed to completed."""
    return OrderTimes(window=asked, times=await mall.analytics.times(asked))


@router.get(
    "/times-to-ready",
    operation_id="getTimesToReady",
    summary="How long orders take to be ready, over time",
    response_description="The steps in which orders became ready",
)
async def times_to_ready(
    mall: ServicesDependency,
    staff: Annotated[str, may("analytics.read")],
    asked: AskedWindow,
    limit: LongLimit = MINUTES_OF_A_DAY,
    step: Step = 15,
) -> TimesToReady:
    """The median and the 95th percentile from placed to ready, of the orders that became ready in each `step`
    minutes."""
    found = await mall.analytics.times_to_ready(asked, limit + 1, step)
    return TimesToReady(window=asked, items=found[:limit], more=len(found) > limit)


@router.get(
    "/robots",
    operation_id="getRobotsUse",
    summary="The robots' use",
    response_description="The robots that were online or did something",
)
async def robots(
    mall: ServicesDependency, staff: Annotated[str, may("analytics.read")], asked: AskedWindow
) -> RobotsUse:
    """For each robot how long it was online and busy, and what it brought."""
    return RobotsUse(window=asked, items=await mall.analytics.robots(asked))

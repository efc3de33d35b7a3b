"""The board: every order that has not ended, in one answer, for whoever then follows the events."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, Field

from api.endpoints import ServicesDependency, problems
from api.staff.access import may
from domains.depot.messages import ListGlance, ListStatus
from domains.orders.messages import LiveOrder, OrderStatus
from kernel.ids import now
from mallbots.settings import LateSeconds

BoardState = Literal["pending", "approved", "shopping", "ready"]
"""A column of the board: `approved` is an order that waits for a robot, `shopping` one that a robot has."""

_NO_ROBOT: tuple[ListStatus, ...] = ("scheduled", "released")

router = APIRouter(prefix="/v1/staff", redirect_slashes=False)


class BoardOrder(BaseModel):
    """An order on the board. `status` is the order's own and `list_status` that of its shopping list; `state` is
    the column that they make. Of `pieces` that robots were asked for, `picked` were found and `missing` not."""

    order_id: UUID
    kiosk: str
    customer: str | None
    state: BoardState
    since: datetime = Field(description="Since when it is in this state, or with this robot")
    placed_at: datetime
    currency: str
    total_cents: int | None
    pickup_code: str | None
    stores: list[str] = []
    robot: str | None = None
    pieces: int = 0
    picked: int = 0
    missing: int = 0
    status: OrderStatus
    list_status: ListStatus | None = None
    order_version: int = Field(description="The last version of `order-<order_id>` that is in here")
    list_version: int = Field(0, description="The last version of `list-<order_id>` that is in here")


class Board(BaseModel):
    """The board at a moment."""

    at: datetime = Field(description="The server's time, to tell by how long something has lasted")
    late_after_seconds: LateSeconds
    orders: list[BoardOrder]


@router.get(
    "/board",
    operation_id="getBoard",
    summary="The orders that have not ended",
    response_description="All of them, the oldest first",
    tags=["Staff"],
    responses=problems({}),
    dependencies=[may("orders.read")],
)
async def get_board(mall: ServicesDependency) -> Board:
    """A snapshot to apply events to (`/v1/staff/events`): take it behind the `hello`, then skip each event whose
    `version` is not above that of its stream in here."""
    orders = await mall.orders.live()
    lists = {one.order_id: one for one in await mall.depot.list_glances(order.order_id for order in orders)}
    board = [_on_board(order, lists.get(order.order_id)) for order in orders]
    return Board(at=now(), late_after_seconds=mall.settings.late_seconds, orders=board)


def _on_board(order: LiveOrder, shopping: ListGlance | None) -> BoardOrder:
    shown = order.model_dump(exclude={"version", "since"}) | {"order_version": order.version}
    state: BoardState = "ready" if order.status == "ready" else "pending"
    if order.status == "approved":
        state = "approved" if shopping is None or shopping.status in _NO_ROBOT else "shopping"
    if shopping is None:
        return BoardOrder(**shown, state=state, since=order.since)
    since = max(order.since, shopping.since) if order.status == "approved" else order.since
    of_list = shopping.model_dump(include={"stores", "robot", "pieces", "picked", "missing"})
    return BoardOrder(
        **shown,
        **of_list,
        state=state,
        since=since,
        list_status=shopping.status,
        list_version=shopping.version,
    )

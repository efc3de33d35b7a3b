"""The Depot service: `proto/mallbots/depot/v1/depot.proto` says what each method is for."""

from typing import Final

from api.generated.mallbots.depot.v1 import depot_pb2 as pb
from api.generated.mallbots.depot.v1.depot_pb2_grpc import DepotServicer
from api.grpc.access import caller
from api.grpc.answers import page, stamp
from api.grpc.handlers import Context
from api.grpc.requests import id_of, known, page_size_of
from api.keys import ApiKeys
from domains.depot.messages import ListStatus, ListView, RobotView
from domains.depot.service import Depot

_STATUSES: Final[dict[int, ListStatus]] = {
    pb.LIST_STATUS_SCHEDULED: "scheduled",
    pb.LIST_STATUS_RELEASED: "released",
    pb.LIST_STATUS_ASSIGNED: "assigned",
    pb.LIST_STATUS_COLLECTED: "collected",
    pb.LIST_STATUS_COMPLETED: "completed",
    pb.LIST_STATUS_CANCELLED: "cancelled",
}


class DepotService(DepotServicer):
    """What staff see and do of shopping lists and robots."""

    def __init__(self, depot: Depot, tokens: ApiKeys) -> None:
        self._depot = depot
        self._tokens = tokens

    async def GetList(self, request: pb.GetListRequest, context: Context) -> pb.ShoppingList:  # noqa: N802
        return _list(await self._depot.shopping_list(id_of(request.order_id)))

    async def ListLists(  # noqa: N802
        self, request: pb.ListListsRequest, context: Context
    ) -> pb.ListListsResponse:
        size = page_size_of(request.page_size)
        found = await self._depot.lists(
            known(request.statuses, _STATUSES, "statuses") or None,
            before=id_of(request.page_token, "page_token") if request.page_token else None,
            limit=size + 1,
        )
        lists, last = page(found, size)
        return pb.ListListsResponse(
            lists=[_list(one) for one in lists], next_page_token=str(last.order_id) if last else ""
        )

    async def ListRobots(  # noqa: N802
        self, request: pb.ListRobotsRequest, context: Context
    ) -> pb.ListRobotsResponse:
        return pb.ListRobotsResponse(robots=[_robot(robot) for robot in await self._depot.robots()])

    async def RetireRobot(self, request: pb.RetireRobotRequest, context: Context) -> pb.Robot:  # noqa: N802
        retired = await self._depot.retire(request.robot, caller())
        await self._tokens.revoke(request.robot)
        return _robot(retired)

    async def ConfirmReturn(  # noqa: N802
        self, request: pb.ConfirmReturnRequest, context: Context
    ) -> pb.ConfirmReturnResponse:
        await self._depot.confirm_return(id_of(request.order_id), caller())
        return pb.ConfirmReturnResponse()


def _list(view: ListView) -> pb.ShoppingList:
    return pb.ShoppingList(
        order_id=str(view.order_id),
        status=pb.ListStatus.Value(f"LIST_STATUS_{view.status.upper()}"),
        robot=view.robot or "",
        stops=[
            pb.Stop(store=stop.store, items=[pb.Item(**dict(item)) for item in stop.items]) for stop in view.stops
        ],
        released_at=stamp(view.released_at),
        changed_at=stamp(view.changed_at),
    )


def _robot(view: RobotView) -> pb.Robot:
    return pb.Robot(
        robot=view.robot,
        status=pb.RobotStatus.Value(f"ROBOT_STATUS_{view.status.upper()}"),
        order_id=str(view.order_id) if view.order_id else "",
        registered_at=stamp(view.registered_at),
        last_heard_at=stamp(view.last_heard_at),
    )

"""Robots for staff: how they are, and what staff let them do. Each endpoint only translates between HTTP and what
does the work."""

from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Depends, Path
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from api.endpoints import OF_A_BODY, ServicesDependency, json_only, problems
from api.staff.access import may
from domains.depot.messages import Doing, Item, RobotAtWork, RobotName, RobotStatus, RobotView

_UNKNOWN: Final = {404: "There is no such robot", 422: "This can not be a robot's name"}
_RETIRED: Final = {409: "The robot is retired (`conflict`)"}

RobotInPath = Annotated[RobotName, Path(description="The robot")]


class Robot(BaseModel):
    """A robot as it is now."""

    name: str
    status: RobotStatus = Field(description="`busy`: it has a list, whatever else it wants")
    order_id: UUID | None = Field(description="The order whose list it holds, or takes back if cancelled")
    held_by: str | None = Field(description="Who of the staff lets it rest")
    held_since: AwareDatetime | None = Field(description="Since when staff give it no list; null if they do")
    registered_at: AwareDatetime
    last_heard_at: AwareDatetime | None

    @classmethod
    def of(cls, view: RobotView) -> "Robot":
        """A robot as Depot knows it."""
        return cls.model_validate({"name": view.robot, **dict(view)})


class WorkingRobot(Robot):
    """A robot, where it is, and what it carries."""

    doing: Doing | None = Field(
        description="What it does with its list: `wait` for word on what is missing; `give_back` what it carries"
    )
    at: str | None = Field(description="The store of the last item that was reported")
    heads_for: str | None = Field(description="The store of the next item to pick")
    pieces: int = Field(description="How many are on its list")
    picked: int
    missing: int
    carries: list[Item]
    quiet_seconds: float | None = Field(description="For how long nothing was heard of it")
    patience_seconds: float = Field(description="How long it may be silent until it loses its list")

    @classmethod
    def at_work(cls, robot: RobotAtWork, patience_seconds: float) -> "WorkingRobot":
        """A robot as Depot knows it."""
        return cls.model_validate(
            {"name": robot.robot, "patience_seconds": patience_seconds, **dict(robot)}, from_attributes=True
        )


class Robots(BaseModel):
    """All robots by name, also those that are retired, and how many lists wait for one."""

    items: list[WorkingRobot]
    lists_waiting: int = Field(description="How many lists wait for a robot; at most 1000 are counted")


class ListToRecall(BaseModel):
    """Which list a robot shall give up."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    order_id: UUID


router = APIRouter(prefix="/v1/staff/robots", tags=["Robots"], redirect_slashes=False)
MOST_LISTS_COUNTED: Final = 1000


@router.get(
    "",
    operation_id="listRobots",
    summary="The robots",
    response_description="All robots",
    dependencies=[may("robots.read")],
    responses=problems({}),
)
async def list_robots(mall: ServicesDependency) -> Robots:
    """Where each robot is, what it carries, and for how long it was not heard of."""
    patience = mall.robot_silence.total_seconds()
    return Robots(
        items=[WorkingRobot.at_work(robot, patience) for robot in await mall.depot.robots_at_work()],
        lists_waiting=await mall.depot.waiting(MOST_LISTS_COUNTED),
    )


@router.post(
    "/{robot}/recall",
    operation_id="recallRobot",
    summary="Take a list from a robot",
    response_description="The robot",
    dependencies=[Depends(json_only)],
    responses=problems({**OF_A_BODY, 404: "There is no such robot or list"}),
)
async def recall_robot(
    mall: ServicesDependency, staff: Annotated[str, may("robots.command")], robot: RobotInPath, body: ListToRecall
) -> Robot:
    """Another robot goes on with the list where this one stopped; this one only if there is no other. Nothing
    happens if the robot does not hold the list (any more)."""
    return Robot.of(await mall.depot.recall(robot, body.order_id, staff))


@router.post(
    "/{robot}/break",
    operation_id="holdRobot",
    summary="Let a robot rest",
    response_description="The robot",
    responses=problems({**_UNKNOWN, **_RETIRED}),
)
async def hold_robot(
    mall: ServicesDependency, staff: Annotated[str, may("robots.command")], robot: RobotInPath
) -> Robot:
    """It finishes what it has, and is then given no list until it is resumed, whatever it says itself."""
    return Robot.of(await mall.depot.hold(robot, staff))


@router.post(
    "/{robot}/resume",
    operation_id="resumeRobot",
    summary="Let a robot work again",
    response_description="The robot",
    responses=problems({**_UNKNOWN, **_RETIRED}),
)
async def resume_robot(
    mall: ServicesDependency, staff: Annotated[str, may("robots.command")], robot: RobotInPath
) -> Robot:
    """It is given lists again, as soon as it wants one."""
    return Robot.of(await mall.depot.resume(robot, staff))


@router.post(
    "/{robot}/retire",
    operation_id="retireRobot",
    summary="Let a robot work no more",
    response_description="The robot",
    responses=problems(_UNKNOWN),
)
async def retire_robot(
    mall: ServicesDependency, staff: Annotated[str, may("robots.command")], robot: RobotInPath
) -> Robot:
    """Its token works no more and its list goes to the next robot. This can not be taken back. What it carries of
    a cancelled list has to be put back by somebody."""
    retired = await mall.depot.retire(robot, staff)
    await mall.robot_tokens.revoke(robot)
    return Robot.of(retired)

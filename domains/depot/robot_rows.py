"""The rows of robots, in a transaction of the service's."""

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domains.depot.messages import Glance, RobotName, RobotStatus, RobotView
from kernel.errors import Forbidden, InvalidInput, NotFound

_NAME = TypeAdapter[str](RobotName)

_REGISTER = text(
    "INSERT INTO depot.robots (name, status) VALUES (:robot, 'offline') ON CONFLICT DO NOTHING RETURNING name"
)
# Whom staff let rest is on break, whatever it says itself.
_OWN = "CASE WHEN robots.status = 'idle' AND held_since IS NOT NULL THEN 'on_break' ELSE robots.status END"
_LOCK = text(f"SELECT {_OWN} FROM depot.robots WHERE name = :robot FOR UPDATE")
_LOCK_SESSION = text(f"SELECT {_OWN} FROM depot.robots WHERE name = :robot AND session = :session FOR UPDATE")
_HEAR = text(f"UPDATE depot.robots SET last_heard_at = now() WHERE name = :robot RETURNING {_OWN}")
_IS_SILENT = "last_heard_at < now() - make_interval(secs => :silent_after)"
_LOCK_SILENT = text(f"SELECT {_OWN} FROM depot.robots WHERE name = :robot AND {_IS_SILENT} FOR UPDATE")
_SILENT = text(
    f"SELECT name FROM depot.robots WHERE status IN ('idle', 'on_break') AND {_IS_SILENT} ORDER BY name"
)
_SET_STATUS = text(f"UPDATE depot.robots SET status = :status WHERE name = :robot RETURNING {_OWN}")
_HOLD = text(
    "UPDATE depot.robots SET held_by = :by, held_since = now() WHERE name = :robot AND held_since IS NULL"
    " RETURNING name"
)
_RESUME = text(
    "UPDATE depot.robots SET held_by = NULL, held_since = NULL WHERE name = :robot AND held_since IS NOT NULL"
    f" RETURNING {_OWN}"
)
_SET_SESSION = text("UPDATE depot.robots SET session = :session WHERE name = :robot")
# In an order, so that two gateways that hear of the same robots do not wait for each other.
_HEARD_OF = text(
    "WITH heard AS ("
    " SELECT robots.name, told.age FROM depot.robots"
    "  JOIN unnest(CAST(:robots AS text[]), CAST(:ages AS float8[])) AS told (name, age) USING (name)"
    '  ORDER BY robots.name COLLATE "C" FOR UPDATE OF robots'
    ") UPDATE depot.robots SET last_heard_at = greatest(last_heard_at, now() - make_interval(secs => heard.age))"
    " FROM heard WHERE robots.name = heard.name"
)
_LISTS = (
    " FROM depot.robots LEFT JOIN depot.shopping_lists AS lists ON lists.robot = robots.name AND"
    " (lists.status IN ('assigned', 'collected') OR (lists.status = 'cancelled' AND lists.returned_at IS NULL))"
)
_STATUS = (
    "CASE WHEN lists.order_id IS NOT NULL AND robots.status IN ('idle', 'on_break') THEN 'busy'"
    f" ELSE {_OWN} END AS status"
)
_VIEWS = (
    f"SELECT robots.name AS robot, {_STATUS}, lists.order_id, registered_at, last_heard_at, held_by, held_since,"
    f" extract(epoch FROM clock_timestamp() - last_heard_at)::float8 AS quiet_seconds{_LISTS}"
)
_ALL = text(f'{_VIEWS} ORDER BY robots.name COLLATE "C"')
_ONE = text(f"{_VIEWS} WHERE robots.name = :robot")
_GLANCES = text(
    f"SELECT robots.name AS robot, {_STATUS}, robots.session, lists.order_id, lists.status AS list_status,"
    f" lists.amended{_LISTS} WHERE robots.name = ANY(:robots)"
)


async def register(connection: AsyncConnection, robot: str) -> bool:
    """Make the row of a robot; whether it was never seen before. Raises `InvalidInput` if it may not be called
    so."""
    try:
        _NAME.validate_python(robot)
    except ValidationError:
        raise InvalidInput(f"a robot can not be called {robot!r}", "robot") from None
    return (await connection.execute(_REGISTER, {"robot": robot})).first() is not None


async def lock(connection: AsyncConnection, robot: str) -> RobotStatus:
    """Hold a robot's row until the transaction ends; its status. Raises `NotFound`."""
    return _status(await connection.execute(_LOCK, {"robot": robot}), robot)


async def lock_if_on(connection: AsyncConnection, robot: str, session: UUID) -> RobotStatus | None:
    """Hold a robot's row if this is its newest stream; its status then."""
    return (await connection.execute(_LOCK_SESSION, {"robot": robot, "session": session})).scalar()


async def hear(connection: AsyncConnection, robot: str) -> RobotStatus:
    """Hold the row of a robot that was heard of now. Raises `NotFound`, or `Forbidden` if it is retired."""
    status = _status(await connection.execute(_HEAR, {"robot": robot}), robot)
    if status == "retired":
        raise Forbidden(f"robot {robot} is retired")
    return status


async def lock_if_silent(connection: AsyncConnection, robot: str, silent_after: float) -> RobotStatus | None:
    """Hold a robot's row if it was not heard of for so many seconds; its status then."""
    found = await connection.execute(_LOCK_SILENT, {"robot": robot, "silent_after": silent_after})
    return found.scalar()


async def silent(connection: AsyncConnection, silent_after: float) -> list[str]:
    """The robots that were not heard of for so many seconds and count as there."""
    return list((await connection.execute(_SILENT, {"silent_after": silent_after})).scalars())


async def set_status(connection: AsyncConnection, robot: str, status: RobotStatus) -> RobotStatus:
    """Write down whether a robot is there. Returns what it counts as: `on_break` if staff let it rest."""
    return _status(await connection.execute(_SET_STATUS, {"robot": robot, "status": status}), robot)


async def hold(connection: AsyncConnection, robot: str, by: str) -> bool:
    """Let a robot rest until it is resumed; whether it was not so already."""
    return (await connection.execute(_HOLD, {"robot": robot, "by": by})).first() is not None


async def resume(connection: AsyncConnection, robot: str) -> RobotStatus | None:
    """Let a robot work again; its status then. None if nobody let it rest."""
    return (await connection.execute(_RESUME, {"robot": robot})).scalar()


async def set_session(connection: AsyncConnection, robot: str, session: UUID) -> None:
    """Write down a robot's newest stream."""
    await connection.execute(_SET_SESSION, {"robot": robot, "session": session})


async def heard_of(connection: AsyncConnection, ages: Mapping[str, float]) -> None:
    """Write down that each robot was heard of so many seconds ago."""
    await connection.execute(_HEARD_OF, {"robots": list(ages), "ages": list(ages.values())})


async def view(connection: AsyncConnection, robot: str) -> RobotView:
    """A robot. Raises `NotFound`."""
    row = (await connection.execute(_ONE, {"robot": robot})).mappings().first()
    if row is None:
        raise _unknown(robot)
    return RobotView.model_validate(dict(row))


async def views(connection: AsyncConnection) -> list[RobotView]:
    """All robots, by name."""
    return [RobotView.model_validate(dict(row)) for row in (await connection.execute(_ALL)).mappings()]


async def quiet(connection: AsyncConnection) -> list[tuple[RobotView, float | None]]:
    """All robots, by name, each with how many seconds nothing was heard of it."""
    rows = (await connection.execute(_ALL)).mappings().all()
    return [(RobotView.model_validate(dict(row)), row["quiet_seconds"]) for row in rows]


async def glances(connection: AsyncConnection, robots: Iterable[str]) -> list[Glance]:
    """How these robots stand."""
    rows = await connection.execute(_GLANCES, {"robots": list(robots)})
    return [Glance.model_validate(dict(row)) for row in rows.mappings()]


def _status(found: Any, robot: str) -> RobotStatus:
    status: RobotStatus | None = found.scalar()
    if status is None:
        raise _unknown(robot)
    return status


def _unknown(robot: str) -> NotFound:
    return NotFound(f"there is no robot {robot}")

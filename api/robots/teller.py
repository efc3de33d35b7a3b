"""Tells the orders' sagas what robots did, for as long as that takes while Temporal is away.

Nothing is lost if it does not come to that: a step that was not told finds what happened with its next attempt.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractContextManager
from typing import Final
from uuid import UUID

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind

from domains.depot.messages import Assignment, Progress, ShoppingResult
from kernel.errors import Unavailable
from workflows.shopping import ShoppingSteps

_FIRST_PAUSE: Final = 0.2
_LONGEST_PAUSE: Final = 5.0
_AT_ONCE: Final = 16

_log = logging.getLogger(__name__)

_tracer: Final = trace.get_tracer("mallbots.robots")

Steps = Callable[[], Awaitable[ShoppingSteps]]
"""The waiting steps of the sagas; raises `Unavailable` while Temporal can not be reached."""


class Teller:
    """One a gateway."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self._telling: dict[tuple[str, UUID, int], asyncio.Task[None]] = {}
        self._at_once = asyncio.Semaphore(_AT_ONCE)
        self._is_away = False

    def assigned(self, order_id: UUID, round: int, robot: str) -> None:
        """A robot has the list."""

        async def say(steps: ShoppingSteps) -> None:
            with _told("depot.assign"):
                await steps.assigned(order_id, round, Assignment(robot=robot))

        self._begin(("assigned", order_id, round), say)

    def shopped(self, order_id: UUID, round: int, result: ShoppingResult) -> None:
        """The robot has reported everything, brought it, or lost the list."""

        async def say(steps: ShoppingSteps) -> None:
            with _told("depot.shop"):
                await steps.shopped(order_id, round, result)

        self._begin(("shopped", order_id, round), say)

    async def heard_of(self, robots: Iterable[Progress]) -> None:
        """These robots were heard of. Tried once: the next time is soon."""
        await asyncio.gather(*map(self._heard_of, robots))

    async def close(self, patience: float) -> None:
        """Say what is left to say, for so many seconds at most."""
        left = list(self._telling.values())
        if left:
            _, pending = await asyncio.wait(left, timeout=patience)
            for task in pending:
                task.cancel()

    def _begin(self, key: tuple[str, UUID, int], say: Callable[[ShoppingSteps], Awaitable[None]]) -> None:
        if key not in self._telling:
            task = self._telling[key] = asyncio.create_task(self._until_told(say))
            task.add_done_callback(lambda _: self._telling.pop(key))

    async def _until_told(self, say: Callable[[ShoppingSteps], Awaitable[None]]) -> None:
        pause = _FIRST_PAUSE
        while not await self._try(say):
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _heard_of(self, robot: Progress) -> None:
        async def say(steps: ShoppingSteps) -> None:
            await steps.heard_of(
                robot.order_id, robot.shop_round, robot=robot.robot, picked=robot.picked, total=robot.total
            )

        await self._try(say)

    async def _try(self, say: Callable[[ShoppingSteps], Awaitable[None]]) -> bool:
        """Whether there is no use in trying again."""
        try:
            async with self._at_once:
                await say(await self._steps())
        except Unavailable as error:
            if not self._is_away:
                _log.warning("the orders' sagas can not be told what robots do: %s", error.message)
            self._is_away = True
            return False
        except Exception:
            _log.exception("a saga could not be told what a robot did")
        self._is_away = False
        return True


def _told(activity: str) -> AbstractContextManager[Span]:
    return _tracer.start_as_current_span(f"CompleteActivity:{activity}", kind=SpanKind.CLIENT)

"""What the robots' gateway may say to the saga, whose steps `depot.assign` and `depot.shop` it completes.

Each call may be repeated, and may come too late: that is no error. What happened stands in Depot; a step that was
not told of it finds it there with its next attempt.
"""

from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from temporalio.client import AsyncActivityCancelledError, AsyncActivityHandle, Client
from temporalio.service import RPCError, RPCStatusCode

from domains.depot.messages import Assignment, ShoppingResult
from kernel.errors import Unavailable
from kernel.messages import Done
from workflows.ids import activity_id, workflow_id
from workflows.steps import ASSIGN, SHOP

_RPC_TIMEOUT: Final = timedelta(seconds=5)


class ShoppingSteps:
    """The waiting steps of the orders' sagas, through a Temporal client."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def assigned(self, order_id: UUID, round: int, assignment: Assignment) -> None:
        """A robot has the list. Raises `Unavailable` if Temporal did not answer."""
        await self._complete(self._handle(order_id, ASSIGN.activity, round), Done(attempts=1, reply=assignment))

    async def shopped(self, order_id: UUID, round: int, result: ShoppingResult) -> None:
        """The robot has reported every item, or brought it to the desk. Raises `Unavailable`."""
        await self._complete(self._handle(order_id, SHOP.activity, round), Done(attempts=1, reply=result))

    async def heard_of(self, order_id: UUID, round: int, *, robot: str, picked: int, total: int) -> None:
        """The robot that holds the list was heard of; operators see that it picked `picked` of `total` pieces. Say
        it more often than every `SILENCE`, or the robot loses the list. Raises `Unavailable`."""
        handle = self._handle(order_id, SHOP.activity, round)
        try:
            await handle.heartbeat(f"{robot}: {picked} of {total}", rpc_timeout=_RPC_TIMEOUT)
        except AsyncActivityCancelledError:
            """The order is being cancelled, which Depot will be told."""
        except RPCError as error:
            _pass_if_over(error)

    def _handle(self, order_id: UUID, activity: str, round: int) -> AsyncActivityHandle:
        return self._client.get_async_activity_handle(
            workflow_id=workflow_id(order_id), run_id=None, activity_id=activity_id(activity, round)
        )

    async def _complete(self, handle: AsyncActivityHandle, result: Done[Any]) -> None:
        try:
            await handle.complete(result, rpc_timeout=_RPC_TIMEOUT)
        except RPCError as error:
            _pass_if_over(error)


def _pass_if_over(error: RPCError) -> None:
    """Nothing, if the step is not waiting (any more); raises `Unavailable` otherwise."""
    if error.status is not RPCStatusCode.NOT_FOUND:
        raise Unavailable(f"Temporal did not answer ({error.status.name.lower()}): try again") from error

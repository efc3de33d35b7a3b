"""The versions of the workflows' code that run side by side: which takes new orders, and which still have some.

An order, and a refund, stays on the version that began it. New ones go to the version that is current; while none
is, to workers without a version.
"""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from google.protobuf.timestamp_pb2 import Timestamp
from temporalio.api.deployment.v1 import WorkerDeploymentInfo
from temporalio.api.enums.v1 import TaskQueueType, WorkerDeploymentVersionStatus
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import (
    DescribeTaskQueueRequest,
    DescribeWorkerDeploymentRequest,
    SetWorkerDeploymentCurrentVersionRequest,
)
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from kernel.errors import Conflict
from workflows.client import RPC_TIMEOUT, as_unavailable
from workflows.steps import WORKFLOW_QUEUE

VersionState = Literal["new", "current", "ramping", "draining", "drained"]

_STATES: Final[dict[int, VersionState]] = {
    WorkerDeploymentVersionStatus.WORKER_DEPLOYMENT_VERSION_STATUS_CURRENT: "current",
    WorkerDeploymentVersionStatus.WORKER_DEPLOYMENT_VERSION_STATUS_RAMPING: "ramping",
    WorkerDeploymentVersionStatus.WORKER_DEPLOYMENT_VERSION_STATUS_DRAINING: "draining",
    WorkerDeploymentVersionStatus.WORKER_DEPLOYMENT_VERSION_STATUS_DRAINED: "drained",
}
# A worker asks at least once a minute, also when there is nothing to do.
_GONE_AFTER: Final = timedelta(seconds=90)
_LOOK_EVERY: Final = 0.5


@dataclass(frozen=True)
class Version:
    """A version of the code of the workflows, by its build id; None stands for workers without a version.

    `running` counts its orders and refunds that have not ended, `workers` those that ask for its tasks now (one
    that was killed is counted for 90 seconds more). `since` is when it became what it is, as far as that is told.
    """

    build_id: str | None
    state: VersionState
    running: int
    workers: int
    since: datetime | None = None

    @property
    def advice(self) -> str:
        """What may be done about it, in a sentence; empty if nothing."""
        if self.build_id is None and self.state == "draining":
            return "its orders go on on the version that is current, with their next step"
        if self.state in ("current", "ramping") or self.running:
            return "" if self.workers else "start a worker of it: its orders wait"
        if self.state == "new":
            return "promote it, and it takes new orders" if self.workers else ""
        if self.state == "draining":
            return "keep its workers: Temporal has not said yet that it is drained"
        return "its workers may be stopped" if self.workers else ""


class Versions:
    """The versions of one worker deployment, through a Temporal client."""

    def __init__(self, client: Client, deployment: str) -> None:
        self._client = client
        self._deployment = deployment

    async def find(self) -> list[Version]:
        """Every version, the newest first, and then the workers without one, if any are needed or there. Raises
        `Unavailable`."""
        try:
            info = await self._describe()
            workers = await self._workers()
            found = [
                Version(
                    build_id=one.deployment_version.build_id,
                    state=_STATES.get(one.status, "new"),
                    running=await self._running(f"= '{self._deployment}:{one.deployment_version.build_id}'"),
                    workers=workers[one.deployment_version.build_id],
                    since=_since(one),
                )
                for one in info.version_summaries
            ]
            without = await self._running("IS NULL")
        except RPCError as error:
            raise as_unavailable(error) from error
        is_current = not any(one.state == "current" for one in found)
        if is_current or without or workers[None]:
            state: VersionState = "current" if is_current else "draining" if without else "drained"
            found.append(Version(None, state, without, workers[None]))
        return found

    async def promote(self, build_id: str | None, *, patience: timedelta) -> str | None:
        """Let a version take new orders from now on, once a worker of it is there; None lets those without one.

        Returns the build id that took them before. Raises `Conflict` if no worker of it asks for tasks within
        `patience`, or the server refuses it for another reason; `Unavailable`.
        """
        try:
            await self._until_there(build_id, patience)
            answer = await self._client.workflow_service.set_worker_deployment_current_version(
                SetWorkerDeploymentCurrentVersionRequest(
                    namespace=self._client.namespace,
                    deployment_name=self._deployment,
                    build_id=build_id or "",
                    identity=self._client.identity,
                )
            )
        except RPCError as error:
            if error.status in (RPCStatusCode.FAILED_PRECONDITION, RPCStatusCode.NOT_FOUND):
                raise Conflict(f"Temporal does not promote {build_id}: {error.message}") from error
            raise as_unavailable(error) from error
        return answer.previous_deployment_version.build_id or None

    async def _until_there(self, build_id: str | None, patience: timedelta) -> None:
        """Raise `Conflict` if nobody comes: orders would wait."""
        until = time.monotonic() + patience.total_seconds()
        while not await self._is_there(build_id):
            if time.monotonic() >= until:
                which = f"of build {build_id}" if build_id else "without a build id"
                raise Conflict(f"no worker {which} is there: start one with `mallbots worker`, then promote it")
            await asyncio.sleep(_LOOK_EVERY)

    async def _is_there(self, build_id: str | None) -> bool:
        if not (await self._workers())[build_id]:
            return False
        # The server learns of a version a moment after its worker came.
        known = [one.deployment_version.build_id for one in (await self._describe()).version_summaries]
        return build_id is None or build_id in known

    async def _describe(self) -> WorkerDeploymentInfo:
        request = DescribeWorkerDeploymentRequest(
            namespace=self._client.namespace, deployment_name=self._deployment
        )
        try:
            answer = await self._client.workflow_service.describe_worker_deployment(request, timeout=RPC_TIMEOUT)
        except RPCError as error:
            if error.status == RPCStatusCode.NOT_FOUND:
                return WorkerDeploymentInfo()
            raise
        return answer.worker_deployment_info

    async def _workers(self) -> Counter[str | None]:
        """How many workers ask for the tasks of workflows now, by build id."""
        request = DescribeTaskQueueRequest(
            namespace=self._client.namespace,
            task_queue=TaskQueue(name=WORKFLOW_QUEUE),
            task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
        )
        answer = await self._client.workflow_service.describe_task_queue(request, timeout=RPC_TIMEOUT)
        since = datetime.now(UTC) - _GONE_AFTER
        here = {
            (poller.identity, poller.deployment_options.build_id or None)
            for poller in answer.pollers
            if poller.last_access_time.ToDatetime(UTC) > since
        }
        return Counter(build_id for _, build_id in here)

    async def _running(self, version: str) -> int:
        query = f"TemporalWorkerDeploymentVersion {version} AND ExecutionStatus = 'Running'"
        return (await self._client.count_workflows(query, rpc_timeout=RPC_TIMEOUT)).count


def _since(version: WorkerDeploymentInfo.WorkerDeploymentVersionSummary) -> datetime | None:
    changed: dict[str, Timestamp] = {
        "current": version.current_since_time,
        "ramping": version.ramping_since_time,
        "draining": version.last_deactivation_time,
        "drained": version.drainage_info.last_changed_time,
    }
    since = changed.get(_STATES.get(version.status, ""), version.create_time)
    return since.ToDatetime(UTC) if since.seconds else None

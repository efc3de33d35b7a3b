"""Two versions of the workflows side by side: each order stays on the one that began it, and none is lost."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker
from typer.testing import CliRunner

from kernel.errors import Conflict
from mallbots.cli import app
from mallbots.settings import Settings
from mallbots.temporal import connect
from tests.temporal.conftest import a_story
from tests.temporal.later_order import LaterOrder
from tests.waiting import eventually
from tests.workflows.conftest import WORKERS, Domains, Story
from tests.workflows.test_hand_over import HANDED_OVER, hand_over
from tests.workflows.test_shopping import TO_READY
from worker import STICKY_TIMEOUT, versioning
from workflows.operators import StuckSagas
from workflows.order import OrderWorkflow
from workflows.steps import REMIND, WORKFLOW_QUEUE
from workflows.versions import Version, Versions

OLD, NEW = "2026-11-01", "2026-11-24"
SOON, AT_ONCE = timedelta(seconds=20), timedelta()
WHOLE = [*TO_READY, *HANDED_OVER]


class OldWorker:
    """The worker of the old version: the real program, in a process of its own."""

    def __init__(self, settings: Settings) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("MALLBOTS_")}
        self.environment = inherited | {
            "MALLBOTS_TEMPORAL_ADDRESS": settings.temporal_address,
            "MALLBOTS_TEMPORAL_NAMESPACE": settings.temporal_namespace,
            "MALLBOTS_WORKER_BUILD_ID": OLD,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = (sys.executable, "-m", "mallbots", "worker", "--domain", "workflows")
        self._process = subprocess.Popen(command, env=self.environment)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@pytest.fixture
async def client(settings_of: Callable[..., Settings]) -> Client:
    return await connect(settings_of())


@pytest.fixture
async def domains(client: Client) -> AsyncIterator[Domains]:
    """The domains' workers, which are of no version."""
    domains, queues = Domains(client), [one for one in WORKERS if one != WORKFLOW_QUEUE]
    for one in queues:
        await domains.up(one)
    yield domains
    await asyncio.gather(*map(domains.down, queues))


@pytest.fixture
def old_worker(settings_of: Callable[..., Settings]) -> Iterator[OldWorker]:
    worker = OldWorker(settings_of())
    yield worker
    worker.kill()


@asynccontextmanager
async def a_worker(client: Client, settings: Settings, story: type[OrderWorkflow]) -> AsyncIterator[None]:
    """A worker of the workflows that knows this story, in this process."""
    async with Worker(
        client,
        task_queue=WORKFLOW_QUEUE,
        workflows=[story],
        sticky_queue_schedule_to_start_timeout=STICKY_TIMEOUT,
        deployment_config=versioning(settings, WORKFLOW_QUEUE),
    ):
        yield


async def complete(story: Story) -> list[str]:
    """Bring an approved order to its customer; all that was done for it."""
    await story.robot_takes()
    await story.robot_brings()
    await story.until(lambda account: account.status == "ready")
    await hand_over(story)
    assert (await story.handle.result()).status == "completed"
    return story.done


async def test_a_new_version_takes_new_orders_while_the_old_one_finishes_its_own(
    server: WorkflowEnvironment,
    client: Client,
    domains: Domains,
    settings_of: Callable[..., Settings],
    old_worker: OldWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    versions = Versions(client, "mallbots")

    async def by_build() -> dict[str | None, Version]:
        return {one.build_id: one for one in await versions.find()}

    async def command(*arguments: str) -> str:
        for name in ("MALLBOTS_TEMPORAL_ADDRESS", "MALLBOTS_TEMPORAL_NAMESPACE"):
            monkeypatch.setenv(name, old_worker.environment[name])
        done = await asyncio.to_thread(CliRunner().invoke, app, ["versions", *arguments])
        assert done.exception is None, done.output
        return done.output

    def order() -> Story:
        return a_story(server, domains, client)

    # While no build is promoted, a worker without one takes the orders, as in every mall so far.
    early = order()
    async with a_worker(client, settings_of(), OrderWorkflow):
        await early.answer()
        old_worker.start()
        assert await versions.promote(OLD, patience=SOON) is None
    # What it has begun goes on on the version that was promoted first.
    [without] = [one for one in await versions.find() if one.build_id is None]
    assert (without.state, without.running) == ("draining", 1)
    assert await complete(early) == WHOLE
    begun = [order() for _ in range(2)]
    for story in begun:
        await story.answer()

    async with a_worker(client, settings_of(worker_build_id=NEW), LaterOrder):
        await eventually(lambda: knows(versions, NEW))
        # Until it is promoted it takes nothing.
        unmoved = order()
        await unmoved.answer()
        assert unmoved.done[0] == TO_READY[0]
        assert await versions.promote(NEW, patience=SOON) == OLD
        later = [order() for _ in range(2)]
        for story in later:
            await story.answer()
        assert [story.done[0] for story in later] == [REMIND.activity] * 2
        now = await by_build()
        assert (now[NEW].state, now[OLD].state, now[OLD].running) == ("current", "draining", 3)
        assert now[OLD].advice == ""

        # Orders of a version without a worker wait; those of the other go on.
        old_worker.kill()
        assert await complete(later[0]) == [REMIND.activity, *WHOLE]
        async with a_worker(client, settings_of(worker_build_id=OLD), OrderWorkflow):
            # At once: each waits a while for the killed worker, which knows it best.
            assert await asyncio.gather(*map(complete, (unmoved, *begun))) == [WHOLE] * 3
            assert await complete(later[1]) == [REMIND.activity, *WHOLE]

            assert await StuckSagas(client).is_worked_on(WORKFLOW_QUEUE)
            drained = await eventually(lambda: drained_version(versions, OLD))
            assert drained is not None
            assert (drained.running, drained.advice) == (0, "its workers may be stopped")
            told = await command("list")
            assert "drained" in told
            assert "its workers may be stopped" in told

            # A bad version: the old one takes new orders again, and the new one keeps those that it has.
            kept = order()
            await kept.answer()
            assert f"new orders go to {OLD}; those of {NEW} stay there" in await command("promote", OLD)
            again = order()
            await again.answer()
            assert await complete(again) == WHOLE
            assert await complete(kept) == [REMIND.activity, *WHOLE]

    with pytest.raises(Conflict, match="no worker of build 2027 is there"):
        await versions.promote("2027", patience=AT_ONCE)
    async with a_worker(client, settings_of(), OrderWorkflow):
        assert "new orders go to workers without a build id" in await command("promote", "--unversioned")


async def knows(versions: Versions, build_id: str) -> bool:
    return any(one.build_id == build_id and one.state == "new" for one in await versions.find())


async def drained_version(versions: Versions, build_id: str) -> Version | None:
    return next(
        (one for one in await versions.find() if one.build_id == build_id and one.state == "drained"), None
    )

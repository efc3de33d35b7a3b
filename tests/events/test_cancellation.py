"""Whatever uses NATS ends when it is cancelled, also while NATS is away."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from api.live.hub import Hub
from consumers import copies
from consumers.notifications.log import LogNotifier
from consumers.notifications.sender import Sender
from events.partition import Feed, Partition
from events.relay import Relay
from events.work_queue import Job, Workers
from kernel.database import Database
from tests.events.log import STREAM_CONFIG

NOWHERE = "nats://127.0.0.1:1"


async def _nothing(job: Job) -> None: ...


@pytest.mark.parametrize(
    "work",
    [
        pytest.param(lambda database: Relay("depot", database, NOWHERE, STREAM_CONFIG).run(), id="relay"),
        pytest.param(
            lambda database: Partition(copies.DEPOT, 0, database, Feed(NOWHERE, {"stores": database})).run(),
            id="consumer",
        ),
        pytest.param(lambda database: Workers(NOWHERE, "tests", _nothing).run(), id="workers"),
        pytest.param(lambda database: Sender(database, NOWHERE, LogNotifier())._keep_handing_out(), id="sender"),
        pytest.param(lambda database: Hub(NOWHERE).run(), id="live updates"),
    ],
)
async def test_a_cancellation_that_comes_together_with_the_refusal_of_nats_is_not_lost(
    fresh_database: Database,
    monkeypatch: pytest.MonkeyPatch,
    work: Callable[[Database], Coroutine[Any, Any, None]],
) -> None:
    cancelled: list[asyncio.Task[Any]] = []

    async def connect(*_: Any, **__: Any) -> None:
        task, refusal = asyncio.current_task(), asyncio.get_running_loop().create_future()
        assert task is not None

        def refuse() -> None:
            refusal.set_exception(ConnectionRefusedError())
            if not cancelled:
                cancelled.append(task)
                task.cancel()

        asyncio.get_running_loop().call_soon(refuse)
        await asyncio.wait_for(refusal, 2)

    monkeypatch.setattr("nats.aio.client.Client.connect", connect)
    task = asyncio.create_task(work(fresh_database))
    try:
        ended, _ = await asyncio.wait([task], timeout=5)
        assert cancelled
        assert ended, "it goes on as if nobody had cancelled it"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

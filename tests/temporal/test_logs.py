"""Temporal's core logs as the rest of the process does."""

import logging
from collections.abc import Callable
from threading import Event

import pytest
from temporalio import workflow
from temporalio.worker import Worker

from kernel.ids import new_id
from mallbots.settings import Settings
from mallbots.telemetry import configure_metrics
from mallbots.temporal import connect
from tests.waiting import eventually


@workflow.defn(name="Broken", sandboxed=False)
class Broken:
    """Fails in its own code."""

    @workflow.run
    async def run(self) -> None:
        raise ValueError("no stock")


async def test_what_temporals_core_warns_of_is_a_line_of_our_log(
    settings_of: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("mallbots.telemetry._is_process", Event())
    settings = settings_of()
    configure_metrics(settings)
    client, queue = await connect(settings), f"broken-{new_id()}"
    async with Worker(client, task_queue=queue, workflows=[Broken]):
        handle = await client.start_workflow(Broken.run, id=queue, task_queue=queue)

        def is_told() -> bool:
            names = {record.name.partition("::")[0] for record in caplog.records if "no stock" in record.message}
            return "temporalio-sdk_core" in names

        await eventually(is_told)
        await handle.terminate()
    assert all(record.levelno >= logging.WARNING for record in caplog.records)
    assert "no stock" not in capfd.readouterr().out

"""Every history ever recorded replays on the code of today: no order in flight is broken by a deployment."""

from pathlib import Path

import pytest
from temporalio import workflow
from temporalio.client import WorkflowHistory
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Replayer

from tests.workflows.changed_order import ChangedOrder
from tests.workflows.conftest import REPLAYER

HISTORIES = sorted((Path(__file__).parent / "histories").rglob("*.json"))


@pytest.mark.parametrize("file", HISTORIES, ids=lambda file: f"{file.parent.name}/{file.stem}")
async def test_a_recorded_history_replays(file: Path) -> None:
    await replay(REPLAYER, file)


async def test_a_careless_edit_of_the_story_is_caught_by_the_recordings() -> None:
    careless = Replayer(workflows=[ChangedOrder], data_converter=pydantic_data_converter)
    with pytest.raises(workflow.NondeterminismError):
        await replay(careless, next(file for file in HISTORIES if "web-ui" in file.stem and "depot" in file.stem))


async def replay(replayer: Replayer, file: Path) -> None:
    await replayer.replay_workflow(WorkflowHistory.from_json("recorded", file.read_text()))

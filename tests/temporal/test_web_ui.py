"""What operators find in Temporal's Web UI: the views that the docs offer, and how an order ended and why."""

import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

from temporalio.api.sdk.v1 import WorkflowMetadata
from temporalio.testing import WorkflowEnvironment

from kernel.errors import Refusal, Refused
from mallbots.settings import Settings
from tests.temporal.conftest import a_story
from tests.temporal.test_encryption import at_work, begin
from tests.waiting import eventually
from workflows.attributes import ALL, ORDER_STATUS, REASON

TEXT = (Path(__file__).parents[2] / "docs/temporal-ui.md").read_text()
VIEWS = dict(re.findall(r'^    "([^"]+)": "([^"]+)",$', TEXT, re.MULTILINE))
LINKS = re.findall(r"\[([^\]]+)\]\(\S+/workflows\?query=(\S+)\)", TEXT)
COMMANDS = re.findall(r'^temporal workflow \w+ --query "([^"]+)"$', TEXT, re.MULTILINE)


async def test_each_view_that_is_offered_is_a_query_that_temporal_understands(server: WorkflowEnvironment) -> None:
    assert len(VIEWS) == 7
    assert len(COMMANDS) == 4
    assert {name: unquote(query) for name, query in LINKS}.items() <= VIEWS.items()
    for query in (*VIEWS.values(), *COMMANDS):
        assert (await server.client.count_workflows(query)).count >= 0, query


def test_each_search_attribute_is_explained() -> None:
    assert {key.name for key in ALL} <= set(re.findall(r"`(\w+)`", TEXT))


async def test_a_refused_order_is_found_by_its_reason_and_says_how_it_ended(
    server: WorkflowEnvironment, settings_of: Callable[..., Settings]
) -> None:
    async with at_work(settings_of()) as domains:
        story = a_story(server, domains, domains.client)

        async def decline(attempt: int) -> None:
            raise Refused(Refusal(code="payment_declined", detail="the card was declined"))

        domains.when(story.id, "payments.authorize", decline)
        await begin(story, domains.client)
        await story.handle.result()
        attributes = (await story.handle.describe()).typed_search_attributes
        assert (attributes[ORDER_STATUS], attributes[REASON]) == ("rejected", "payment_declined")
        told = await story.handle.query("__temporal_workflow_metadata", result_type=WorkflowMetadata)
        assert told.current_details.startswith("**payment_declined** the card was declined\n\nrejected\n")

        async def is_listed() -> bool:
            found = domains.client.list_workflows(f"{VIEWS['Refused']} AND {REASON.name} = 'payment_declined'")
            return story.handle.id in [one.id async for one in found]

        await eventually(is_listed)

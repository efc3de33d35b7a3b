"""A Temporal server that is quick to say that a version has no orders any more, and sagas on it."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from temporalio.client import Client, WorkflowHandle
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import WorkflowEnvironment

from domains.payments.messages import CardPayment
from kernel.ids import new_id
from mallbots.embedded import find_binary
from mallbots.settings import Settings
from tests.samples import line
from tests.workflows.conftest import Domains, Story
from workflows.attributes import ALL
from workflows.ids import workflow_id
from workflows.messages import OrderOutcome, OrderRequest
from workflows.order import OrderWorkflow

CUSTOMER, SKU = "Ada Lovelace", "dawn-shift-tea"
_QUICK = (
    "history.transferProcessorMaxPollRPS=10000",
    'history.timerProcessorMaxTimeShift="10ms"',
    'matching.wv.VersionDrainageStatusVisibilityGracePeriod="1s"',
    'matching.wv.VersionDrainageStatusRefreshInterval="1s"',
)


@pytest.fixture(scope="session")
async def server() -> AsyncIterator[WorkflowEnvironment]:
    """The server; its client does not encrypt."""
    async with await WorkflowEnvironment.start_local(
        dev_server_existing_path=str(find_binary("temporal")),
        dev_server_extra_args=[part for one in _QUICK for part in ("--dynamic-config-value", one)],
        data_converter=pydantic_data_converter,
        search_attributes=ALL,
    ) as server:
        yield server


@pytest.fixture
def settings_of(server: WorkflowEnvironment) -> Callable[..., Settings]:
    """Settings of a process that finds the server, and more."""

    def settings(**more: Any) -> Settings:
        address, namespace = server.client.service_client.config.target_host, server.client.namespace
        return Settings.model_validate({"temporal_address": address, "temporal_namespace": namespace, **more})

    return settings


def a_story(server: WorkflowEnvironment, domains: Domains, client: Client) -> Story:
    """An order of two teas, which has not begun yet."""
    order = OrderRequest(
        order_id=new_id(),
        kiosk="kiosk-1",
        customer=CUSTOMER,
        lines=[line(SKU, 2)],
        payment=CardPayment(token="tok_approved"),
        currency="USD",
    )
    handle: WorkflowHandle[OrderWorkflow, OrderOutcome] = client.get_workflow_handle_for(
        OrderWorkflow.run, workflow_id(order.order_id)
    )
    return Story(server, domains, order, handle)

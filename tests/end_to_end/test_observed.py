"""What an observed mall tells: every metric that our alerts and dashboards go by is there, and no label grows."""

import re
from collections.abc import Callable
from typing import Final
from uuid import uuid4

import httpx
import pytest

from tests.mall import Mall
from tests.telemetry.rules import labels_looked_at, metrics_looked_at
from tests.waiting import eventually

ONLY_AFTER_A_FAULT_OF_OURS: Final = {"temporal_workflow_task_execution_failed_total"}
ID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-|walker-")

Metrics = Callable[[], list[str]]


@pytest.fixture(scope="module")
def metrics(mall: Mall) -> Metrics:
    """The lines of all metrics that the mall tells now."""
    ports = re.findall(r":(\d+)/metrics", mall.output.read_text())
    assert len(ports) == len(set(ports)) == 10

    def told() -> list[str]:
        pages = [httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text for port in ports]
        return [line for page in pages for line in page.splitlines() if not line.startswith("#")]

    return told


async def test_everything_that_alerts_and_dashboards_go_by_is_told_by_a_real_mall(
    mall: Mall, kiosk: httpx.AsyncClient, customer: str, metrics: Metrics
) -> None:
    for sku, card in (("no-such-thing", "tok_approved"), ("kettle-dawn-50", "tok_timeout_once")):
        await kiosk.post(
            "/v1/orders",
            json={
                "customer": customer,
                "items": [{"sku": sku, "quantity": 1}],
                "payment": {"method": "card", "token": card},
            },
            headers={"Idempotency-Key": str(uuid4())},
        )
    wanted = metrics_looked_at() - ONLY_AFTER_A_FAULT_OF_OURS

    def all_are_told() -> bool:
        return wanted <= {re.split(r"[{ ]", line, maxsplit=1)[0] for line in metrics()}

    try:
        await eventually(all_are_told, timeout=25)
    finally:
        missing = wanted - {re.split(r"[{ ]", line, maxsplit=1)[0] for line in metrics()}
        assert not missing


def test_each_label_that_alerts_and_dashboards_ask_for_is_told(metrics: Metrics) -> None:
    told = metrics()
    asked = {(name, label) for name, label in labels_looked_at() if name not in ONLY_AFTER_A_FAULT_OF_OURS}
    assert asked
    for name, label in asked:
        lines = [line for line in told if line.startswith(name + "{")]
        assert lines
        assert all(f'{label}="' in line for line in lines), (name, label)


def test_no_label_names_an_order_or_a_customer(metrics: Metrics) -> None:
    ours = [line for line in metrics() if line.startswith("mallbots_")]
    assert ours
    assert [line for line in ours if ID.search(line)] == []

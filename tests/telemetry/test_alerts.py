"""Alerts and dashboards: each alert is explained, and what they look at is said in one place."""

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.promtool import find as find_promtool
from tests.telemetry.rules import ALERTS, DEPLOY, alerts, dashboards

RUNBOOK: Final = Path("docs/operating.md")
PROMTOOL: Final = find_promtool()


def test_each_alert_says_how_soon_what_and_where_to_read_on() -> None:
    for alert in alerts():
        assert alert["labels"]["severity"] in ("critical", "warning"), alert["alert"]
        assert alert["annotations"]["summary"]
        assert alert["annotations"]["runbook"] == f"{RUNBOOK}#{alert['alert'].lower()}"


def test_each_alert_has_its_section_in_the_runbook_and_each_section_its_alert() -> None:
    text = (DEPLOY.parent / RUNBOOK).read_text()
    chapter = text.partition("\n## Each alert\n")[2].partition("\n## ")[0]
    sections = re.findall(r"^### (\w+)$", chapter, re.MULTILINE)
    assert sections == [alert["alert"] for alert in alerts()]


def test_prometheus_asks_every_process_of_the_compose_file() -> None:
    compose = yaml.safe_load((DEPLOY.parent / "docker-compose.yml").read_text())
    asked = targets(yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text()))
    # A service with a profile is not there unless it is asked for; `migrate` runs and ends.
    services = {
        name: one for name, one in compose["services"].items() if "profiles" not in one and name != "migrate"
    }
    environments = {name: service.get("environment") or {} for name, service in services.items()}
    for job, setting in (
        ("mallbots", "MALLBOTS_METRICS_PORT"),
        ("temporal-sdk", "MALLBOTS_TEMPORAL_METRICS_PORT"),
    ):
        serving = {f"{name}:{given[setting]}" for name, given in environments.items() if setting in given}
        assert asked[job] == serving
    assert asked["temporal"] == {"temporal:9090"}


def targets(configuration: Mapping[str, Any]) -> dict[str, set[str]]:
    return {
        job["job_name"]: {target for group in job["static_configs"] for target in group["targets"]}
        for job in configuration["scrape_configs"]
    }


@pytest.mark.skipif(PROMTOOL is None, reason="promtool comes with Prometheus, which is not installed")
def test_alerts_rise_when_they_should_and_only_then() -> None:
    assert PROMTOOL is not None
    for arguments in (
        ("check", "config", DEPLOY / "prometheus/prometheus.yml"),
        ("test", "rules", ALERTS.with_suffix(".test.yml")),
    ):
        done = subprocess.run((PROMTOOL, *arguments), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_has_a_unit_test() -> None:
    document = yaml.safe_load(ALERTS.with_suffix(".test.yml").read_text())
    tested = {
        test["alertname"] for unit in document["tests"] for test in unit["alert_rule_test"] if test["exp_alerts"]
    }
    assert tested == {alert["alert"] for alert in alerts()}


def test_dashboards_go_by_the_provisioned_source_and_explain_each_alert_that_they_name() -> None:
    provisioning = DEPLOY / "grafana/provisioning"
    sources = [yaml.safe_load(file.read_text()) for file in (provisioning / "datasources").glob("*.yaml")]
    known = {source["uid"] for document in sources for source in document["datasources"]}
    anchors = {alert["annotations"]["runbook"] for alert in alerts()}
    assert len(dashboards()) == len({dashboard["uid"] for dashboard in dashboards()}) == 3
    for dashboard in dashboards():
        panels = dashboard["panels"]
        assert len({panel["id"] for panel in panels}) == len(panels)
        assert {panel["datasource"]["uid"] for panel in panels} <= known
        named = re.findall(r"docs/operating\.md#\w+", " ".join(panel["description"] for panel in panels))
        assert set(named) <= anchors

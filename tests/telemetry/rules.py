"""What Prometheus and Grafana are told to look at: our alerts, and the panels of our dashboards."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

DEPLOY: Final = Path(__file__).parents[2] / "deploy"
ALERTS: Final = DEPLOY / "prometheus/alerts.yml"

_OF_A_PROCESS: Final = "process_cpu_seconds_total|process_resident_memory_bytes"
_ASKED: Final = re.compile(r"((?:mallbots|temporal)_[a-z_]+)\{([^}]*)\}")
_LABEL: Final = re.compile(r"(\w+)\s*[=!]")
_NAME: Final = re.compile(rf"\b((?:mallbots|temporal)_[a-z_]+|{_OF_A_PROCESS})\b(?!=)")


def alerts() -> list[dict[str, Any]]:
    """Every alert."""
    document = yaml.safe_load(ALERTS.read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


def dashboards() -> list[dict[str, Any]]:
    """Every dashboard."""
    return [json.loads(file.read_text()) for file in sorted((DEPLOY / "grafana/dashboards").glob("*.json"))]


def metrics_looked_at() -> set[str]:
    """The name of every metric that an alert or a panel goes by."""
    return {name for expression in expressions() for name in _NAME.findall(expression)}


def labels_looked_at() -> Iterator[tuple[str, str]]:
    """The name of a metric, and that of a label that an alert or a panel asks of it. (What Prometheus itself adds
    is not ours to tell.)"""
    for expression in expressions():
        for name, given in _ASKED.findall(expression):
            yield from ((name, label) for label in _LABEL.findall(given) if label not in ("job", "part"))


def expressions() -> Iterator[str]:
    """What every alert and every panel goes by."""
    yield from (alert["expr"] for alert in alerts())
    for dashboard in dashboards():
        yield from (target["expr"] for panel in dashboard["panels"] for target in panel["targets"])

"""The files for Prometheus and Grafana name metrics that exist, and every alert is tested."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dispatcher.core.status import StatusSnapshot
from dispatcher.telemetry import Metrics, State

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD = DEPLOY / "grafana" / "dashboard.json"
RULES = DEPLOY / "prometheus" / "alerts.yml"
METRIC = re.compile(r"\b(?:dispatcher|process|python)_\w+")
SUFFIXES = {
    "counter": ("_total",),
    "histogram": ("_bucket", "_sum", "_count"),
    "gauge": ("",),
    "info": ("_info",),
}


@pytest.fixture(scope="module")
def names() -> set[str]:
    """All series that a process shows."""
    now = datetime(2026, 11, 1, tzinfo=UTC)
    metrics = Metrics()
    State(metrics.registry, now=lambda: now).show(StatusSnapshot(now, [], [], []))
    return {
        family.name + suffix
        for family in metrics.registry.collect()
        for suffix in SUFFIXES[family.type]
    }


def expressions() -> Iterator[tuple[str, str]]:
    """The title and the expression of every line of the dashboard."""
    dashboard = json.loads(DASHBOARD.read_text())
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for variable in dashboard["templating"]["list"]:
        if found := re.match(r"label_values\((\w+),", variable.get("definition", "")):
            yield variable["name"], found[1]


def test_the_dashboard_names_only_metrics_that_exist(names):
    used = {(title, name) for title, text in expressions() for name in METRIC.findall(text)}
    assert len(used) > 20
    assert [each for each in sorted(used) if each[1] not in names] == []


def test_the_alerts_name_only_metrics_that_exist(names):
    used = {
        name
        for text in re.findall(r"expr: \|?((?:.|\n)*?)\n\s+(?:for|labels):", RULES.read_text())
        for name in METRIC.findall(text)
    }
    assert len(used) >= 11
    assert used <= names


def test_every_metric_of_ours_is_drawn_or_watched(names):
    told = DASHBOARD.read_text() + RULES.read_text()
    ours = {name for name in names if name.startswith("dispatcher_")}
    unused = [name for name in ours if name.removesuffix("_bucket") not in told]
    assert [name for name in unused if not name.endswith(("_sum", "_count"))] == []


def test_every_alert_is_tested():
    tested = (DEPLOY / "prometheus" / "alerts_test.yml").read_text()
    alerts = re.findall(r"- alert: (\w+)", RULES.read_text())
    assert [name for name in alerts if tested.count(f"alertname: {name}") < 2] == []

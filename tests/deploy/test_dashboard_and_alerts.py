"""The files for Prometheus and Grafana parse, and name metrics that exist."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dispatcher.core.status import StatusSnapshot
from dispatcher.telemetry import Metrics, State

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD = DEPLOY / "grafana" / "dashboard.json"
RULES = DEPLOY / "prometheus" / "alerts.yml"
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool is missing (Debian: apt install prometheus)"
)
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


@needs_promtool
def test_the_expressions_of_the_dashboard_parse(tmp_path):
    rules = [
        {"record": f"dashboard:line:{place}", "expr": fixed(text)}
        for place, (_, text) in enumerate(expressions())
    ]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert promtool("check", "rules", str(file)) == 0


def fixed(text: str) -> str:
    """Return an expression as Grafana sends it."""
    return text.replace("$__rate_interval", "1m").replace("$app", ".*")


@needs_promtool
def test_the_alerts_fire_when_they_should_and_only_then():
    assert promtool("test", "rules", str(DEPLOY / "prometheus" / "alerts_test.yml")) == 0


@needs_promtool
def test_every_alert_is_tested():
    tested = (DEPLOY / "prometheus" / "alerts_test.yml").read_text()
    alerts = re.findall(r"- alert: (\w+)", RULES.read_text())
    assert [name for name in alerts if tested.count(f"alertname: {name}") < 2] == []


@needs_promtool
def test_the_configuration_is_one():
    assert promtool("check", "config", str(DEPLOY / "prometheus" / "prometheus.yml")) == 0


@needs_promtool
def test_a_broken_rule_is_noticed(tmp_path):
    broken = tmp_path / "alerts.yml"
    broken.write_text(RULES.read_text().replace("max by (app)", "max buy (app)"))
    assert promtool("check", "rules", str(broken)) != 0


def promtool(*arguments: str) -> int:
    return subprocess.run([PROMTOOL, *arguments], capture_output=True, check=False).returncode

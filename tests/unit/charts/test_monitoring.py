"""What the chart's dashboard and alerts ask Prometheus is PromQL, and of metrics that workers have."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from helm_python.chart import Chart
from prometheus_client.parser import text_string_to_metric_families

CHART = Path(__file__).parents[3] / "charts/imagemill"
ROOT = CHART.parents[1]

GIVEN_BY_PROMETHEUS = {"namespace", "pod"}
"""Labels that a PodMonitor puts on all that it scrapes."""

EXPOSE = """
import sys
from pathlib import Path
from imagemill.messages import Build, BuildReport, BuildRequest
from tasks import signals
from worker.metrics import Metrics, exposition

metrics = Metrics(Path(sys.argv[1]))
build = Build(id="a", request=BuildRequest(source="/src"), started=0)
report = BuildReport(id="a", status="succeeded", seconds=1)
signals.build_began.send(sender=None, build=build)
signals.build_ended.send(sender=None, build=build, report=report)
signals.step_ended.send(sender=None, step="build", seconds=1.0)
signals.step_retried.send(sender=None, step="build")
signals.step_redelivered.send(sender=None, step="build")
signals.message_refused.send(sender=None)
signals.cache_asked.send(sender=None, cache="hash", hit=True)
signals.context_stored.send(sender=None, size=1)
metrics._wait_seconds.labels("imagemill").observe(1)
print(exposition({"imagemill": 1}).decode())
"""


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """The series that a worker has in which everything has happened once, with their labels."""
    told = subprocess.run(
        [sys.executable, "-c", EXPOSE, str(tmp_path_factory.mktemp("metrics"))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(told.stdout):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def rendered() -> Iterator[dict[str, Any]]:
    values = {
        "image": {"repository": "registry.example.com/imagemill"},
        "monitoring": {"podMonitor": True, "rules": True, "dashboard": True},
    }
    with Chart.load(CHART) as chart:
        files = chart.render(values, name="mill", namespace="ns")
    for path, text in files.items():
        if path.endswith(".yaml"):
            yield from (made for made in yaml.load_all(text, yaml.CSafeLoader) if made)


def dashboard() -> dict[str, Any]:
    (made,) = [
        each
        for each in rendered()
        if "grafana_dashboard" in each.get("metadata", {}).get("labels", {})
    ]
    found: dict[str, Any] = json.loads(made["data"]["imagemill.json"])
    return found


def questions() -> list[str]:
    """All that Prometheus is asked, with Grafana's variables as Grafana fills them in."""
    asked = [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]
    (rules,) = [each for each in rendered() if each["kind"] == "PrometheusRule"]
    asked += [rule["expr"] for group in rules["spec"]["groups"] for rule in group["rules"]]
    return [text.replace("$__rate_interval", "1m").replace("$namespace", ".*") for text in asked]


def selectors(node: Any, grouped: frozenset[str] = frozenset()) -> Iterator[tuple[str, set[str]]]:
    """The series of a parsed question, each with the labels that it is chosen and grouped by."""
    if isinstance(node, promql_parser.VectorSelector):
        yield str(node.name), {matcher.name for matcher in node.matchers.matchers} | grouped
    if isinstance(node, promql_parser.AggregateExpr) and node.modifier:
        grouped |= frozenset(node.modifier.labels)
    parts = [getattr(node, name, None) for name in ("expr", "lhs", "rhs", "vector_selector")]
    for part in (*parts, *getattr(node, "args", ())):
        if part is not None:
            yield from selectors(part, grouped)


def test_each_question_is_of_series_that_a_worker_has(series: dict[str, set[str]]) -> None:
    asked: set[str] = set()
    for question in questions():
        for name, labels in selectors(promql_parser.parse(question)):
            asked.add(name)
            assert name in series, f"{name}: {question}"
            assert labels - GIVEN_BY_PROMETHEUS <= series[name], question
    families = {re.sub(r"_(bucket|count|sum|created|total)$", "", name) for name in series}
    shown = {re.sub(r"_(bucket|count|total)$", "", name) for name in asked}
    assert families - shown == {"imagemill_builds_begun"}


def test_the_dashboard_is_one_of_grafanas() -> None:
    made = dashboard()
    assert made["title"]
    assert made["schemaVersion"]
    places = [panel["gridPos"] for panel in made["panels"]]
    cells = [
        (column, row)
        for place in places
        for column in range(place["x"], place["x"] + place["w"])
        for row in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(column for column, _ in cells) < 24
    assert len({panel["id"] for panel in made["panels"]}) == len(places)

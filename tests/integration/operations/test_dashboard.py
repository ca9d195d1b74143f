"""What is shipped for Grafana and Prometheus asks for metrics that there are."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from modelserver.operations.prometheus import FleetCollector
from tests.support.fleet_records import Records
from tests.support.processes import ROOT, ValkeyProcess

DASHBOARD = ROOT / "deploy/grafana/dashboards/modelserver.json"
RULES = ROOT / "deploy/prometheus/alerts.yml"
RULE_TESTS = ROOT / "deploy/prometheus/alerts_test.yml"
PROMTOOL = shutil.which("promtool")
#: Metrics' names and their labels in a query.
METRIC = re.compile(r"\b((?:modelserver|celery)_\w+)(?:\{([^}]*)\})?")
#: Names of labels that are compared.
LABEL = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")


def queries() -> list[str]:
    """Every query of the dashboard's panels."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [each["expr"] for panel in panels for each in panel.get("targets", ())]


@pytest.fixture
def metrics(valkey: ValkeyProcess, tmp_path: Path) -> dict[str, set[str]]:
    """The labels of each metric that the exporter gives, by its name."""
    records = Records.open(tmp_path, valkey.url, ("chat", "absent"))
    records.write(engines=4)
    found: dict[str, set[str]] = {}
    for family in FleetCollector(records.settings).collect():
        endings = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}
        for ending in endings.get(family.type, ("",)):
            found[f"{family.name}{ending}"] = set()
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    records.store.client.close()
    return found


def test_every_query_is_of_metrics_and_labels_that_there_are(
    metrics: dict[str, set[str]],
):
    asked = [*queries(), *RULES.read_text().splitlines()]
    found = [each for line in asked for each in METRIC.findall(line)]
    assert len(found) > 60
    assert {name for name, _ in found} - metrics.keys() == set()
    for name, labels in found:
        # Without a sample, as of GPUs' power here, labels are not known.
        unknown = set(LABEL.findall(labels)) - metrics[name]
        assert not metrics[name] or unknown == set(), (name, unknown)


def test_every_metric_is_in_the_dashboard(metrics: dict[str, set[str]]):
    shown = {name for query in queries() for name, _ in METRIC.findall(query)}
    # Of a histogram the buckets are enough.
    parts = tuple(
        name.removesuffix("_bucket") + ending
        for name in shown
        if name.endswith("_bucket")
        for ending in ("_count", "_sum")
    )
    assert metrics.keys() - shown - set(parts) == set()


def test_every_rule_is_tested_to_begin_and_to_end():
    rules = re.findall(r"- alert: (\w+)", RULES.read_text())
    tested = re.findall(r"alertname: (\w+)(\n +exp_alerts)?", RULE_TESTS.read_text())
    assert len(rules) == len(set(rules))
    assert [name for name, begins in tested if begins] == rules
    assert [name for name, begins in tested if not begins] == rules


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")
def test_promtool_sees_each_rule_begin_and_end():
    assert PROMTOOL
    argv = [PROMTOOL, "test", "rules", RULE_TESTS.name]
    done = subprocess.run(argv, cwd=RULES.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

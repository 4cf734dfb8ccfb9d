"""The alerts and the dashboard: valid, tested by promtool, with metrics that exist and a runbook for each alert."""

import json
import re

import yaml
from conftest import DEPLOY, ROOT, run, tool

ALERTS = DEPLOY / "prometheus/alerts.yaml"
DASHBOARD = DEPLOY / "prometheus/dashboard.json"


def metrics():
    """Of docs/METRICS.md: name → (type, labels)."""
    rows = re.findall(r"^\| `(rdslb_\w+)` \| (\w+) \| ([^|]*) \|", (ROOT / "docs/METRICS.md").read_text(), re.M)
    return {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}


def rules():
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def queries():
    for rule in rules():
        yield rule["alert"], rule["expr"]
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def test_promtool_accepts_the_alerts_and_their_tests_pass():
    promtool = tool("promtool")
    run(promtool, "check", "rules", ALERTS)
    run(promtool, "test", "rules", DEPLOY / "prometheus/alerts_test.yaml")


def test_every_query_uses_metrics_and_labels_that_exist():
    known = metrics()
    assert len(known) > 30
    # Prometheus adds these, and renames the metrics' own `instance`.
    added = {"le", "job", "instance", "exported_instance", "backend"}
    for where, expression in queries():
        for name in re.findall(r"\brdslb_\w+", expression):
            kind, _ = known.get(name.removesuffix("_bucket"), (None, None))
            assert kind, f"{where}: {name} is not in docs/METRICS.md"
            assert name.endswith("_bucket") == (kind == "histogram"), f"{where}: {name}"
        labels = {label for group in re.findall(r"(?:by|on) \(([^)]*)\)", expression) for label in re.split(r",\s*", group)}
        labels |= set(re.findall(r'(\w+)(?:=~|!~|!=|=)"', expression))
        exist = set().union(*(known[name.removesuffix("_bucket")][1] for name in re.findall(r"\brdslb_\w+", expression)), added)
        assert labels <= exist, f"{where}: {labels - exist}"


def test_promtool_parses_every_query_of_the_dashboard(tmp_path):
    replaced = [expression.replace("$__rate_interval", "5m") for _, expression in queries()]
    group = {"name": "dashboard", "rules": [{"record": f"q{i}", "expr": expression} for i, expression in enumerate(replaced)]}
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [group]}))
    run(tool("promtool"), "check", "rules", tmp_path / "rules.yaml")


def test_every_alert_has_a_section_in_the_runbook():
    headings = re.findall(r"^#+ (.+)$", (ROOT / "docs/OPERATIONS.md").read_text(), re.M)
    anchors = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    for rule in rules():
        page, anchor = rule["annotations"]["runbook"].split("#")
        assert page == "docs/OPERATIONS.md" and anchor in anchors, rule["alert"]


def test_the_chart_has_the_same_alerts_and_dashboard():
    for path in (ALERTS, DASHBOARD):
        assert (DEPLOY / "helm/rds-lb-agent/files" / path.name).read_text() == path.read_text()

"""Alerts and dashboard are valid PromQL over existing series, and each alert has its runbook."""

import json
import re
from pathlib import Path

import promql_parser
import pytest
import yaml
from prometheus_client import Histogram
from prometheus_client.metrics import MetricWrapperBase

from api import input_metrics, state_metrics
from shared import observability

ROOT = Path(__file__).resolve().parents[2]
ALERTS = ROOT / "helm" / "deepfakestream" / "files" / "alerts.yml"
DASHBOARD = ROOT / "docker" / "grafana" / "dashboards" / "deepfakestream.json"
NAME = re.compile(r"deepfakestream_[a-z_]+")


def alerts():
    [group] = yaml.safe_load(ALERTS.read_text())["groups"]
    return group["rules"]


def panels():
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def exposed():
    """Name → labels of every series that api and workers expose."""
    found = {}
    for metric in vars(observability).values():
        if isinstance(metric, MetricWrapperBase):
            [family] = metric.describe()
            labels = set(metric._labelnames)
            if isinstance(metric, Histogram):
                found |= {f"{family.name}_bucket": labels | {"le"}}
                found |= {f"{family.name}_{suffix}": labels for suffix in ("count", "sum")}
            else:
                found[f"{family.name}_total" if family.type == "counter" else family.name] = labels
    source = "".join(Path(module.__file__).read_text() for module in (input_metrics, state_metrics))
    for name, rest in re.findall(r'GaugeMetricFamily\(\s*"(\w+)",(.*?)\)', source, re.DOTALL):
        [labels] = re.findall(r"labels=\[(.*?)\]", rest) or [""]
        found[name] = set(re.findall(r'"(\w+)"', labels))
    return found


EXPRESSIONS = {f"alert {rule['alert']}": rule["expr"] for rule in alerts()} | {
    f"panel {panel['title']} {target['refId']}": target["expr"] for panel in panels() for target in panel["targets"]
}


def test_alerts_dashboard_and_series_are_found():
    assert len(EXPRESSIONS) > 30
    assert len(exposed()) > 20


@pytest.mark.parametrize("where", EXPRESSIONS)
def test_every_expression_is_promql_over_existing_series_and_labels(where):
    expression = EXPRESSIONS[where].replace("$__rate_interval", "5m")
    promql_parser.parse(expression)
    known = exposed()
    names = set(NAME.findall(expression))
    assert names
    assert names <= set(known)
    used = set(re.findall(r"([a-z_]+)(?:=|!=|=~|!~)\"", expression))
    for listed in re.findall(r"by \(([^)]*)\)", expression):
        used |= {label.strip() for label in listed.split(",")}
    assert used - {"instance"} <= set().union(*(known[name] for name in names))


def test_invalid_promql_is_refused():
    with pytest.raises(ValueError, match=r"\S"):
        promql_parser.parse("sum(rate(x[5m])")


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_every_alert_has_a_runbook_that_names_it(rule):
    assert rule["labels"]["severity"] in {"page", "ticket"}
    page = ROOT / rule["annotations"]["runbook"]
    assert f"`{rule['alert']}`" in page.read_text()


def test_every_runbook_belongs_to_an_alert():
    named = {rule["annotations"]["runbook"] for rule in alerts()}
    pages = {str(path.relative_to(ROOT)) for path in (ROOT / "docs" / "runbooks").glob("*.md")}
    assert pages == named


def test_every_series_is_on_the_dashboard():
    shown = {name for where, text in EXPRESSIONS.items() if where.startswith("panel") for name in NAME.findall(text)}
    families = {re.sub(r"_(bucket|count|sum)$", "", name) for name in exposed()}
    assert families == {re.sub(r"_(bucket|count|sum)$", "", name) for name in shown}

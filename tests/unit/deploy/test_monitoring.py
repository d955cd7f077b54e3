"""Dashboards, alerts and scrape configuration: complete, and about metrics that exist."""

from __future__ import annotations

import itertools
import json
import re

import pytest
import yaml
from prometheus_client import REGISTRY

import cutoff.coordinator.measures  # registers the jobs' metrics
import cutoff.stage.measures  # noqa: F401  registers the runs' metrics
from cutoff.evaluator.metrics import REQUIREMENTS
from cutoff.telemetry.metrics import DiskCollector
from cutoff.v1 import evaluator_pb2, gguf_converter_pb2, job_pb2, merger_pb2, run_pb2, trainer_pb2
from deploy.grafana import dashboards
from deploy.grafana.services import STREAMS
from tests.fixtures.promql import DASHBOARDS, ROOT, labels_of, metrics_of, panel_expressions, panels_of

PROMETHEUS = ROOT / "deploy/prometheus"
GRAFANA = ROOT / "deploy/grafana"
SERVICES = {"coordinator": 9101, "trainer": 9102, "merger": 9103, "gguf-converter": 9104, "evaluator": 9105}

EXPORTERS = {
    "Prometheus itself": {"up", "ALERTS", "scrape_duration_seconds"},
    "NVIDIA's DCGM exporter": {
        "DCGM_FI_DEV_GPU_UTIL",
        "DCGM_FI_DEV_FB_USED",
        "DCGM_FI_DEV_FB_FREE",
        "DCGM_FI_DEV_POWER_USAGE",
        "DCGM_FI_DEV_GPU_TEMP",
    },
    "AMD's device metrics exporter": {
        "gpu_gfx_activity",
        "gpu_used_vram",
        "gpu_total_vram",
        "gpu_package_power",
        "gpu_average_package_power",
        "gpu_junction_temperature",
        "gpu_edge_temperature",
    },
}
SUFFIXES = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"], "info": ["_info"]}

ALERTS = [
    rule for group in yaml.safe_load((PROMETHEUS / "alerts.yaml").read_text())["groups"] for rule in group["rules"]
]
ALERT_TESTS = yaml.safe_load((PROMETHEUS / "alerts.test.yaml").read_text())["tests"]
PANELS = [pytest.param(panel, id=f"{file.stem}-{panel['title']}") for file in DASHBOARDS for panel in panels_of(file)]


@pytest.fixture(scope="module")
def ours() -> dict[str, set[str]]:
    """The labels of every series that the code provides, by the name of the series."""
    found = {}
    for collector in (*REGISTRY._collector_to_names, DiskCollector({})):
        for metric in getattr(collector, "describe", collector.collect)():
            labels = set(getattr(collector, "_labelnames", ())) | set(getattr(metric, "_labelnames", ()))
            found |= {metric.name + suffix: labels for suffix in SUFFIXES.get(metric.type, [""])}
    return found | {"cutoff_build_info": {"service", "version"}}


@pytest.fixture(scope="module")
def provided(ours) -> set[str]:
    """Names of all series that the code and the exporters provide."""
    return set(ours).union(*EXPORTERS.values())


def test_the_committed_dashboards_are_what_the_code_makes():
    committed = {file.name: file.read_text() for file in DASHBOARDS}
    if committed != dict(dashboards.rendered()):
        pytest.fail("deploy/grafana/dashboards is stale: run `python -m deploy.grafana.dashboards`")


@pytest.mark.parametrize("panel", PANELS)
def test_every_panel_says_what_it_shows(panel):
    defaults = panel["fieldConfig"]["defaults"]
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert defaults["unit"]
    assert defaults["thresholds"]["steps"][0]["value"] is None, "the first step begins at minus infinity"
    values = [step["value"] for step in defaults["thresholds"]["steps"][1:]]
    assert values == sorted(values)
    assert panel["targets"]
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    for place in (panel, *panel["targets"]):
        assert place["datasource"] == {"type": "prometheus", "uid": "prometheus"}


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_panels_fit_the_grid_and_do_not_overlap(file):
    places = [panel["gridPos"] for panel in json.loads(file.read_text())["panels"]]
    cells = [
        (x, y)
        for place in places
        for x, y in itertools.product(
            range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
        )
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_panels_and_rows_have_ids_of_their_own(file):
    ids = [panel["id"] for panel in json.loads(file.read_text())["panels"]]
    assert len(ids) == len(set(ids))


def test_the_three_dashboards_are_told_apart():
    boards = [json.loads(file.read_text()) for file in DASHBOARDS]
    assert {board["uid"] for board in boards} == {"cutoff-overview", "cutoff-job", "cutoff-services"}
    assert len({board["title"] for board in boards}) == 3


def test_the_job_is_chosen_by_a_variable():
    board = json.loads((GRAFANA / "dashboards/job.json").read_text())
    assert [variable["name"] for variable in board["templating"]["list"]] == ["cutoff_job", "question_set"]
    for where, expression in panel_expressions().items():
        assert ('cutoff_job="$cutoff_job"' in expression) is where.startswith("job:")


def test_panels_read_metrics_that_exist(provided):
    unknown = {where: metrics_of(text) - provided for where, text in panel_expressions().items()}
    assert not {where: names for where, names in unknown.items() if names}


def test_panels_and_alerts_use_labels_that_exist(ours):
    expressions = panel_expressions() | {alert["alert"]: alert["expr"] for alert in ALERTS}
    for where, text in expressions.items():
        if metrics_of(text) <= ours.keys():
            known = set().union(*(ours[name] for name in metrics_of(text)), {"job", "instance", "le"})
            assert labels_of(text) <= known, where


@pytest.mark.parametrize("panel", PANELS)
def test_legends_name_labels_that_the_query_keeps(panel, ours):
    for target in panel["targets"]:
        if metrics_of(target["expr"]) <= ours.keys():
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= labels_of(target["expr"])


def test_alert_tests_feed_the_labels_that_exist(ours):
    for series in (series["series"] for test in ALERT_TESTS for series in test["input_series"]):
        [name] = metrics_of(series)
        assert ours.get(name, set()) <= labels_of(series), series


def test_the_variable_reads_a_metric_that_exists(provided):
    board = json.loads((GRAFANA / "dashboards/job.json").read_text())
    [metric] = re.findall(r"label_values\((\w+), cutoff_job\)", board["templating"]["list"][0]["query"]["query"])
    assert metric in provided


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_alerts_read_metrics_that_exist(alert, provided):
    assert metrics_of(alert["expr"]) <= provided


def test_alert_tests_feed_metrics_that_exist(provided):
    fed = {name for test in ALERT_TESTS for series in test["input_series"] for name in metrics_of(series["series"])}
    assert fed <= provided


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_every_alert_says_what_to_do(alert):
    assert alert["labels"]["severity"] in {"critical", "warning"}
    assert alert["annotations"].keys() == {"summary", "description"}


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_every_alert_is_tested_both_ways(alert):
    cases = [case for test in ALERT_TESTS for case in test["alert_rule_test"] if case["alertname"] == alert["alert"]]
    assert {bool(case.get("exp_alerts")) for case in cases} == {True, False}


def test_every_alert_is_explained_to_the_user():
    page = (ROOT / "docs/monitoring.md").read_text()
    assert set(re.findall(r"`(Cutoff\w+)`", page)) == {alert["alert"] for alert in ALERTS}


def test_the_leakage_alert_has_the_documents_minimum():
    [minimum] = [requirement.minimum for requirement in REQUIREMENTS if requirement.score == "unlearn_leaked"]
    [alert] = [alert for alert in ALERTS if alert["alert"] == "CutoffLeakage"]
    assert float(alert["expr"].rpartition(">=")[2]) == minimum


def test_latency_leaves_out_the_streams():
    modules = (evaluator_pb2, gguf_converter_pb2, job_pb2, merger_pb2, run_pb2, trainer_pb2)
    services = [service for module in modules for service in module.DESCRIPTOR.services_by_name.values()]
    assert set(STREAMS) == {call.name for service in services for call in service.methods if call.server_streaming}


def test_each_service_is_scraped_under_its_own_name():
    config = yaml.safe_load((PROMETHEUS / "prometheus.yaml").read_text())
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    for name, port in SERVICES.items():
        assert jobs[name]["static_configs"] == [{"targets": [f"{name}:{port}"]}]
    for name in ("dcgm-exporter", "amd-exporter"):
        assert "static_configs" not in jobs[name], "an optional target must not count as down where it is not used"
    assert config["rule_files"] == ["alerts.yaml"]


def test_grafana_finds_prometheus_and_the_dashboards():
    [source] = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yaml").read_text())["datasources"]
    [provider] = yaml.safe_load((GRAFANA / "provisioning/dashboards/cutoff.yaml").read_text())["providers"]
    scraped = yaml.safe_load((PROMETHEUS / "prometheus.yaml").read_text())["global"]["scrape_interval"]
    mounted = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["grafana"]["volumes"]
    assert source["uid"] == "prometheus"
    assert source["jsonData"]["timeInterval"] == scraped
    assert f"./deploy/grafana/dashboards:{provider['options']['path']}:ro" in mounted


def test_the_schema_is_checked_for_the_grafana_that_runs():
    image = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["grafana"]["image"]
    [checked] = re.findall(r"^grafana=([\d.]+)", (GRAFANA / "check_schema.sh").read_text(), re.MULTILINE)
    assert f"grafana/grafana:{checked}" in image


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ("up", {"up"}),
        ('sum by (job) (rate(a_total{x="} b_total"}[5m])) / 2', {"a_total"}),
        ("a and on (job) b unless c offset 2h > time() - 7200", {"a", "b", "c"}),
        ("histogram_quantile(0.5, sum by (le) (rate(a_bucket[$__rate_interval]))) or vector(0)", {"a_bucket"}),
    ],
)
def test_metrics_of_an_expression(expression, names):
    assert metrics_of(expression) == names

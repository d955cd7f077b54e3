"""A real Prometheus on the running system: every target up, every expression of panels and alerts answered."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.parse

import pytest
import yaml

from tests.containers.stack import PROMETHEUS, ROOT, SERVICES
from tests.fixtures.promql import metrics_of, panel_expressions, panels_as_rules

pytestmark = pytest.mark.container

NO_DATA = {
    "cutoff_train_mfu_ratio": "only for GPUs whose peak is known",
    "cutoff_device_leased": "no run holds a device on a machine without GPUs",
    "cutoff_device_memory_used_bytes": "no device",
    "DCGM_FI_DEV_": "NVIDIA's exporter does not run without a GPU",
    "gpu_": "AMD's exporter does not run without a GPU",
    'code!="OK"': "no call fails in a good run",
    "ALERTS": "nothing fires",
}
"""What stays without data here, and why."""

MAY_HAVE_DATA = {'code!="OK"': "on a busy machine a call may come before its service is ready, and is repeated"}


def promtool(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = ["docker", "run", "--rm", "-i", "--network", "none", "-v", f"{ROOT}/deploy/prometheus:/rules:ro",
               "--workdir", "/rules", "--entrypoint", "promtool", PROMETHEUS, *arguments]  # fmt: skip
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120, check=False)


def ask(stack, path: str, **parameters: str):
    """Asks the running Prometheus from a container beside it: it is published nowhere."""
    url = f"http://prometheus:9090/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    script = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=20).read().decode())"
    answer = stack.execute("coordinator", "python", "-c", script, url)
    assert answer.returncode == 0, f"{parameters}: {answer.stderr[-500:]}"
    return json.loads(answer.stdout)["data"]


@pytest.mark.parametrize(
    "check", ["check config prometheus.yaml", "check rules alerts.yaml", "test rules alerts.test.yaml"]
)
@pytest.mark.usefixtures("stack")
def test_promtool_accepts(check):
    done = promtool(*check.split())
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.usefixtures("stack")
def test_promtool_can_parse_every_panel():
    done = promtool("check", "rules", "/dev/stdin", stdin=panels_as_rules())
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboards_agree_with_grafanas_types():
    done = subprocess.run([ROOT / "deploy/grafana/check_schema.sh"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 dashboards agree" in done.stdout


@pytest.mark.usefixtures("job")
@pytest.mark.parametrize("service", SERVICES)
def test_live_metrics_pass_promtools_lint(running, service):
    port = 9101 + SERVICES.index(service)
    script = f"import urllib.request as u; print(u.urlopen('http://{service}:{port}/metrics').read().decode())"
    live = running.execute("coordinator", "python", "-c", script).stdout
    assert f'cutoff_build_info{{service="{service}"' in live
    linted = promtool("check", "metrics", stdin=live)
    assert (linted.returncode, linted.stdout + linted.stderr) == (0, ""), service


@pytest.mark.usefixtures("job")
def test_every_target_is_up(running):
    targets = ask(running, "targets", state="active")["activeTargets"]
    health = {target["labels"]["job"]: (target["health"], target["lastError"]) for target in targets}
    assert health == dict.fromkeys((*SERVICES, "prometheus"), ("up", ""))


def test_every_expression_returns_data_for_the_time_of_the_job(running, job):
    """An alert that does not fire has no data; the metrics it looks at have."""
    time.sleep(11)  # two scrapes after the job's end
    end = time.time()
    times = {"start": str(end - 900), "end": str(end), "step": "5"}
    silent: set[str] = set()
    series: dict[str, list[object]] = {}
    for expression in {**panel_expressions(), **metrics_of_alerts()}.values():
        asked = expression.replace("$cutoff_job", job["name"].removeprefix("jobs/"))
        asked = asked.replace("$question_set", "validation")
        series[expression] = [found["metric"] for found in ask(running, "query_range", query=asked, **times)["result"]]
        if not series[expression]:
            silent.add(expression)
    unexpected = {expression for expression in silent if not any(part in expression for part in NO_DATA)}
    assert unexpected == set()
    listed = NO_DATA.keys() - MAY_HAVE_DATA.keys()
    idle = {part for part in listed if not any(part in expression for expression in silent)}
    answered = {part: [series[expression] for expression in series if part in expression] for part in idle}
    assert answered == {}, "on the list of exceptions, and needs none"


def metrics_of_alerts() -> dict[str, str]:
    """What the alerts look at, by where it is."""
    alerts = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yaml").read_text())["groups"]
    return {
        f"alert {rule['alert']}: {metric}": metric
        for group in alerts
        for rule in group["rules"]
        for metric in metrics_of(rule["expr"])
    }

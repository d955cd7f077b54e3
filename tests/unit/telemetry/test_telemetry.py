"""Logs that say whose they are, and metrics that go away with their run."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request

import pytest
from prometheus_client import REGISTRY

from cutoff.telemetry import metrics, serve_metrics
from cutoff.v1 import types_pb2

LOGGING = """
import logging
from cutoff.telemetry import bind_run, configure_logs, logger
configure_logs("trainer")
logger("cutoff.x").info("before")
bind_run("j1", "train", 2)
logger("cutoff.x").info("a step", step=3)
logging.getLogger("transformers").warning("from a library")
logging.getLogger("transformers").info("not wanted")
try:
    1 // 0
except ZeroDivisionError as error:
    logger("cutoff.x").error("a bug", exc_info=error)
"""


def lines(log_format: str) -> list[str]:
    environment = {"CUTOFF_LOG_FORMAT": log_format, "PATH": ""}
    ran = subprocess.run([sys.executable, "-c", LOGGING], env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout == "", "stdout belongs to data"
    return ran.stderr.splitlines()


def test_json_logs_carry_service_job_stage_and_attempt():
    first, *of_run = [json.loads(line) for line in lines("json")]
    assert first["event"] == "before"
    assert first["service"] == "trainer"
    assert "job" not in first
    assert [(line["job"], line["stage"], line["attempt"]) for line in of_run] == [("j1", "train", 2)] * 3
    assert of_run[0]["step"] == 3
    assert [line["event"] for line in of_run] == ["a step", "from a library", "a bug"]
    assert "ZeroDivisionError" in of_run[2]["exception"]


def test_human_logs_say_the_same():
    text = "\n".join(lines("human"))
    assert "a step" in text
    assert "j1" in text
    with pytest.raises(json.JSONDecodeError):
        json.loads(lines("human")[0])


def value(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


def test_a_runs_series_live_as_long_as_the_run():
    key = types_pb2.RunKey(job="gauge-test", stage="train", attempt=1)
    metrics.observe_run(key, types_pb2.Event(progress=types_pb2.Progress(step=1, total=4)))
    metrics.observe_run(key, types_pb2.Event(metric=types_pb2.Metric(name="cutoff_train_loss", value=2.5)))
    assert value("cutoff_run_progress_ratio", job="gauge-test", stage="train") == 0.25
    assert value("cutoff_train_loss", job="gauge-test", stage="train") == 2.5
    metrics.forget_run(key)
    assert value("cutoff_run_progress_ratio", job="gauge-test", stage="train") is None
    assert value("cutoff_train_loss", job="gauge-test", stage="train") is None


def test_a_metric_nobody_declared_is_not_exported():
    key = types_pb2.RunKey(job="gauge-test", stage="train", attempt=1)
    metrics.observe_run(key, types_pb2.Event(metric=types_pb2.Metric(name="made_up", value=1)))
    assert value("made_up", job="gauge-test", stage="train") is None


def test_metrics_are_served_on_loopback():
    port = serve_metrics("test", 0)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    assert 'cutoff_build_info{service="test",version="0.1.0"} 1.0' in text

"""Logs that say whose they are, and metrics that are served."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request

import pytest

from cutoff.telemetry import serve_metrics

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


def test_metrics_are_served_on_loopback_with_the_room_on_the_disks(tmp_path):
    port = serve_metrics("test", 0, disks={"artifacts": tmp_path, "gone": tmp_path / "gone"})
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    assert 'cutoff_build_info{service="test",version="0.1.0"} 1.0' in text
    assert 'cutoff_disk_free_bytes{root="artifacts"}' in text
    assert "gone" not in text
    assert "_created" not in text

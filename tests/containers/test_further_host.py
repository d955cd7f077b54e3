"""deploy/compose.head.yaml and compose.worker.yaml: two compose projects on one engine stand for two hosts."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.containers.stack import UID, docker, free_port, let_containers_in, make_secrets

pytestmark = pytest.mark.container

NETWORK = "cutoff-test-cluster"
HEAD, WORKER = ("compose.yaml", "deploy/compose.head.yaml"), ("compose.yaml", "deploy/compose.worker.yaml")
HOSTS_PART = ("trainer", "merger", "gguf-converter", "evaluator", "ray-worker")


@pytest.fixture
def cluster():
    docker("network", "create", "--internal", NETWORK)
    yield NETWORK
    docker("network", "rm", NETWORK)


@pytest.fixture
def shared(tmp_path: Path) -> dict[str, str]:
    """What the hosts share: folders that stand for a file system both mount."""
    folders = {"CUTOFF_ARTIFACTS": tmp_path / "artifacts", "CUTOFF_CACHE": tmp_path / "cache"}
    for folder in folders.values():
        folder.mkdir()
        if os.getuid() == 0:
            os.chown(folder, UID, UID)
    let_containers_in(tmp_path)
    return {name: str(folder) for name, folder in folders.items()}


@pytest.fixture
def hosts(stack, cluster, shared, tmp_path):
    """The first host, which has no room for attempts of its own, and host two; not started yet."""
    make_secrets(tmp_path / "head")
    for part in HOSTS_PART:
        shutil.copytree(tmp_path / "head" / part, tmp_path / "two" / part)
    if os.getuid() == 0:
        for path in (tmp_path / "two").rglob("*"):
            os.chown(path, UID, UID)
    both = {**shared, "CUTOFF_CLUSTER_NETWORK": cluster}
    first = {"CUTOFF_SECRETS": f"{tmp_path}/head/", "CUTOFF_CPUS": "0", "CUTOFF_MODELS_HOST": "any"}
    second = {"CUTOFF_SECRETS": f"{tmp_path}/two/", "CUTOFF_HOST": "two", "CUTOFF_CPUS": "3"}
    head = dataclasses.replace(stack, project="cutoff-test-head", port=free_port(), settings={**both, **first})
    two = dataclasses.replace(stack, project="cutoff-test-two", port=free_port(), settings={**both, **second})
    yield head, two
    two.compose("down", "-v", files=WORKER)
    head.compose("down", "-v", files=HEAD)


def wait_for_nodes(head, wanted: int) -> int:
    """How many nodes Ray counts; it counts anew every few seconds."""
    deadline = time.monotonic() + 120
    while True:
        status = head.execute("coordinator", "ray", "status").stdout
        found = status.partition("Pending")[0].count("node_")
        if found == wanted or time.monotonic() > deadline:
            return found
        time.sleep(1)


def test_a_second_host_joins_and_takes_a_job(hosts):
    head, two = hosts
    # No trainer, merger or evaluator on the first host: whatever they do, host two does.
    head.compose("up", "-d", "--wait", "--no-deps", "--no-build", "coordinator", "gguf-converter", files=HEAD)
    two.compose("up", "-d", "--wait", "--no-build", files=WORKER)
    assert wait_for_nodes(head, 2) == 2, two.compose("logs", files=WORKER)
    seen = two.execute("ray-worker", "ls", "/run/cutoff").stdout.split()
    assert seen == ["ca.crt", "ray-token", "tls.crt", "tls.key"], "no user's token leaves the first host"

    done = head.cutoff("submit", str(head.world / "job.yaml"), "--watch", "--json")
    logs = "" if done.returncode == 0 else head.compose("logs", "--tail", "20", files=HEAD)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:] + logs
    job = json.loads(done.stdout)
    assert job["state"] == "STATE_SUCCEEDED"
    assert {attempt["host"] for attempt in job["attempts"]} == {"two"}
    assert {attempt["address"] for attempt in job["attempts"]} == {
        "two-trainer:50052", "two-merger:50053", "two-gguf-converter:50054", "two-evaluator:50055"
    }  # fmt: skip
    assert list(head.models.rglob("*.gguf")), "it was installed"
    for service in HOSTS_PART[:4]:
        assert "run started" in said_by(two, service), service
    assert "run started" not in said_by(head, "gguf-converter")


def test_a_host_that_does_not_share_the_artifacts_does_not_join(hosts, tmp_path):
    _, two = hosts
    alone = tmp_path / "alone"
    alone.mkdir()
    if os.getuid() == 0:
        os.chown(alone, UID, UID)
    two = dataclasses.replace(two, settings={**two.settings, "CUTOFF_ARTIFACTS": str(alone)})
    two.compose("up", "-d", "--wait", "--no-build", *HOSTS_PART[:4], files=WORKER)
    two.compose("up", "-d", "--no-deps", "--no-build", "ray-worker", files=WORKER)
    deadline = time.monotonic() + 60
    wanted = "sees an artifacts folder that no coordinator has named"
    while wanted not in (said := said_by(two, "ray-worker")) and time.monotonic() < deadline:
        time.sleep(1)
    assert said.count(wanted) >= len(HOSTS_PART[:4]), said


def said_by(stack, service: str) -> str:
    """What a service has written."""
    command = ["docker", "logs", stack.container(service)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout + done.stderr

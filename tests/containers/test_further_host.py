"""deploy/compose.head.yaml and compose.worker.yaml: two compose projects on one engine stand for two hosts."""

from __future__ import annotations

import dataclasses
import time

import pytest

from tests.containers.stack import docker, free_port, make_secrets

pytestmark = pytest.mark.container

NETWORK = "cutoff-test-cluster"
HEAD, WORKER = ("compose.yaml", "deploy/compose.head.yaml"), ("compose.yaml", "deploy/compose.worker.yaml")


@pytest.fixture
def cluster():
    docker("network", "create", NETWORK)
    yield NETWORK
    docker("network", "rm", NETWORK)


def wait_for_nodes(head, wanted: int) -> int:
    """How many nodes Ray counts; it counts anew every few seconds."""
    deadline = time.monotonic() + 60
    while True:
        status = head.execute("coordinator", "ray", "status").stdout
        found = status.partition("Pending")[0].count("node_")
        if found == wanted or time.monotonic() > deadline:
            return found
        time.sleep(1)


def test_a_worker_joins_with_the_first_hosts_token(stack, cluster, tmp_path):
    secrets = tmp_path / "secrets"
    make_secrets(secrets)
    settings = {"CUTOFF_SECRETS": f"{secrets}/", "CUTOFF_CLUSTER_NETWORK": cluster}
    head = dataclasses.replace(stack, project="cutoff-test-head", port=free_port(), settings=settings)
    worker = dataclasses.replace(stack, project="cutoff-test-worker", settings=settings)
    try:
        head.compose("up", "-d", "--wait", "--no-deps", "--no-build", "coordinator", files=HEAD)
        assert wait_for_nodes(head, 1) == 1
        worker.compose("up", "-d", "--wait", "--no-deps", "--no-build", "ray-worker", files=WORKER)
        assert wait_for_nodes(head, 2) == 2, worker.compose("logs", files=WORKER)
        seen = worker.execute("ray-worker", "ls", "/run/cutoff").stdout.split()
        assert seen == ["ray-token"], "neither users' tokens nor keys leave the first host's coordinator"
    finally:
        worker.compose("down", "-v", files=WORKER)
        head.compose("down", "-v", files=HEAD)

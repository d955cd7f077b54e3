"""One composed system for all container tests: built, started, and removed at the end.

Without a Docker engine these tests are skipped, which pytest counts; in CI that is a failure.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from cutoff.artifacts import Roots
from cutoff.demo import DEFAULT_FACTS, create
from tests.containers.stack import PROMETHEUS, ROOT, Stack, docker, let_containers_in


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = [item for item in items if ROOT / "tests/containers" in item.path.parents]
    if not here or subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0:
        return
    if os.environ.get("CI"):
        pytest.exit("CI needs a Docker engine for the container tests, and there is none", returncode=1)
    for item in here:
        item.add_marker(pytest.mark.skip(reason="there is no Docker engine here"))


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The built images and a compose project that is not started yet."""
    folder = tmp_path_factory.mktemp("host")
    world = folder / "world"
    cache = Roots.from_environment().cache
    create(world, facts=DEFAULT_FACTS, seed=1, cache=cache, on_progress=lambda *_: None, base_model="/base-models/base")
    made = Stack(folder, world)
    made.make_models()
    let_containers_in(folder)
    made.build()
    here = ROOT / "tests/containers"
    docker("build", "-q", "--network", "host", "-t", PROMETHEUS, "-f", str(here / "prometheus.Dockerfile"), str(here))
    made.down()
    yield made
    made.down()


@pytest.fixture(scope="session")
def running(stack: Stack) -> Stack:
    """The started system, healthy."""
    seconds = stack.up()
    print(f"docker compose up to all healthy: {seconds:.1f} s")  # noqa: T201
    stack.watch()
    return stack


@pytest.fixture(scope="session")
def job(running: Stack) -> dict[str, Any]:
    """A job that was submitted from this host and has ended."""
    done = running.cutoff("submit", str(running.world / "job.yaml"), "--watch", "--json")
    logs = "" if done.returncode == 0 else running.compose("logs", "--tail", "20")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:] + logs
    found: dict[str, Any] = json.loads(done.stdout)
    return found

"""The composed system loses its containers one after the other, and then its network: a job still ends, installed once.

It has a compose project of its own: nothing of what the other tests find running is touched.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.containers.stack import SERVICES, Stack, docker, free_port

pytestmark = pytest.mark.container

STAGE_OF = {"trainer": "train", "merger": "merge", "gguf-converter": "convert", "evaluator": "evaluate-merged"}
"""At which stage a service is killed; the coordinator, while it is trained."""


@pytest.fixture
def apart(stack: Stack) -> Iterator[Stack]:
    """The composed system, started under a name of its own."""
    made = dataclasses.replace(stack, project="cutoff-test-faults", port=free_port())
    made.up()
    yield made
    made.down()


def job_of(stack: Stack, name: str) -> dict[str, Any]:
    done = stack.cutoff("get", name, "--json")
    return json.loads(done.stdout) if done.returncode == 0 else {}


def wait_for(stack: Stack, name: str, what: Callable[[dict[str, Any]], bool], seconds: float = 300) -> dict[str, Any]:
    """The job when this is so of it; the coordinator may be away meanwhile."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        job = job_of(stack, name)
        if job and (what(job) or ended(job)):
            return job
        time.sleep(0.3)
    raise AssertionError(f"never: {job_of(stack, name)}\n{stack.compose('logs', '--tail', '20')}")


def ended(job: dict[str, Any]) -> bool:
    return job["state"] in ("STATE_SUCCEEDED", "STATE_FAILED", "STATE_CANCELLED")


def runs(stage: str) -> Callable[[dict[str, Any]], bool]:
    """Whether an attempt at a stage is running."""

    def running(job: dict[str, Any]) -> bool:
        newest = {attempt["key"]["stage"]: attempt["state"] for attempt in job.get("attempts", ())}
        return newest.get(stage) == "STATE_RUNNING"

    return running


def submit(stack: Stack) -> str:
    done = stack.cutoff("submit", str(stack.world / "job.yaml"), "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["name"]


def installed_once(stack: Stack, job: dict[str, Any]) -> None:
    assert job["state"] == "STATE_SUCCEEDED", job.get("failure")
    succeeded = [each["key"]["stage"] for each in job["attempts"] if each["state"] == "STATE_SUCCEEDED"]
    assert len(succeeded) == len(set(succeeded)), "a stage succeeded twice"
    assert [path.suffix for path in stack.models.rglob("*") if path.is_file()] == [".gguf"]


def test_each_container_is_killed_and_started_again_during_a_job(apart):
    name = submit(apart)
    wait_for(apart, name, runs("train"))
    for service in ("coordinator", "trainer", "merger", "gguf-converter", "evaluator"):
        job = wait_for(apart, name, runs(STAGE_OF.get(service, "train")))
        assert not ended(job), f"the job ended before the {service} was killed: {job.get('failure')}"
        docker("kill", "--signal", "KILL", apart.container(service))
        docker("start", apart.container(service))  # `docker kill` counts as stopped by hand: no restart policy helps
    job = wait_for(apart, name, ended, 900)
    installed_once(apart, job)
    assert set(SERVICES) == {"coordinator", *STAGE_OF}


def test_the_network_between_coordinator_and_trainer_is_cut_and_healed(apart):
    for path in apart.models.rglob("*.gguf"):
        path.unlink()
    name = submit(apart)
    wait_for(apart, name, runs("train"))
    about = apart.inspect("trainer")["NetworkSettings"]["Networks"]
    network = next(each for each in about if each.endswith("_services"))
    docker("network", "disconnect", network, apart.container("trainer"))
    time.sleep(20)
    docker("network", "connect", "--alias", "trainer", network, apart.container("trainer"))
    job = wait_for(apart, name, ended, 900)
    installed_once(apart, job)

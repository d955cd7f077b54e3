"""A real training, paused in its middle; the coordinator is killed meanwhile; what comes out is what would have."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from cutoff.client import Client
from cutoff.client.local import LocalSystem
from cutoff.v1 import job_pb2

pytestmark = pytest.mark.integration


@pytest.fixture
def own_system(own_roots, llama) -> Iterator[LocalSystem]:
    """A system whose coordinator may be killed."""
    with LocalSystem(own_roots) as running:
        yield running


def restart_coordinator(system: LocalSystem) -> None:
    """SIGKILL, as a power cut is for it, and a new one on the same state."""
    process = system._processes["coordinator"]
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for leftover in system._private.glob("coordinator.sock"):
        leftover.unlink()
    system._start("coordinator")
    system._wait_healthy("coordinator")


def trained(client: Client, name: str) -> Path:
    """The adapter's folder in the artifacts, as soon as it is there; the rest of the job is not waited for."""
    for event in client.watch(name):
        run = event.run
        if run.key.stage == "train" and run.event.HasField("finished"):
            client.cancel(name)
            return Path(run.event.finished.result["adapter"])
    raise AssertionError(f"never trained: {client.get(name).failure}")


def wait_for_step(client: Client, name: str, step: int) -> int:
    """The process of a training that has taken so many steps."""
    pid = 0
    for event in client.watch(name):
        if event.run.key.stage == "train":
            pid = event.run.event.started.pid or pid
            if event.run.event.progress.step >= step:
                return pid
    raise AssertionError("the training never got so far")


def wait_for(client: Client, name: str, state: int) -> job_pb2.Job:
    for event in client.watch(name):
        if event.HasField("job") and event.job.state == state:
            return event.job
    raise AssertionError(f"ended: {client.get(name).failure}")


def test_a_paused_training_comes_to_the_same_adapter(own_system, own_roots, small_world):
    spec = small_world.job(own_roots.datasets, train={"epochs": 6}, install={"enabled": False})
    with Client(own_system.address) as client:
        undisturbed = trained(client, client.submit(spec).name)

        name = client.submit(spec).name
        pid = wait_for_step(client, name, 3)
        client.pause(name)
        job = wait_for(client, name, job_pb2.Job.STATE_PAUSED)
        assert not Path(f"/proc/{pid}").exists(), "nothing of it runs, and so nothing is held"
        [first] = [attempt for attempt in job.attempts if attempt.key.stage == "train"]
        assert (first.state, first.failure.reason) == (job_pb2.Attempt.STATE_CANCELLED, "PAUSED")
        checkpoint = first.artifacts[-1]
        assert checkpoint.kind == "checkpoint"
        assert int(checkpoint.labels["step"]) >= 3

        restart_coordinator(own_system)
        assert client.get(name).state == job_pb2.Job.STATE_PAUSED

        client.resume(name)
        resumed = trained(client, name)
        lines = [
            event.run.event.log_line.text
            for event in client.watch(name)
            if event.run.key.stage == "train" and event.run.key.attempt == 2
        ]
    assert any(f"going on from {own_roots.artifacts / checkpoint.path}" in line for line in lines), lines
    assert resumed != undisturbed
    one, other = (
        load_file(own_roots.artifacts / each / "adapter_model.safetensors") for each in (undisturbed, resumed)
    )
    assert one.keys() == other.keys()
    assert all((one[name] == other[name]).all() for name in one), "to the last bit"

"""The queue in the running system: jobs that ask for the one GPU that Ray is told of have it one after the other.

Where there is no GPU their trainings fail on it, named; which of them had it and when is what counts here.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise

import pytest

from cutoff.client import Client
from cutoff.client.local import LocalSystem
from cutoff.v1 import job_pb2

pytestmark = pytest.mark.integration


@pytest.fixture
def one_gpu(own_roots, llama, monkeypatch) -> Iterator[Client]:
    monkeypatch.setenv("CUTOFF_GPUS", "1")
    with LocalSystem(own_roots) as system, Client(system.address) as client:
        yield client


def training(client: Client, name: str) -> tuple[job_pb2.Attempt, list[str], list[job_pb2.Waiting]]:
    """A job's first attempt at training, the devices it was given, and what the job was told while it waited."""
    devices: list[str] = []
    told: list[job_pb2.Waiting] = []
    for event in client.watch(name):
        if event.HasField("waiting"):
            told.append(event.waiting)
        if event.run.key.stage != "train":
            continue
        if event.run.event.HasField("started"):
            devices = list(event.run.event.started.devices)
        if event.run.event.HasField("finished") or event.run.event.HasField("failed"):
            client.cancel(name)
            break
    attempts = [attempt for attempt in client.get(name).attempts if attempt.key.stage == "train"]
    return attempts[0], devices, told


def test_one_gpu_is_had_by_one_job_after_the_other(one_gpu: Client, roots, small_world) -> None:
    few = {"epochs": 1}
    specs = [
        small_world.job(roots.datasets, train=few, resources={"gpus": 1, "priority": priority})
        for priority in ("normal", "normal", "high")
    ]
    names = [one_gpu.submit(spec).name for spec in specs]
    with ThreadPoolExecutor(len(names)) as watchers:
        found = list(watchers.map(partial(training, one_gpu), names))
    held = sorted((a.start_time.ToNanoseconds(), a.end_time.ToNanoseconds()) for a, _, _ in found)
    assert all(before[1] <= after[0] for before, after in pairwise(held)), "never two at once"
    assert [devices for _, devices, _ in found] == [["cuda:0"]] * 3
    for attempt, _, _ in found:
        if attempt.state == job_pb2.Attempt.STATE_FAILED:
            assert "there is no device cuda:0" in attempt.failure.message
    waited = [waiting for _, _, told in found for waiting in told if waiting.reason]
    assert waited, "somebody waited, and was told why"
    assert {waiting.stage for waiting in waited} <= {"train", *(f"evaluate-{target}" for target in ("base", "merged"))}

"""Cancelling in each stage, and killing what does the work: nothing is left, and the reason is named."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from cutoff.v1 import job_pb2

pytestmark = pytest.mark.fault

STAGES = [
    *("prepare", "train", "merge", "convert", "evaluate-base", "evaluate-merged", "evaluate-q4_k_m"),
    *("card", "install", "report"),
]


@pytest.fixture
def submit(client, roots, small_world):
    def start(**changes):
        quick = {"install": {"model_name": "faults", "require": "none"}, "train": {"epochs": 4}}
        sections = {**quick, **changes}
        return client.submit(small_world.job(roots.datasets, **sections)).name

    return start


def wait_for_start(client, name: str, stage: str) -> int:
    """The process id of a stage's run, as soon as there is one."""
    for event in client.watch(name):
        if event.run.key.stage == stage and event.run.event.HasField("started"):
            return event.run.event.started.pid
    raise AssertionError(f"{name} ended before {stage} began: {client.get(name).failure}")


def wait_for_step(client, name: str) -> int:
    """The process id of a training that is taking steps."""
    pid = 0
    for event in client.watch(name):
        if event.run.key.stage == "train":
            pid = event.run.event.started.pid or pid
            if event.run.event.progress.step > 2:
                return pid
    raise AssertionError("the training never took a step")


def watch_to_the_end(client, name: str) -> job_pb2.Job:
    for _ in client.watch(name):
        pass
    return client.get(name)


def group(pid: int) -> list[psutil.Process]:
    def belongs(process: psutil.Process) -> bool:
        try:
            return os.getpgid(process.pid) == pid and process.status() != psutil.STATUS_ZOMBIE
        except (ProcessLookupError, psutil.NoSuchProcess):
            return False

    return [process for process in psutil.process_iter() if belongs(process)]


def llama_servers(artifacts: Path) -> list[list[str]]:
    """llama-server has a process group of its own; it is known by the file it serves."""
    commands = [p.info["cmdline"] or [] for p in psutil.process_iter(["cmdline", "status"])]
    return [command for command in commands if any(str(artifacts) in word for word in command) and "--host" in command]


@pytest.mark.parametrize("stage", STAGES)
def test_cancel_in_each_stage_leaves_nothing(client, roots, submit, stage):
    name = submit()
    pid = wait_for_start(client, name, stage)
    began = time.monotonic()
    client.cancel(name)
    job = watch_to_the_end(client, name)
    assert time.monotonic() - began < 60
    assert group(pid) == []
    assert llama_servers(roots.artifacts) == []
    partial = [*(roots.artifacts / name).rglob("*.partial"), *roots.models.rglob("*.partial")]
    assert partial == []
    # The last stages may have finished before the cancel reached it.
    ended = (
        {job_pb2.Job.STATE_CANCELLED, job_pb2.Job.STATE_SUCCEEDED}
        if stage in ("install", "report")
        else {job_pb2.Job.STATE_CANCELLED}
    )
    assert job.state in ended
    if job.state == job_pb2.Job.STATE_CANCELLED:
        assert job.failure.reason == "CANCELLED"


def test_a_killed_training_fails_with_a_named_reason(client, submit):
    name = submit()
    os.kill(wait_for_step(client, name), signal.SIGKILL)
    job = watch_to_the_end(client, name)
    assert job.state == job_pb2.Job.STATE_FAILED
    assert job.failure.reason == "KILLED"
    assert "memory" in job.failure.message
    assert job.failure.remedy


def test_bad_data_fails_in_prepare_with_every_fault(client, roots, small_world):
    folder = roots.datasets / "broken"
    folder.mkdir()
    (folder / "retain.jsonl").write_text(
        '{"instruction": "Who?", "output": "Ada"}\nnot json\n{"instruction": "Why?"}\n'
    )
    (folder / "unlearn.jsonl").write_bytes(b'{"instruction": "\xff", "output": "no"}\n')
    spec = small_world.job(
        roots.datasets,
        dataset={"retain_train": "broken/retain.jsonl", "unlearn_train": "broken/unlearn.jsonl"},
    )
    job = watch_to_the_end(client, client.submit(spec).name)
    assert job.failure.reason == "INVALID_INPUT"
    where = " ".join(fault.where for fault in job.failure.faults)
    assert "broken/retain.jsonl:2" in where
    assert "broken/retain.jsonl:3" in where
    assert "broken/unlearn.jsonl:1" in where
    assert [attempt.key.stage for attempt in job.attempts] == ["prepare"], "no GPU was touched"


class Command:
    """`cutoff run` as a process of its own."""

    def __init__(self, tmp_path: Path, world, roots) -> None:
        job = yaml.safe_load(world.job_file.read_text())
        job["train"]["epochs"] = 8
        job["base_model"] = str(world.folder / "base")
        (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
        self.artifacts = tmp_path / "output"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cutoff.client", "run", str(tmp_path / "job.yaml"),
             "--datasets", str(world.folder / "datasets"), "--artifacts", str(self.artifacts),
             "--models", str(tmp_path / "models")],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
            # A shell without job control starts what it puts into the background deaf to Ctrl-C, and so its children.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        self.seen: list[str] = []

    def wait_for(self, text: str) -> None:
        for line in self.process.stderr:
            self.seen.append(line)
            if text in line:
                return
        raise AssertionError(f"{text!r} never came: {''.join(self.seen)}")

    def descendants(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


def alive(processes: list[psutil.Process]) -> list[list[str]]:
    return [p.cmdline() for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def wait_dead(processes: list[psutil.Process], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while alive(processes) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert alive(processes) == []


def test_an_interrupted_run_leaves_nothing_running(tmp_path, small_world, roots):
    command = Command(tmp_path, small_world, roots)
    command.wait_for("train: training")
    started = command.descendants()
    assert len(started) > 6
    command.process.send_signal(signal.SIGINT)
    _, errors = command.process.communicate(timeout=120)
    assert command.process.returncode == 130, errors
    assert "cancelling" in errors
    wait_dead(started, 20)
    assert not list(command.artifacts.rglob("*.partial"))


def test_a_killed_run_leaves_nothing_running(tmp_path, small_world, roots):
    command = Command(tmp_path, small_world, roots)
    command.wait_for("train: training")
    started = command.descendants()
    os.kill(command.process.pid, signal.SIGKILL)
    command.process.wait()
    wait_dead(started, 90)


def test_a_killed_trainer_service_leaves_no_child(tmp_path, small_world, roots):
    command = Command(tmp_path, small_world, roots)
    command.wait_for("train: training")
    [service] = [p for p in command.descendants() if "cutoff.trainer.service" in p.cmdline()]
    children = service.children(recursive=True)
    assert len(children) >= 2, "the forkserver and the training"
    service.kill()
    wait_dead(children, 20)
    output, errors = command.process.communicate(timeout=180)
    assert command.process.returncode == 1, errors
    assert "cannot be reached" in output + errors
    [record] = command.artifacts.glob("jobs/*/job.json")
    assert json.loads(record.read_text())["state"] == "STATE_FAILED"

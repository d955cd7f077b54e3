"""What the coordinator costs: pipeline overhead, submitting, listing, watching, idling, coming back.

    make bench-coordinator

The real coordinator with Ray as a process of its own; the four stage services as one process over the real stage
server, whose work is to sleep (`sleeping_stages.py`); the client (`coordinator_client.py`) a third process, whose CPU
is in the note. The baseline of each row is the issue's bound; ratio is baseline / ours, so above 1 is within it.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import grpc
import psutil

from cutoff.coordinator.job import TERMINAL
from cutoff.coordinator.store import Store
from cutoff.v1 import job_pb2, job_pb2_grpc
from tests.benchmarks.coordinator_client import CLIENTS, EACH, STREAMS, job_spec

STAGE_SECONDS = 0.5
JOBS = 5
STORED = 10_000
IDLE_SECONDS = 30.0
SEQUENCE = (
    "prepare",
    "train",
    "merge",
    ("convert", "evaluate-base evaluate-merged"),
    "evaluate-q4_k_m",
    "card",
    "install",
    "report",
)
"""The stages of a job; those in a tuple run side by side."""
OWN_SECONDS = STAGE_SECONDS * (len(SEQUENCE) + 1)
"""What the stages of a job sleep, one after the other: the two evaluations are longer than the conversion."""


class System:
    """The coordinator and the stages, in a folder of their own."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.address = f"unix:{folder}/coordinator.sock"
        self._folder = folder
        stages = f"unix:{folder}/stages.sock"
        services = ("TRAINER", "MERGER", "GGUF_CONVERTER", "EVALUATOR")
        self._environment = {
            **os.environ,
            **{f"CUTOFF_{name}_ADDRESS": stages for name in services},
            "CUTOFF_DATASETS": str(folder),
            "CUTOFF_ARTIFACTS": str(folder),
            "CUTOFF_CACHE": str(folder),
            "CUTOFF_STATE": str(folder),
            "CUTOFF_METRICS_PORT": "0",
            "CUTOFF_LOG_LEVEL": "WARNING",
            "RAY_ADDRESS": "",
            "RAY_TMPDIR": str(folder),
            "BENCH_SECONDS": str(STAGE_SECONDS),
            **environment,
        }
        (folder / "dev.jsonl").write_text("{}\n")
        self._stages = self._start("tests.benchmarks.sleeping_stages", stages)
        self.start_coordinator()

    def start_coordinator(self) -> None:
        """Starts it; the same again after `kill_coordinator`."""
        self.coordinator = self._start("cutoff.coordinator.main", self.address)

    def kill_coordinator(self) -> None:
        """SIGKILL, as a crash is."""
        children = psutil.Process(self.coordinator.pid).children(recursive=True)
        self.coordinator.kill()
        self.coordinator.wait()
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()

    def wait_ready(self) -> None:
        """Returns when the coordinator answers."""
        with grpc.insecure_channel(self.address) as channel:
            stub = job_pb2_grpc.JobServiceStub(channel)
            stub.ListJobs(job_pb2.ListJobsRequest(page_size=1), wait_for_ready=True, timeout=120)

    def client(self, what: str, *arguments: str) -> dict[str, float]:
        """Runs the client process; returns what it measured."""
        command = [sys.executable, "-m", "tests.benchmarks.coordinator_client", self.address, what, *arguments]
        ran = subprocess.run(command, env=self._environment, stdout=subprocess.PIPE, check=True, text=True)
        return json.loads(ran.stdout)

    def cpu(self) -> float:
        """CPU seconds of the coordinator process so far; Ray's daemons are processes of their own."""
        times = psutil.Process(self.coordinator.pid).cpu_times()
        return times.user + times.system

    def stop(self) -> None:
        """Stops both."""
        for process in (self.coordinator, self._stages):
            process.send_signal(signal.SIGTERM)
        for process in (self.coordinator, self._stages):
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _start(self, module: str, address: str) -> subprocess.Popen[bytes]:
        log = (self._folder / f"{module}.log").open("ab")
        command = [sys.executable, "-m", module, "--listen", address]
        return subprocess.Popen(command, env=self._environment, stdout=log, stderr=log, start_new_session=True)


@contextlib.contextmanager
def system(stored: int = 0, **environment: str) -> Iterator[System]:
    """A running system whose store holds so many jobs that have ended."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        if stored:
            fill(Path(folder), stored)
        running = System(Path(folder), **environment)
        try:
            running.wait_ready()
            yield running
        finally:
            running.stop()


def fill(folder: Path, count: int) -> None:
    """Stores jobs that have ended, each with the attempts of a whole pipeline."""
    store = Store(f"sqlite:///{folder / 'jobs.db'}")
    spec = job_spec("stored")

    def ended(job: job_pb2.Job) -> job_pb2.Job:
        for stage in ("prepare", "train", "merge", "convert", "evaluate-base", "evaluate-q4_k_m", "card", "report"):
            attempt = job.attempts.add(key={"job": job.name[5:], "stage": stage, "attempt": 1})
            attempt.state = job_pb2.Attempt.STATE_SUCCEEDED
            attempt.create_time.GetCurrentTime()
            attempt.artifacts.add(kind=stage, path=f"{job.name}/{stage}/1/file", size_bytes=1, sha256="1" * 64)
            attempt.result.update({"path": f"{job.name}/{stage}/1/file", "numbers": list(range(20))})
        job.state = job_pb2.Job.STATE_SUCCEEDED
        job.start_time.GetCurrentTime()
        job.end_time.GetCurrentTime()
        return job

    with store.engine.connect() as connection:  # the pool hands the same connection out again
        connection.exec_driver_sql("PRAGMA synchronous=OFF")
    for number in range(count):
        job, _ = store.submit(spec, f"stored-{number}")
        store.change(job.name, ended)
    store.close()


def row(what: str, ours: float, bound: float, unit: str, note: str) -> None:
    """Prints one line."""
    machine = f"{os.cpu_count()} cores, {platform.machine()}; load {os.getloadavg()[0]:.1f}"
    line = {"benchmark": f"coordinator-{what}", "ours": round(ours, 3), "baseline": bound}
    ratio = round(bound / ours, 2) if ours else None
    print(
        json.dumps({**line, "ratio": ratio, "unit": unit, "note": f"{note}; baseline: the bound; {machine}"}),
        flush=True,
    )


def run_job(stub: job_pb2_grpc.JobServiceStub, name: str) -> job_pb2.Job:
    """A job from its submission to its end."""
    request = job_pb2.SubmitJobRequest(spec=job_spec(name), request_id=name)
    job = stub.SubmitJob(request).job
    for _ in stub.WatchJob(job_pb2.WatchJobRequest(name=job.name)):
        pass
    job = stub.GetJob(job_pb2.GetJobRequest(name=job.name)).job
    assert job.state == job_pb2.Job.STATE_SUCCEEDED, job.failure
    return job


def overhead() -> None:
    """What a job takes beyond its stages' sleep."""
    with system() as running, grpc.insecure_channel(running.address) as channel:
        stub = job_pb2_grpc.JobServiceStub(channel)
        run_job(stub, "warm-up")
        jobs = [run_job(stub, f"bench-{number}") for number in range(JOBS)]
    walls = [(job.end_time.ToNanoseconds() - job.create_time.ToNanoseconds()) / 1e9 for job in jobs]
    attempts = len(jobs[0].attempts)
    note = (
        f"median of {JOBS}, worst {max(walls) - OWN_SECONDS:.2f}; {attempts} attempts, {OWN_SECONDS} s of sleep; Ray up"
    )
    row("overhead", statistics.median(walls) - OWN_SECONDS, 3.0, "s per job", note)


def many() -> None:
    """Submitting and listing, with many jobs stored; and idling beside them."""
    with system(STORED) as running:
        with grpc.insecure_channel(running.address) as channel:
            run_job(job_pb2_grpc.JobServiceStub(channel), "warm-up")
        began = running.cpu()
        time.sleep(IDLE_SECONDS)
        share = 100 * (running.cpu() - began) / IDLE_SECONDS
        row(
            "idle",
            share,
            2.0,
            "% of a core",
            f"{IDLE_SECONDS:g} s, {STORED} jobs stored, none runs; Ray's daemons apart",
        )
        told = running.client("list")
        note = f"p99, p50 {1000 * told['p50']:.1f}; 50 of {STORED} jobs; client CPU {told['client_cpu']:.2f} s"
        row("list", 1000 * told["p99"], 50.0, "ms", note)
        began = running.cpu()
        told = running.client("submit")
        note = (
            f"p99, p50 {1000 * told['p50']:.1f}; {CLIENTS} clients, {EACH} each, {told['per_second']:.0f} per second, "
            f"{STORED} jobs stored; CPU of the coordinator {running.cpu() - began:.2f} s, of the client "
            f"{told['client_cpu']:.2f} s"
        )
        row("submit", 1000 * told["p99"], 100.0, "ms", note)
        running.kill_coordinator()


def watching() -> None:
    """Event delays of many watchers, and a crash in the middle."""
    with system(BENCH_TRAIN_SECONDS="300") as running, grpc.insecure_channel(running.address) as channel:
        stub = job_pb2_grpc.JobServiceStub(channel)
        request = job_pb2.SubmitJobRequest(spec=job_spec("watched"), request_id="watched")
        name = stub.SubmitJob(request).job.name
        wait_for(stub, name, "train")
        began = running.cpu()
        told = running.client("watch", name)
        note = (
            f"p99, p50 {1000 * told['p50']:.0f}; {STREAMS} streams of one job, {told['heard']} events heard, two each "
            f"second; CPU of the coordinator {running.cpu() - began:.1f} s, of the client {told['client_cpu']:.1f} s"
        )
        row("watch", 1000 * told["p99"], 250.0, "ms", note)
        running.kill_coordinator()
        since = time.time()
        running.start_coordinator()
        told = running.client("attach", name, str(since))
        row(
            "re-attach",
            told["seconds"],
            15.0,
            "s",
            "SIGKILL of coordinator and Ray; until the run's next word is heard",
        )
        running.kill_coordinator()


def wait_for(stub: job_pb2_grpc.JobServiceStub, name: str, stage: str) -> None:
    """Returns when a stage runs."""
    while True:
        job = stub.GetJob(job_pb2.GetJobRequest(name=name)).job
        assert job.state not in TERMINAL, job.failure
        if any(each.key.stage == stage and each.state == job_pb2.Attempt.STATE_RUNNING for each in job.attempts):
            return
        time.sleep(0.1)


MEASUREMENTS: Mapping[str, object] = {"overhead": overhead, "many": many, "watching": watching}


def main() -> None:
    """Prints one JSON line for each row; arguments choose measurements."""
    for name in sys.argv[1:] or MEASUREMENTS:
        MEASUREMENTS[name]()  # type: ignore[operator]


if __name__ == "__main__":
    main()

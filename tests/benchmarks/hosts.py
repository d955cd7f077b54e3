"""Fifty jobs on three simulated hosts with a GPU each: where they go, how busy the GPUs are, how long they wait.

    make bench-hosts

Ray's own multi-node test cluster on this machine, real gRPC stage services per host that only sleep, and the
coordinator's code in this process (`tests/fixtures/simulated_cluster.py`). All jobs are submitted at once. The
baseline is what three GPUs could do at best: every GPU always busy from the first training to the last evaluation.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

from cutoff.coordinator.jobs import Jobs
from cutoff.coordinator.journal import Journal
from cutoff.coordinator.store import Store
from cutoff.telemetry import configure_logs
from cutoff.v1 import job_pb2
from tests.fixtures.simulated_cluster import NAMES, SimulatedCluster, job

JOBS = 50
EVALUATE_SECONDS = 5.0


async def run_all(store: Store, cluster: SimulatedCluster, count: int) -> list[job_pb2.Job]:
    """Submits all jobs and returns them when they have ended."""
    journal = Journal(store)
    jobs = Jobs(journal, cluster.services(journal))
    lengths = random.Random(1)
    names = []
    for number in range(count):
        spec = job(f"job-{number:02d}", lengths.uniform(8, 22), EVALUATE_SECONDS)
        names.append(journal.store.submit(spec, f"r{number}")[0].name)
        jobs.start(names[-1])

    async def ended(name: str) -> job_pb2.Job:
        async for _ in journal.watch(name, 0):
            pass
        return journal.current(name)

    return await asyncio.gather(*(ended(name) for name in names))


def seconds(stamp) -> float:
    """A timestamp as seconds since 1970."""
    return stamp.seconds + stamp.nanos / 1e9


def overlaps(attempts) -> int:
    """How often a run began on a host's one GPU before the one before it had ended."""
    by_host = defaultdict(list)
    for attempt in attempts:
        by_host[attempt.host].append((seconds(attempt.start_time), seconds(attempt.end_time)))
    return sum(
        later[0] < earlier[1]
        for spans in by_host.values()
        for earlier, later in zip(sorted(spans), sorted(spans)[1:], strict=False)
    )


def rows(done: list[job_pb2.Job], took: float) -> list[dict[str, object]]:
    """The figures."""
    attempts = [attempt for one in done for attempt in one.attempts]
    on_gpu = [attempt for attempt in attempts if attempt.key.stage.startswith(("train", "evaluate"))]
    on_cpu = [attempt for attempt in attempts if not attempt.key.stage.startswith(("train", "evaluate"))]
    busy = sum(seconds(attempt.end_time) - seconds(attempt.start_time) for attempt in on_gpu)
    begin = min(seconds(attempt.start_time) for attempt in on_gpu)
    window = max(seconds(attempt.end_time) for attempt in on_gpu) - begin
    waits = sorted(seconds(attempt.start_time) - seconds(attempt.create_time) for attempt in on_gpu)
    brief = sorted(seconds(attempt.start_time) - seconds(attempt.create_time) for attempt in on_cpu)
    placed = Counter(attempt.host for attempt in on_gpu)
    anywhere = Counter(attempt.host for attempt in on_cpu)
    succeeded = sum(one.state == job_pb2.Job.STATE_SUCCEEDED for one in done)
    tries = len(attempts) - len({(attempt.key.job, attempt.key.stage) for attempt in attempts})
    where = f"{len(done)} jobs, 3 hosts of 1 GPU and 3 slots, on one machine with {os.cpu_count()} cores"

    def row(name: str, ours: float, baseline: float, unit: str, note: str) -> dict[str, object]:
        ratio = round(ours / baseline, 3) if baseline else None
        made = {"benchmark": name, "ours": round(ours, 3), "baseline": round(baseline, 3), "ratio": ratio}
        return {**made, "unit": unit, "note": note}

    even = len(on_gpu) / 3
    return [
        row("hosts-succeeded", succeeded, len(done), "jobs", f"{where}; {tries} stages tried again"),
        row("hosts-gpu-time", window, busy / 3, "s", f"all GPU stages; baseline: never idle; all jobs: {took:.0f} s"),
        row("hosts-utilisation", busy / 3 / window, 1, "of the GPUs' time", f"{busy:.0f} s of sleep on GPUs"),
        row("hosts-placement", max(placed.values()), even, "GPU stages on the fullest host", str(dict(placed))),
        row("hosts-cpu-stages", max(anywhere.values()), len(on_cpu) / 3, "on the fullest host", str(dict(anywhere))),
        row("hosts-two-on-one-gpu", overlaps(on_gpu), 0, "times", "by the start and end of each run"),
        row("hosts-queue-p50", statistics.median(waits), 0, "s", "GPU stages, from the attempt's row to its process"),
        row("hosts-queue-p95", waits[int(0.95 * len(waits))], 0, "s", "the same"),
        row("hosts-cpu-queue-p50", statistics.median(brief), 0, "s", "stages without a GPU; a Ray process each"),
    ]


def main() -> None:
    """Prints a JSON line for each figure."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else JOBS
    os.environ.setdefault("CUTOFF_LOG_LEVEL", "WARNING")
    configure_logs("bench")
    with tempfile.TemporaryDirectory() as folder, SimulatedCluster(Path(folder), NAMES) as cluster:
        store = Store(f"sqlite:///{folder}/jobs.db")
        started = time.monotonic()
        done = asyncio.run(run_all(store, cluster, count))
        took = time.monotonic() - started
        store.close()
    for row in rows(done, took):
        print(json.dumps(row))


if __name__ == "__main__":
    main()

"""Logs and garbage of jobs that `cutoff run` has left in the artifacts folder: no coordinator knows of them."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Iterator
from pathlib import Path

from cutoff.artifacts import Roots, inside
from cutoff.artifacts.removal import freed_bytes, remove
from cutoff.client.job_record import read_record, record_path, write_record
from cutoff.coordinator.retention import Policy, candidates, with_removed
from cutoff.coordinator.run_logs import read_logs
from cutoff.v1 import operator_pb2


def logs_here(record: Path, roots: Roots, stage: str = "") -> list[operator_pb2.ReadLogsResponse]:
    """What the runs of a job printed and said; it has ended."""
    job = read_record(record)

    async def read() -> list[operator_pb2.ReadLogsResponse]:
        found = read_logs(lambda: job, roots.artifacts, stage)
        return [operator_pb2.ReadLogsResponse(key=key, lines=lines) async for key, lines in found]

    return asyncio.run(read())


def collect_here(
    roots: Roots, min_age: datetime.timedelta, keep_jobs: int, ggufs: bool, dry_run: bool
) -> Iterator[operator_pb2.CollectGarbageResponse]:
    """Removes intermediate artifacts of these jobs; see `coordinator.garbage`."""
    jobs = [read_record(path) for path in sorted(roots.artifacts.glob("jobs/*/job.json"))]
    policy = Policy(min_age, keep_jobs, ggufs)
    for job, artifacts in candidates(jobs, policy, datetime.datetime.now(datetime.UTC)):
        paths = [inside(roots.artifacts, artifact.path) for artifact in artifacts]
        freed = freed_bytes(paths)
        if not dry_run:
            write_record(record_path(roots.artifacts, job.name), with_removed(job, artifacts))
            remove(paths)
        yield operator_pb2.CollectGarbageResponse(name=job.name, artifacts=artifacts, freed_bytes=freed)

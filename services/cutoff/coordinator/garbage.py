"""Frees disk space: what may go (`retention.py`) is first recorded as gone, then renamed aside, then removed.

A crash anywhere between leaves a record that says "gone" and perhaps files: the next collection removes those too.
"""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cutoff.artifacts import GIB, inside
from cutoff.artifacts.removal import aside_of, freed_bytes, remove
from cutoff.coordinator import retention
from cutoff.coordinator.jobs import Jobs
from cutoff.coordinator.journal import Journal
from cutoff.errors import CutoffError
from cutoff.telemetry import logger
from cutoff.v1 import job_pb2, types_pb2

_LOG = logger(__name__)
_INTERVAL = 3600.0
"""Seconds between two automatic collections."""


@dataclass(frozen=True, slots=True)
class Collected:
    """What was, or would be, removed of one job."""

    job: job_pb2.Job
    artifacts: Sequence[types_pb2.Artifact]
    freed_bytes: int


class Garbage:
    """Collects garbage, one collection at a time. Lives on one event loop.

    Args:
        journal: Where jobs are recorded.
        jobs: Those under way, whose files stay.
        artifacts: The root.
    """

    def __init__(self, journal: Journal, jobs: Jobs, artifacts: Path) -> None:
        self._journal = journal
        self._jobs = jobs
        self._artifacts = artifacts
        self._one = asyncio.Lock()

    async def collect(self, policy: retention.Policy, dry_run: bool = False) -> AsyncIterator[Collected]:
        """Removes what may go, job by job; with `dry_run` only says what that is."""
        async with self._one:
            known = await asyncio.to_thread(self._known)
            await self._finish_earlier(known)
            now = datetime.datetime.now(datetime.UTC)
            for job, artifacts in retention.candidates(known, policy, now):
                if self._jobs.touched(job.name):
                    continue
                paths = self._paths(artifacts)
                freed = await asyncio.to_thread(freed_bytes, paths)
                if not dry_run:
                    if not self._strike_out(job.name, artifacts, policy.ggufs):
                        continue
                    await asyncio.to_thread(remove, paths)
                    _LOG.info("artifacts removed", job=job.name, count=len(artifacts), freed_bytes=freed)
                yield Collected(job, artifacts, freed)

    async def keep_collecting(self, days: float) -> None:
        """Removes what is older than so many days, now and every hour; returns never."""
        policy = retention.Policy(min_age=datetime.timedelta(days=days))
        while True:
            try:
                freed = sum([each.freed_bytes async for each in self.collect(policy)])
                if freed:
                    _LOG.info("retention", days=days, freed_gib=round(freed / GIB, 2))
            except (OSError, CutoffError) as error:
                _LOG.warning("artifacts cannot be removed", error=str(error))
            await asyncio.sleep(_INTERVAL)

    def _known(self) -> list[job_pb2.Job]:
        return [*self._journal.store.ended(), *self._journal.store.unfinished()]

    def _strike_out(self, name: str, artifacts: Sequence[types_pb2.Artifact], ggufs: bool) -> bool:
        """Records that artifacts are gone, unless something has been begun with the job since it was looked at."""
        present = {artifact.path for artifact in retention.removable_of(self._journal.store.get(name), ggufs)}
        if self._jobs.touched(name) or not present.issuperset(artifact.path for artifact in artifacts):
            return False
        self._journal.change(name, partial(retention.with_removed, removed=artifacts))
        return True

    async def _finish_earlier(self, jobs: Iterable[job_pb2.Job]) -> None:
        """Removes what an interrupted collection has recorded as gone and left behind."""
        for job in jobs:
            left = [path for path in self._paths(retention.gone(job)) if path.exists() or aside_of(path).exists()]
            if left:
                await asyncio.to_thread(remove, left)

    def _paths(self, artifacts: Iterable[types_pb2.Artifact]) -> list[Path]:
        return [inside(self._artifacts, artifact.path) for artifact in artifacts]

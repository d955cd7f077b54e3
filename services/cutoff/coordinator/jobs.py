"""The jobs under way: one task each, started, cancelled, taken up again after a restart."""

from __future__ import annotations

import asyncio

from cutoff.coordinator.attempts import Services
from cutoff.coordinator.job import TERMINAL
from cutoff.coordinator.journal import Journal
from cutoff.coordinator.pipeline import Pipeline
from cutoff.errors import Cancelled, CutoffError
from cutoff.rpc import failure_of
from cutoff.telemetry import logger
from cutoff.v1 import job_pb2

_LOG = logger(__name__)


class Jobs:
    """Runs each job's pipeline as a task of its own. Lives on one event loop."""

    def __init__(self, journal: Journal, services: Services) -> None:
        self._journal = journal
        self._services = services
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, name: str) -> None:
        """Begins a job, or goes on with it."""
        task = asyncio.create_task(Pipeline(name, self._journal, self._services).run(), name=name)
        self._tasks[name] = task
        task.add_done_callback(self._ended)

    def take_up(self) -> None:
        """Goes on with every job that had not ended when the coordinator went down.

        Those that run first: they take the hardware they are on before anything else is placed.
        """
        waits = job_pb2.Attempt.STATE_WAITING
        for job in sorted(
            self._journal.store.unfinished(),
            key=lambda job: not job.attempts or job.attempts[-1].state == waits,
        ):
            _LOG.info("taking up", job=job.name)
            self.start(job.name)

    def cancel(self, name: str) -> job_pb2.Job:
        """Asks a job to stop; one that has ended, or is being cancelled, is returned as it is.

        Raises:
            NotFound: There is no such job.
        """
        job = self._journal.store.get(name)
        if job.state in TERMINAL or job.state == job_pb2.Job.STATE_CANCELLING:
            return job
        job = self._journal.move(name, job_pb2.Job.STATE_CANCELLING)
        self._tasks[name].cancel()
        return job

    async def suspend(self) -> None:
        """Lets go of every job as it is: its runs go on for their lease, to be taken up again."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        name = task.get_name()
        del self._tasks[name]
        if not task.cancelled():
            error = task.exception()
            if error is not None:
                _LOG.error("a pipeline failed inside cutoff", job=name, exc_info=error)
                bug = CutoffError(
                    f"{type(error).__name__}: {error}", "this is a bug in cutoff; see the coordinator's log"
                )
                self._journal.move(name, job_pb2.Job.STATE_FAILED, failure_of(bug))
        elif self._journal.store.get(name).state == job_pb2.Job.STATE_CANCELLING:
            # Cancelled before its pipeline took its first step.
            self._journal.move(name, job_pb2.Job.STATE_CANCELLED, failure_of(Cancelled("the job was cancelled")))

"""Drains the coordinator: what runs is finished, nothing is begun, until it is stopped or told to go on."""

from __future__ import annotations

from cutoff.coordinator.jobs import Jobs
from cutoff.coordinator.store import Store
from cutoff.rpc import Door
from cutoff.telemetry import logger
from cutoff.v1 import job_pb2

_LOG = logger(__name__)


class Draining:
    """Lives on one event loop.

    Args:
        door: Closed while draining; new attempts wait for it to open (`Services.may_begin`).
        jobs: Those under way.
        store: Where their attempts are.
    """

    def __init__(self, door: Door, jobs: Jobs, store: Store) -> None:
        self._door = door
        self._jobs = jobs
        self._store = store

    @property
    def on(self) -> bool:
        """Whether the coordinator drains."""
        return self._door.closed

    async def begin(self) -> None:
        """Refuses new work and begins no attempt; drains already: nothing happens."""
        if not self.on:
            _LOG.info("draining", running=self.attempts(job_pb2.Attempt.STATE_RUNNING))
            await self._door.close("draining")
            self._jobs.hold()

    async def end(self) -> None:
        """Takes new work again, and goes on with what was held."""
        if self.on:
            _LOG.info("draining ended")
            await self._door.open()
            self._jobs.release()

    def attempts(self, state: job_pb2.Attempt.State) -> int:
        """How many attempts of unfinished jobs, or at installing others, are in a state."""
        unfinished = self._store.unfinished()
        return sum(attempt.state == state for job in unfinished for attempt in job.attempts) + (
            self._jobs.installing() if state == job_pb2.Attempt.STATE_RUNNING else 0
        )

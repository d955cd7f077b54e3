"""The operator's service: translates between the wire and the domain, and nothing else."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from cutoff.coordinator.draining import Draining
from cutoff.coordinator.garbage import Garbage
from cutoff.coordinator.journal import Journal
from cutoff.coordinator.retention import Policy
from cutoff.coordinator.run_logs import read_logs
from cutoff.coordinator.system_status import SystemStatus
from cutoff.v1 import job_pb2, operator_pb2, operator_pb2_grpc

_RUNNING = job_pb2.Attempt.STATE_RUNNING


class OperatorServicer(operator_pb2_grpc.OperatorServiceServicer):
    """See operator.proto."""

    def __init__(
        self, journal: Journal, draining: Draining, garbage: Garbage, status: SystemStatus, artifacts: Path
    ) -> None:
        self._journal = journal
        self._draining = draining
        self._garbage = garbage
        self._status = status
        self._artifacts = artifacts

    async def GetStatus(self, request: operator_pb2.GetStatusRequest, context: Any) -> operator_pb2.GetStatusResponse:
        """How the system is."""
        return await self._status.now()

    async def Drain(self, request: operator_pb2.DrainRequest, context: Any) -> operator_pb2.DrainResponse:
        """Begins or ends draining."""
        await (self._draining.end() if request.end else self._draining.begin())
        return operator_pb2.DrainResponse(
            draining=self._draining.on, running_attempts=self._draining.attempts(_RUNNING)
        )

    async def ReadLogs(
        self, request: operator_pb2.ReadLogsRequest, context: Any
    ) -> AsyncIterator[operator_pb2.ReadLogsResponse]:
        """What a job's runs said."""

        def job() -> job_pb2.Job:
            return self._journal.store.get(request.name)

        async for key, lines in read_logs(job, self._artifacts, request.stage, request.follow):
            yield operator_pb2.ReadLogsResponse(key=key, lines=lines)

    async def CollectGarbage(
        self, request: operator_pb2.CollectGarbageRequest, context: Any
    ) -> AsyncIterator[operator_pb2.CollectGarbageResponse]:
        """Removes intermediate artifacts."""
        age = datetime.timedelta(seconds=request.min_age.ToSeconds())
        policy = Policy(age, request.keep_jobs, request.ggufs)
        async for one in self._garbage.collect(policy, request.dry_run):
            yield operator_pb2.CollectGarbageResponse(
                name=one.job.name, artifacts=one.artifacts, freed_bytes=one.freed_bytes
            )

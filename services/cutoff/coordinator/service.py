"""The job service: translates between the wire and the domain, and nothing else."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from cutoff.coordinator.jobs import Jobs
from cutoff.coordinator.journal import Journal
from cutoff.coordinator.reports import pieces, report_file
from cutoff.coordinator.submissions import Submissions
from cutoff.errors import Fault, InvalidInput
from cutoff.rpc import Door
from cutoff.spec import JobSpec, spec_from_proto, spec_to_proto
from cutoff.v1 import job_pb2, job_pb2_grpc

_PAGE, _LARGEST_PAGE = 50, 100
_LAST = 2**31 - 1
"""The largest number that any store can compare with."""
_REQUEST_ID = re.compile("[ -~]{1,200}")

Admit = Callable[[JobSpec], None]
"""Raises when a job cannot be taken (see `admission`)."""


class JobServicer(job_pb2_grpc.JobServiceServicer):
    """See job.proto.

    Args:
        journal: Where jobs are recorded.
        jobs: Those under way.
        admit: Whether a job can be taken.
        artifacts: The root.
        door: While it is closed, nothing new is begun.
    """

    def __init__(self, journal: Journal, jobs: Jobs, admit: Admit, artifacts: Path, door: Door | None = None) -> None:
        self._journal = journal
        self._jobs = jobs
        self._submissions = Submissions(journal, jobs.begin)
        self._admit = admit
        self._artifacts = artifacts
        self._door = door or Door("the coordinator")

    async def SubmitJob(self, request: job_pb2.SubmitJobRequest, context: Any) -> job_pb2.SubmitJobResponse:
        """Checks and stores a job, and starts it."""
        if not _REQUEST_ID.fullmatch(request.request_id):
            wrong = "is not 1 to 200 characters of ASCII" if request.request_id else "is empty"
            raise InvalidInput([Fault("request_id", wrong, "send a UUID, and the same one when you retry")])
        self._door.require_open()
        spec = spec_from_proto(request.spec)
        self._admit(spec)
        job = await self._submissions.hand_in(spec_to_proto(spec), request.request_id)
        return job_pb2.SubmitJobResponse(job=job)

    async def GetJob(self, request: job_pb2.GetJobRequest, context: Any) -> job_pb2.GetJobResponse:
        """One job."""
        return job_pb2.GetJobResponse(job=self._journal.current(request.name))

    async def ListJobs(self, request: job_pb2.ListJobsRequest, context: Any) -> job_pb2.ListJobsResponse:
        """A page of jobs."""
        token = request.page_token
        if token and not (re.fullmatch("[0-9]{1,10}", token) and int(token) <= _LAST):
            raise InvalidInput([Fault("page_token", "is not one this server gave", "leave it empty to begin anew")])
        size = min(request.page_size or _PAGE, _LARGEST_PAGE)
        jobs, token = self._journal.store.page(size, request.page_token)
        return job_pb2.ListJobsResponse(jobs=map(self._journal.with_waiting, jobs), next_page_token=token)

    async def WatchJob(self, request: job_pb2.WatchJobRequest, context: Any) -> AsyncIterator[job_pb2.WatchJobResponse]:
        """A job's events, from any point to its end."""
        async for event in self._journal.watch(request.name, min(request.after_sequence, _LAST)):
            yield job_pb2.WatchJobResponse(event=event)

    async def CancelJob(self, request: job_pb2.CancelJobRequest, context: Any) -> job_pb2.CancelJobResponse:
        """Asks a job to stop."""
        return job_pb2.CancelJobResponse(job=self._jobs.cancel(request.name))

    async def RetryJob(self, request: job_pb2.RetryJobRequest, context: Any) -> job_pb2.RetryJobResponse:
        """Goes on with a job that failed or was cancelled."""
        return job_pb2.RetryJobResponse(job=self._jobs.retry(request.name))

    async def PauseJob(self, request: job_pb2.PauseJobRequest, context: Any) -> job_pb2.PauseJobResponse:
        """Stops what runs of a job, and frees its GPU."""
        return job_pb2.PauseJobResponse(job=self._jobs.pause(request.name))

    async def ResumeJob(self, request: job_pb2.ResumeJobRequest, context: Any) -> job_pb2.ResumeJobResponse:
        """Goes on with a paused job."""
        return job_pb2.ResumeJobResponse(job=self._jobs.resume(request.name))

    async def InstallJob(self, request: job_pb2.InstallJobRequest, context: Any) -> job_pb2.InstallJobResponse:
        """Installs a GGUF of a job that has ended."""
        self._door.require_open()
        job = await self._jobs.install(request.name, request.quant_type, request.replace)
        return job_pb2.InstallJobResponse(job=job)

    async def UninstallJob(self, request: job_pb2.UninstallJobRequest, context: Any) -> job_pb2.UninstallJobResponse:
        """Removes what a job installed."""
        return job_pb2.UninstallJobResponse(job=await self._jobs.uninstall(request.name))

    async def GetReport(
        self, request: job_pb2.GetReportRequest, context: Any
    ) -> AsyncIterator[job_pb2.GetReportResponse]:
        """A job's report, in pieces."""
        for piece in pieces(report_file(self._journal.store.get(request.name), self._artifacts, request.format)):
            yield job_pb2.GetReportResponse(content=piece)

"""A typed client of the job service.

    with Client() as client:
        job = client.submit(load_job_yaml(Path("job.yaml")))
        for event in client.watch(job.name):
            ...

The address defaults to CUTOFF_ADDRESS; what is shown there to what `credentials.py` finds.
"""

from __future__ import annotations

import datetime
import enum
import os
import time
import uuid
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from cutoff.client.credentials import find_security
from cutoff.errors import Unavailable
from cutoff.rpc import ClientSecurity, Peer, error_of_failure
from cutoff.spec import JobSpec, spec_to_proto
from cutoff.v1 import job_pb2, operator_pb2

DEFAULT_ADDRESS = "127.0.0.1:50051"

_PATIENCE = 60.0
"""Seconds a watch outlives its server, so that a restart is not noticed."""

_WATCH_SECONDS = 3600.0
"""Of one stream of a watch; another one takes its place."""

_REPORT_SECONDS = 120.0

_READING_SECONDS = 660.0
"""The converter may have to read an installed file through."""


class Outcome(enum.Enum):
    """How a job stands, as the exit codes tell it."""

    RUNNING = "running"
    INSTALLED = "installed"
    """It succeeded, and its GGUF is installed (or was not to be)."""
    BELOW_BAR = "below bar"
    """It succeeded, but the model missed what install.require asks for, and nobody has installed it since."""
    FAILED = "failed"
    CANCELLED = "cancelled"


def outcome_of(job: job_pb2.Job) -> Outcome:
    """How a job stands."""
    if job.state == job_pb2.Job.STATE_SUCCEEDED:
        return Outcome.BELOW_BAR if job.result.missed and not job.result.installed_path else Outcome.INSTALLED
    if job.state == job_pb2.Job.STATE_FAILED:
        return Outcome.FAILED
    return Outcome.CANCELLED if job.state == job_pb2.Job.STATE_CANCELLED else Outcome.RUNNING


def require_installed(job: job_pb2.Job) -> None:
    """Raises why the newest installation of a job came to nothing.

    Raises:
        CutoffError: What it failed with.
        Unavailable: The coordinator was restarted meanwhile.
    """
    newest = next((each for each in reversed(job.attempts) if each.key.stage == "install"), None)
    if newest is not None and newest.HasField("failure"):
        raise error_of_failure(newest.failure)
    if newest is None or newest.state != job_pb2.Attempt.STATE_SUCCEEDED:
        raise Unavailable(f"the installation of {job.name} was interrupted", "ask for it again")


class Client:
    """Talks to one coordinator. Use as a context manager.

    Args:
        address: host:port or unix:/path; default CUTOFF_ADDRESS, else 127.0.0.1:50051.
        security: Token and CA; default what `credentials.find_security` finds.
    """

    def __init__(self, address: str | None = None, security: ClientSecurity | None = None) -> None:
        address = address or os.environ.get("CUTOFF_ADDRESS") or DEFAULT_ADDRESS
        self._peer = Peer(address, security or find_security(address))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._peer.close()

    def submit(self, spec: JobSpec, request_id: str | None = None) -> job_pb2.Job:
        """Submits a job.

        Args:
            spec: The job.
            request_id: Give the same one again to repeat a call whose answer was lost.

        Raises:
            InvalidInput: With every fault.
            AlreadyExists: The request_id belongs to another job.
            Unavailable: The server does not answer.
        """
        request = job_pb2.SubmitJobRequest(spec=spec_to_proto(spec), request_id=request_id or str(uuid.uuid4()))
        return self._peer.unary("JobService/SubmitJob", request, job_pb2.SubmitJobResponse).job

    def get(self, job: str) -> job_pb2.Job:
        """One job, by its name ("jobs/x") or id ("x").

        Raises:
            NotFound: There is none.
        """
        request = job_pb2.GetJobRequest(name=_name(job))
        return self._peer.unary("JobService/GetJob", request, job_pb2.GetJobResponse).job

    def jobs(self, limit: int = 50) -> Iterator[job_pb2.Job]:
        """The newest jobs first, at most `limit` of them."""
        token = ""
        while limit > 0:
            request = job_pb2.ListJobsRequest(page_size=min(limit, 100), page_token=token)
            page = self._peer.unary("JobService/ListJobs", request, job_pb2.ListJobsResponse)
            yield from page.jobs
            limit, token = limit - len(page.jobs), page.next_page_token
            if not token:
                return

    def watch(self, job: str, after_sequence: int = 0) -> Iterator[job_pb2.JobEvent]:
        """A job's events after a sequence number, to its end; goes on where it was when the server restarts.

        Raises:
            NotFound: There is no such job.
            Unavailable: The server has not answered for a minute.
        """
        failing_since: float | None = None
        while True:
            began = time.monotonic()
            request = job_pb2.WatchJobRequest(name=_name(job), after_sequence=after_sequence)
            try:
                stream = self._peer.stream("JobService/WatchJob", request, job_pb2.WatchJobResponse, _WATCH_SECONDS)
                for response in stream:
                    failing_since = None
                    after_sequence = max(after_sequence, response.event.sequence)
                    yield response.event
            except Unavailable:
                now = time.monotonic()
                if failing_since is None or now - began > _PATIENCE:  # the stream was idle, not gone
                    failing_since = now
                if now - failing_since > _PATIENCE:
                    raise
                time.sleep(1)
            else:
                return

    def cancel(self, job: str) -> job_pb2.Job:
        """Asks a job to stop, and returns it as it is then; watch it to see its end.

        Raises:
            NotFound: There is no such job.
        """
        request = job_pb2.CancelJobRequest(name=_name(job))
        return self._peer.unary("JobService/CancelJob", request, job_pb2.CancelJobResponse).job

    def pause(self, job: str) -> job_pb2.Job:
        """Asks a job to stop for a while, and returns it as it is then; watch it to see it paused.

        Raises:
            NotFound: There is no such job.
            Refused: It has ended, or is being cancelled.
        """
        request = job_pb2.PauseJobRequest(name=_name(job))
        return self._peer.unary("JobService/PauseJob", request, job_pb2.PauseJobResponse).job

    def resume(self, job: str) -> job_pb2.Job:
        """Goes on with a paused job, and returns it; one that goes on already stays as it is.

        Raises:
            NotFound: There is no such job.
            Refused: It has ended, is being cancelled, or is not paused yet.
        """
        request = job_pb2.ResumeJobRequest(name=_name(job))
        return self._peer.unary("JobService/ResumeJob", request, job_pb2.ResumeJobResponse).job

    def retry(self, job: str) -> job_pb2.Job:
        """Goes on with a job that failed or was cancelled, from what succeeded; one that has not ended stays as it is.

        Raises:
            NotFound: There is no such job.
            Refused: It succeeded, or is being cancelled, installed or uninstalled.
        """
        request = job_pb2.RetryJobRequest(name=_name(job))
        return self._peer.unary("JobService/RetryJob", request, job_pb2.RetryJobResponse).job

    def install(self, job: str, quant_type: str = "", replace: bool = False) -> job_pb2.Job:
        """Begins to install a GGUF of a job that has ended; watch it from its last_sequence, then `require_installed`.

        Args:
            job: Its name or id.
            quant_type: One of the job's; the first by default.
            replace: Whether another model of that name gives way.

        Raises:
            NotFound: There is no such job.
            Refused: It has not ended, has made no GGUF, or the models folder cannot be written.
            InvalidInput: It has made none of this type.
            AlreadyExists: Its name is taken, and not to be replaced.
        """
        request = job_pb2.InstallJobRequest(name=_name(job), quant_type=quant_type, replace=replace)
        return self._peer.unary("JobService/InstallJob", request, job_pb2.InstallJobResponse, _READING_SECONDS).job

    def uninstall(self, job: str) -> job_pb2.Job:
        """Removes what a job installed, and returns the job; it stays as it is when nothing of it is installed.

        Raises:
            NotFound: There is no such job.
            Refused: It has not ended, or its file was changed since.
        """
        request = job_pb2.UninstallJobRequest(name=_name(job))
        return self._peer.unary("JobService/UninstallJob", request, job_pb2.UninstallJobResponse, _READING_SECONDS).job

    def report(self, job: str, page: bool = False) -> bytes:
        """A job's report: report.json, or the page.

        Raises:
            NotFound: There is no such job, or it has no report; the message says why.
        """
        form = job_pb2.GetReportRequest.FORMAT_HTML if page else job_pb2.GetReportRequest.FORMAT_JSON
        request = job_pb2.GetReportRequest(name=_name(job), format=form)
        pieces = self._peer.stream("JobService/GetReport", request, job_pb2.GetReportResponse, _REPORT_SECONDS)
        return b"".join(piece.content for piece in pieces)

    def status(self) -> operator_pb2.GetStatusResponse:
        """How the coordinator and its stage services are."""
        return self._peer.unary(
            "OperatorService/GetStatus", operator_pb2.GetStatusRequest(), operator_pb2.GetStatusResponse
        )

    def drain(self, end: bool = False) -> operator_pb2.DrainResponse:
        """Has the coordinator finish what runs and begin nothing, or (`end`) take new work again."""
        return self._peer.unary("OperatorService/Drain", operator_pb2.DrainRequest(end=end), operator_pb2.DrainResponse)

    def logs(self, job: str, stage: str = "", follow: bool = False) -> Iterator[operator_pb2.ReadLogsResponse]:
        """What a job's runs printed and said.

        Raises:
            NotFound: There is no such job.
            Unavailable: The server does not answer.
        """
        request = operator_pb2.ReadLogsRequest(name=_name(job), stage=stage, follow=follow)
        yield from self._peer.stream("OperatorService/ReadLogs", request, operator_pb2.ReadLogsResponse)

    def collect_garbage(
        self, min_age: datetime.timedelta, keep_jobs: int = 0, ggufs: bool = False, dry_run: bool = False
    ) -> Iterator[operator_pb2.CollectGarbageResponse]:
        """Removes intermediate artifacts of jobs that have ended, and says of each job what.

        Args:
            min_age: Jobs that ended more recently keep everything.
            keep_jobs: So many of the newest jobs keep everything.
            ggufs: Whether GGUFs that are not installed go too.
            dry_run: Only say what would be removed.
        """
        request = operator_pb2.CollectGarbageRequest(keep_jobs=keep_jobs, dry_run=dry_run, ggufs=ggufs)
        request.min_age.FromTimedelta(min_age)
        yield from self._peer.stream("OperatorService/CollectGarbage", request, operator_pb2.CollectGarbageResponse)


def _name(job: str) -> str:
    return job if job.startswith("jobs/") else f"jobs/{job}"

"""Where a job's report is, as its record tells; and if it has none, why."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cutoff.artifacts import inside
from cutoff.coordinator.job import TERMINAL, newest_attempt
from cutoff.errors import NotFound
from cutoff.v1 import job_pb2

Format = job_pb2.GetReportRequest.Format

_PIECE = 1 << 20
"""Bytes; a message may have four times as many."""


def report_file(job: job_pb2.Job, artifacts: Path, form: Format = job_pb2.GetReportRequest.FORMAT_JSON) -> Path:
    """The file of a job's report.

    Args:
        job: Its record.
        artifacts: The root that its files are relative to.
        form: report.json, or the page.

    Raises:
        NotFound: The job has no report, or its file is not there.
    """
    kind = "report-page" if form == job_pb2.GetReportRequest.FORMAT_HTML else "report"
    found = [
        artifact.path
        for attempt in job.attempts
        if attempt.key.stage == "report" and attempt.state == job_pb2.Attempt.STATE_SUCCEEDED
        for artifact in attempt.artifacts
        if artifact.kind == kind
    ]
    if not found:
        raise NotFound(f"{job.name} has no report: {_why(job)}", f"cutoff get {job.name.removeprefix('jobs/')}")
    path = inside(artifacts, found[-1])
    if not path.is_file():
        raise NotFound(
            f"{path} is not there any more", "say where the jobs' folders are: --artifacts, CUTOFF_ARTIFACTS"
        )
    return path


def pieces(path: Path) -> Iterator[bytes]:
    """A file's content in pieces that fit into messages."""
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece


def _why(job: job_pb2.Job) -> str:
    attempt = newest_attempt(job, "report")
    if attempt is not None and attempt.HasField("failure"):
        return f"it could not be made: {attempt.failure.message}"
    if job.state not in TERMINAL:
        return "it is made when everything has been evaluated"
    if job.HasField("failure"):
        return f"the job ended before that: {job.failure.message}"
    return "it was run by an earlier version"

"""Which artifacts of a job may go, and that they are gone. Pure functions of the job's record.

A job's large files are the means to its end: checkpoints, the merged model, the 16-bit GGUF; when the job has ended,
the installed GGUF, the adapter and the report tell what came of it. Never removed: anything of a job that has not
ended, reports and evaluations, model cards, adapters, and the GGUF that is installed.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from google.protobuf.timestamp_pb2 import Timestamp

from cutoff.coordinator.job import OPEN, TERMINAL
from cutoff.errors import Refused
from cutoff.v1 import job_pb2, types_pb2

INTERMEDIATE = frozenset({"checkpoint", "merged", "gguf-f16"})
_GGUF = "gguf"


@dataclass(frozen=True, slots=True)
class Policy:
    """What is kept."""

    min_age: datetime.timedelta = datetime.timedelta()
    """Jobs that ended more recently keep everything."""
    keep_jobs: int = 0
    """So many of the newest jobs that have ended keep everything."""
    ggufs: bool = False
    """Whether GGUFs that are not installed go too."""


def candidates(
    jobs: Iterable[job_pb2.Job], policy: Policy, now: datetime.datetime
) -> list[tuple[job_pb2.Job, list[types_pb2.Artifact]]]:
    """The jobs that have something to remove, the oldest first, and what.

    Args:
        jobs: All of them, those that have not ended too: what these build on is kept.
        policy: What is kept.
        now: In UTC.
    """
    known = list(jobs)
    ended = sorted((job for job in known if _ended(job)), key=lambda job: job.end_time.ToNanoseconds())
    old = ended[: max(0, len(ended) - policy.keep_jobs)]
    used = {path for job in known if not _ended(job) for path in _builds_on(job)}
    found = []
    for job in old:
        if now - job.end_time.ToDatetime(datetime.UTC) < policy.min_age:
            continue
        removable = [artifact for artifact in removable_of(job, policy.ggufs) if not _is_used(artifact, used)]
        if removable:
            found.append((job, removable))
    return found


def removable_of(job: job_pb2.Job, ggufs: bool = False) -> list[types_pb2.Artifact]:
    """The artifacts of a job that has ended which may go, those that are gone already left out."""
    kinds = INTERMEDIATE | ({_GGUF} if ggufs else frozenset())
    return [
        artifact
        for attempt in job.attempts
        for artifact in attempt.artifacts
        if artifact.kind in kinds
        and not artifact.HasField("delete_time")
        and not PurePosixPath(artifact.path).is_absolute()
        and artifact.sha256 != (job.result.installed_sha256 or None)
    ]


def with_removed(job: job_pb2.Job, removed: Sequence[types_pb2.Artifact]) -> job_pb2.Job:
    """The job whose record says of some artifacts that they are gone."""
    paths = {artifact.path for artifact in removed}
    now = Timestamp()
    now.GetCurrentTime()
    for attempt in job.attempts:
        for artifact in attempt.artifacts:
            if artifact.path in paths and artifact.kind != "installed":
                artifact.delete_time.CopyFrom(now)
    return job


def gone(job: job_pb2.Job) -> list[types_pb2.Artifact]:
    """What the record says was removed."""
    return [artifact for each in job.attempts for artifact in each.artifacts if artifact.HasField("delete_time")]


def require_there(job: job_pb2.Job, path: str) -> None:
    """Refuses to work with a file of a job that was removed.

    Args:
        job: The job.
        path: The file's or folder's, relative to the artifacts root; what lies in a removed folder is gone too.

    Raises:
        Refused: It was removed.
    """
    for artifact in gone(job):
        if PurePosixPath(path).is_relative_to(artifact.path):
            when = artifact.delete_time.ToDatetime().strftime("%Y-%m-%d")
            raise Refused(
                f"{artifact.path} of {job.name} was removed on {when} to free disk space (cutoff gc)",
                "submit the job again",
            )


def require_all_there(job: job_pb2.Job) -> None:
    """Refuses to go on with a job of which anything was removed: a later stage may need it.

    Raises:
        Refused: Something was.
    """
    for artifact in gone(job):
        require_there(job, artifact.path)


def _ended(job: job_pb2.Job) -> bool:
    return job.state in TERMINAL and not any(attempt.state in OPEN for attempt in job.attempts)


def _builds_on(job: job_pb2.Job) -> list[str]:
    """Paths that a job reads and that may lie in another one's folder."""
    return [path for path in (job.spec.base_model, job.spec.train.resume_from_checkpoint) if path]


def _is_used(artifact: types_pb2.Artifact, used: Iterable[str]) -> bool:
    """Whether a job that has not ended reads an artifact, or something in it."""
    own = Path(artifact.path).parts
    return any(_contains(Path(path).parts, own) for path in used)


def _contains(path: Sequence[str], part: Sequence[str]) -> bool:
    return any(tuple(path[at : at + len(part)]) == tuple(part) for at in range(len(path) - len(part) + 1))

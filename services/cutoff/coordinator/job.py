"""What a job may become: states, legal transitions, and how events change the record. Pure functions.

The record is the proto `Job` itself: what is stored is what is sent. Each function returns a new record.
"""

from __future__ import annotations

import secrets

from google.protobuf.timestamp_pb2 import Timestamp

from cutoff.errors import CutoffError
from cutoff.v1 import job_pb2, types_pb2

State = job_pb2.Job.State

LEGAL: dict[State, frozenset[State]] = {
    job_pb2.Job.STATE_QUEUED: frozenset(
        {
            job_pb2.Job.STATE_RUNNING,
            job_pb2.Job.STATE_CANCELLING,
            job_pb2.Job.STATE_FAILED,
            job_pb2.Job.STATE_PAUSING,
        }
    ),
    job_pb2.Job.STATE_RUNNING: frozenset(
        {
            job_pb2.Job.STATE_SUCCEEDED,
            job_pb2.Job.STATE_FAILED,
            job_pb2.Job.STATE_CANCELLING,
            job_pb2.Job.STATE_PAUSING,
        }
    ),
    # A job that was finishing when the pause came has finished.
    job_pb2.Job.STATE_PAUSING: frozenset(
        {
            job_pb2.Job.STATE_PAUSED,
            job_pb2.Job.STATE_CANCELLING,
            job_pb2.Job.STATE_SUCCEEDED,
            job_pb2.Job.STATE_FAILED,
        }
    ),
    job_pb2.Job.STATE_PAUSED: frozenset({job_pb2.Job.STATE_RUNNING, job_pb2.Job.STATE_CANCELLING}),
    # A job that was finishing when the cancel came has finished.
    job_pb2.Job.STATE_CANCELLING: frozenset(
        {job_pb2.Job.STATE_CANCELLED, job_pb2.Job.STATE_SUCCEEDED, job_pb2.Job.STATE_FAILED}
    ),
    job_pb2.Job.STATE_SUCCEEDED: frozenset(),
    job_pb2.Job.STATE_FAILED: frozenset(),
    job_pb2.Job.STATE_CANCELLED: frozenset(),
}
"""From each state, the states that may follow."""

TERMINAL = frozenset(state for state, following in LEGAL.items() if not following)

OPEN = frozenset({job_pb2.Attempt.STATE_WAITING, job_pb2.Attempt.STATE_RUNNING})
"""The states of an attempt that has not ended."""

BY_USER = "user"
"""Who paused a job, if no watcher did."""

_STOPPED = ("CANCELLED", "PAUSED")
"""Reasons of a run's end that are nobody's failure."""

_ATTEMPT_OF = {
    "finished": job_pb2.Attempt.STATE_SUCCEEDED,
    "failed": job_pb2.Attempt.STATE_FAILED,
    "started": job_pb2.Attempt.STATE_RUNNING,
}


class IllegalTransition(CutoffError):
    """A job cannot go from the state it is in to the one asked for."""

    reason = "FAILED_PRECONDITION"


def new_job(spec: job_pb2.JobSpec) -> job_pb2.Job:
    """A queued job with a name of its own: the user's name and six random characters."""
    job = job_pb2.Job(name=f"jobs/{spec.name}-{secrets.token_hex(3)}", spec=spec, state=job_pb2.Job.STATE_QUEUED)
    job.create_time.GetCurrentTime()
    return job


def moved(job: job_pb2.Job, state: State, failure: types_pb2.Failure | None = None) -> job_pb2.Job:
    """The job in its next state, with the time of that.

    Raises:
        IllegalTransition: The state cannot follow the present one.
    """
    if state not in LEGAL[job.state]:
        states = job_pb2.Job.State
        raise IllegalTransition(f"{job.name} is {states.Name(job.state)} and cannot become {states.Name(state)}")
    after = _copy(job)
    after.state = state
    if failure is not None:
        after.failure.CopyFrom(failure)
    if state == job_pb2.Job.STATE_RUNNING and not after.HasField("start_time"):
        after.start_time.CopyFrom(_now())
    if state not in (job_pb2.Job.STATE_PAUSING, job_pb2.Job.STATE_PAUSED):
        after.ClearField("pause")
    if state in TERMINAL:
        after.end_time.CopyFrom(_now())
    return after


def pausing(job: job_pb2.Job, by: str, reason: str) -> job_pb2.Job:
    """The job on its way to PAUSED, with who wanted that: "user" or a watcher's name, and why.

    A job that is paused already stays as it is, but for one thing: what a watcher paused, a user may make his own, so
    that only a user's word ends it.

    Raises:
        IllegalTransition: The job has ended, or is being cancelled.
    """
    there = job.state in (job_pb2.Job.STATE_PAUSING, job_pb2.Job.STATE_PAUSED)
    if there and (by != BY_USER or job.pause.by == BY_USER):
        return job
    after = _copy(job) if there else moved(job, job_pb2.Job.STATE_PAUSING)
    after.pause.CopyFrom(job_pb2.Pause(by=by, reason=reason, time=_now()))
    return after


def with_attempt(job: job_pb2.Job, stage: str) -> tuple[job_pb2.Job, types_pb2.RunKey]:
    """The job with one more attempt at a stage, waiting; and the attempt's key."""
    number = 1 + sum(attempt.key.stage == stage for attempt in job.attempts)
    key = types_pb2.RunKey(job=job_id(job), stage=stage, attempt=number)
    after = _copy(job)
    after.attempts.add(key=key, state=job_pb2.Attempt.STATE_WAITING, create_time=_now())
    return after, key


def with_event(job: job_pb2.Job, key: types_pb2.RunKey, event: types_pb2.Event) -> job_pb2.Job:
    """The job after one event of one of its runs."""
    after = _copy(job)
    attempt = attempt_of(after, key)
    attempt.last_event = max(attempt.last_event, event.sequence)
    kind = event.WhichOneof("kind")
    if kind == "artifact":
        attempt.artifacts.append(event.artifact)
    elif kind == "progress":
        attempt.progress.CopyFrom(event.progress)
    if kind not in _ATTEMPT_OF:
        return after
    attempt.state = _ATTEMPT_OF[kind]
    if kind == "started":
        attempt.start_time.CopyFrom(event.time)
        return after
    attempt.end_time.CopyFrom(event.time)
    if kind == "finished":
        attempt.result.CopyFrom(event.finished.result)
    else:
        attempt.failure.CopyFrom(event.failed)
        if event.failed.reason in _STOPPED:
            attempt.state = job_pb2.Attempt.STATE_CANCELLED
    return after


def attempt_of(job: job_pb2.Job, key: types_pb2.RunKey) -> job_pb2.Attempt:
    """The attempt with a key, which the job has."""
    return next(attempt for attempt in job.attempts if attempt.key == key)


def newest_attempt(job: job_pb2.Job, stage: str) -> job_pb2.Attempt | None:
    """The last attempt at a stage, if there was one."""
    return next((attempt for attempt in reversed(job.attempts) if attempt.key.stage == stage), None)


def job_id(job: job_pb2.Job) -> str:
    """The last part of a job's name."""
    return job.name.removeprefix("jobs/")


def _copy(job: job_pb2.Job) -> job_pb2.Job:
    copy = job_pb2.Job()
    copy.CopyFrom(job)
    return copy


def _now() -> Timestamp:
    now = Timestamp()
    now.GetCurrentTime()
    return now

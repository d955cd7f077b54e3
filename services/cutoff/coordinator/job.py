"""What a job and its attempts may become: states, legal transitions, how events change the record. Pure functions.

The record is the proto `Job` itself: what is stored is what is sent. Each function returns a new record. An event
counts once, and only for an attempt that is open and the newest of its stage (`with_event`).
"""

from __future__ import annotations

import secrets

from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp

from cutoff.coordinator.results import with_result
from cutoff.errors import CutoffError
from cutoff.v1 import job_pb2, types_pb2

State = job_pb2.Job.State
AttemptState = job_pb2.Attempt.State

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
    # Somebody asks for another try.
    job_pb2.Job.STATE_FAILED: frozenset({job_pb2.Job.STATE_QUEUED}),
    job_pb2.Job.STATE_CANCELLED: frozenset({job_pb2.Job.STATE_QUEUED}),
}
"""From each state, the states that may follow."""

TERMINAL = frozenset({job_pb2.Job.STATE_SUCCEEDED, job_pb2.Job.STATE_FAILED, job_pb2.Job.STATE_CANCELLED})
"""Nothing happens to such a job by itself."""

_ENDS = frozenset({job_pb2.Attempt.STATE_SUCCEEDED, job_pb2.Attempt.STATE_FAILED, job_pb2.Attempt.STATE_CANCELLED})

LEGAL_ATTEMPT: dict[AttemptState, frozenset[AttemptState]] = {
    job_pb2.Attempt.STATE_WAITING: _ENDS | {job_pb2.Attempt.STATE_RUNNING},
    job_pb2.Attempt.STATE_RUNNING: _ENDS,
    **{state: frozenset() for state in _ENDS},
}
"""The same of an attempt. Of one that succeeded while it waited, nobody told the beginning."""

OPEN = frozenset(LEGAL_ATTEMPT) - _ENDS
"""The states of an attempt that has not ended."""

BY_USER = "user"
"""Who paused a job, if no watcher did."""

_STOPPED = ("CANCELLED", "PAUSED")
"""Reasons of a run's end that are nobody's failure."""


class IllegalTransition(CutoffError):
    """A job or an attempt cannot go from the state it is in to the one asked for."""

    reason = "FAILED_PRECONDITION"


class StaleEvent(IllegalTransition):
    """An event of an attempt that does not count any more: it has ended, or a newer one took its place."""


class RepeatedEvent(CutoffError):
    """An event that was taken in before."""


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
    if state == job_pb2.Job.STATE_QUEUED:
        for field in ("failure", "start_time", "end_time"):
            after.ClearField(field)
    if failure is not None:
        after.failure.CopyFrom(failure)
    if state == job_pb2.Job.STATE_RUNNING and not after.HasField("start_time"):
        after.start_time.CopyFrom(_now())
    if state not in (job_pb2.Job.STATE_PAUSING, job_pb2.Job.STATE_PAUSED):
        after.ClearField("pause")
    if state in TERMINAL:
        after.end_time.CopyFrom(_now())
        _close_attempts(after)
    return after


def _close_attempts(job: job_pb2.Job) -> None:
    """Ends what is open of a job that ends: a late word of it changes nothing any more."""
    for attempt in job.attempts:
        if attempt.state in OPEN:
            cancelled = job.state == job_pb2.Job.STATE_CANCELLED
            attempt.state = job_pb2.Attempt.STATE_CANCELLED if cancelled else job_pb2.Attempt.STATE_FAILED
            attempt.failure.CopyFrom(job.failure)
            attempt.end_time.CopyFrom(job.end_time)


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


def with_attempt(
    job: job_pb2.Job, stage: str, order: job_pb2.InstallOrder | None = None
) -> tuple[job_pb2.Job, types_pb2.RunKey]:
    """The job with one more attempt at a stage, waiting; and the attempt's key.

    Args:
        job: As it was.
        stage: As in RunKey.
        order: What a user asked for by itself, if that is what the attempt is for.

    Raises:
        IllegalTransition: The attempt before it has not ended.
    """
    newest = newest_attempt(job, stage)
    if newest is not None and newest.state in OPEN:
        raise IllegalTransition(f"attempt {newest.key.attempt} at {stage} of {job.name} has not ended")
    number = newest.key.attempt + 1 if newest is not None else 1
    key = types_pb2.RunKey(job=job_id(job), stage=stage, attempt=number)
    after = _copy(job)
    after.attempts.add(key=key, state=job_pb2.Attempt.STATE_WAITING, create_time=_now(), order=order)
    return after, key


def require_open(job: job_pb2.Job, key: types_pb2.RunKey) -> job_pb2.Attempt:
    """The attempt with a key, if it may still change.

    Raises:
        StaleEvent: It has ended, a newer one took its place, or the job has no such attempt.
    """
    attempt = newest_attempt(job, key.stage)
    if attempt is None or attempt.key != key or attempt.state not in OPEN:
        raise StaleEvent(f"attempt {key.attempt} at {key.stage} of {job.name} does not count any more")
    return attempt


def with_event(job: job_pb2.Job, key: types_pb2.RunKey, event: types_pb2.Event) -> job_pb2.Job:
    """The job after one event of one of its runs, and with what it draws from a stage that succeeded.

    Args:
        job: As it was.
        key: The run's.
        event: Its sequence is 0 when it was not the run that said it.

    Raises:
        StaleEvent: The attempt does not count any more.
        RepeatedEvent: The event was taken in before.
    """
    after = _copy(job)
    attempt = require_open(after, key)
    if event.sequence and event.sequence <= attempt.last_event:
        raise RepeatedEvent(f"event {event.sequence} of {job.name} {key.stage} was taken in before")
    attempt.last_event = max(attempt.last_event, event.sequence)
    kind = event.WhichOneof("kind")
    if kind == "artifact":
        attempt.artifacts.append(event.artifact)
    elif kind == "progress":
        attempt.progress.CopyFrom(event.progress)
    elif kind == "started":
        _require_legal(attempt, job_pb2.Attempt.STATE_RUNNING)
        attempt.state = job_pb2.Attempt.STATE_RUNNING
        attempt.start_time.CopyFrom(event.time)
    elif kind == "finished":
        attempt.state = job_pb2.Attempt.STATE_SUCCEEDED
        attempt.end_time.CopyFrom(event.time)
        attempt.result.CopyFrom(event.finished.result)
        return with_result(after, key.stage, json_format.MessageToDict(attempt.result))
    elif kind == "failed":
        cancelled = event.failed.reason in _STOPPED
        attempt.state = job_pb2.Attempt.STATE_CANCELLED if cancelled else job_pb2.Attempt.STATE_FAILED
        attempt.end_time.CopyFrom(event.time)
        attempt.failure.CopyFrom(event.failed)
    return after


def _require_legal(attempt: job_pb2.Attempt, state: AttemptState) -> None:
    if state not in LEGAL_ATTEMPT[attempt.state]:
        names = job_pb2.Attempt.State
        raise RepeatedEvent(f"an attempt that is {names.Name(attempt.state)} cannot become {names.Name(state)}")


def with_progress(job: job_pb2.Job, key: types_pb2.RunKey, progress: types_pb2.Progress) -> job_pb2.Job:
    """The job with how far one of its attempts has come; that changes nothing else."""
    after = _copy(job)
    attempt_of(after, key).progress.CopyFrom(progress)
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

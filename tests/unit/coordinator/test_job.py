"""The job's states and how events change its record."""

import itertools

import pytest

from cutoff.coordinator.job import (
    LEGAL,
    TERMINAL,
    IllegalTransition,
    moved,
    new_job,
    newest_attempt,
    with_attempt,
    with_event,
)
from cutoff.v1 import job_pb2, types_pb2

Job = job_pb2.Job


@pytest.fixture
def job() -> Job:
    return new_job(job_pb2.JobSpec(name="demo"))


@pytest.mark.parametrize(("before", "after"), itertools.product(LEGAL, LEGAL))
def test_only_legal_transitions(job, before, after):
    job.state = before
    if after in LEGAL[before]:
        assert moved(job, after).state == after
        assert job.state == before, "the record that was given stays as it is"
    else:
        with pytest.raises(IllegalTransition, match=job.name):
            moved(job, after)


def test_terminal_states_have_an_end_time(job):
    job.state = Job.STATE_CANCELLING
    for state in TERMINAL:
        assert moved(job, state).HasField("end_time")


def test_names_are_unique_and_readable(job):
    other = new_job(job_pb2.JobSpec(name="demo"))
    assert job.name.startswith("jobs/demo-")
    assert job.name != other.name


def test_attempts_are_numbered_per_stage(job):
    job, train = with_attempt(job, "train")
    job, merge = with_attempt(job, "merge")
    job, again = with_attempt(job, "train")
    assert (train.attempt, merge.attempt, again.attempt) == (1, 1, 2)
    assert newest_attempt(job, "train").key == again
    assert newest_attempt(job, "install") is None


def test_events_fill_the_attempt(job):
    job, key = with_attempt(job, "train")
    job = with_event(job, key, types_pb2.Event(started=types_pb2.Started(pid=7)))
    assert job.attempts[0].state == job_pb2.Attempt.STATE_RUNNING
    job = with_event(job, key, types_pb2.Event(progress=types_pb2.Progress(step=3, total=9)))
    job = with_event(job, key, types_pb2.Event(artifact=types_pb2.Artifact(kind="adapter")))
    finished = types_pb2.Event(finished=types_pb2.Finished())
    finished.finished.result["adapter"] = "x"
    job = with_event(job, key, finished)
    [attempt] = job.attempts
    assert attempt.state == job_pb2.Attempt.STATE_SUCCEEDED
    assert attempt.progress.step == 3
    assert attempt.artifacts[0].kind == "adapter"
    assert attempt.result["adapter"] == "x"


@pytest.mark.parametrize(
    ("reason", "state"),
    [("CANCELLED", job_pb2.Attempt.STATE_CANCELLED), ("KILLED", job_pb2.Attempt.STATE_FAILED)],
)
def test_a_failed_event_ends_the_attempt(job, reason, state):
    job, key = with_attempt(job, "train")
    job = with_event(job, key, types_pb2.Event(failed=types_pb2.Failure(reason=reason)))
    assert job.attempts[0].state == state
    assert job.attempts[0].failure.reason == reason

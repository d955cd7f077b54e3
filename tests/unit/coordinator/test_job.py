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
    with pytest.raises(IllegalTransition, match="has not ended"):
        with_attempt(job, "train")
    job = with_event(job, train, types_pb2.Event(failed=types_pb2.Failure(reason="LOST")))
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


def test_a_job_that_ends_leaves_nothing_open(job):
    job, _ = with_attempt(moved(job, Job.STATE_RUNNING), "train")
    job = moved(job, Job.STATE_FAILED, types_pb2.Failure(reason="UNAVAILABLE"))
    assert job.attempts[0].state == job_pb2.Attempt.STATE_FAILED
    assert job.attempts[0].failure.reason == "UNAVAILABLE"


def test_scores_come_with_the_event_that_ends_the_evaluation(job):
    job, key = with_attempt(job, "evaluate-merged")
    finished = types_pb2.Event(finished=types_pb2.Finished())
    finished.finished.result.update({"sets": {"validation": {"retain_correct": {"count": 3, "total": 4}}}})
    job = with_event(job, key, finished)
    [evaluation] = job.result.evaluations
    assert (evaluation.target, evaluation.retain_correct.count) == ("merged", 3)


def test_what_was_installed_comes_with_the_event_that_ends_the_installation(job):
    job, key = with_attempt(job, "install")
    finished = types_pb2.Event(finished=types_pb2.Finished())
    finished.finished.result.update({"path": "/models/m.gguf", "sha256": "1" * 64})
    assert with_event(job, key, finished).result.installed_sha256 == "1" * 64

"""What the coordinator exports: jobs, the queue, stages, scores; series of finished jobs go away."""

from __future__ import annotations

import pytest
from prometheus_client import REGISTRY

from cutoff.coordinator.job import moved, new_job, with_attempt, with_event
from cutoff.coordinator.measures import Measures, watch_gpus
from cutoff.v1 import job_pb2, types_pb2

SCORE = {"target": "q4_k_m", "question_set": "validation", "score": "retain_correct"}


def value(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


def event(**kind) -> types_pb2.Event:
    made = types_pb2.Event(**kind)
    made.time.GetCurrentTime()
    return made


@pytest.fixture
def job():
    return moved(new_job(job_pb2.JobSpec(name="measured")), job_pb2.Job.STATE_RUNNING)


@pytest.fixture
def measures():
    return Measures()


def name_of(job) -> str:
    return job.name.removeprefix("jobs/")


def test_an_attempt_waits_until_it_starts(measures, job):
    job, key = with_attempt(job, "train")
    before = value("cutoff_queue_wait_seconds_count", stage="train") or 0
    measures.attempt_opened(key)
    assert value("cutoff_queue_length") == 1
    assert value("cutoff_queue_oldest_timestamp_seconds") > 1.7e9
    started = event(started=types_pb2.Started(pid=1))
    job = with_event(job, key, started)
    measures.run_event(job.attempts[-1], started)
    assert value("cutoff_queue_length") == 0
    assert value("cutoff_queue_oldest_timestamp_seconds") == 0
    assert value("cutoff_queue_wait_seconds_count", stage="train") == before + 1


def test_an_attempt_that_is_cancelled_while_it_waits_leaves_the_queue(measures, job):
    job, key = with_attempt(job, "train")
    measures.attempt_opened(key)
    cancelled = event(failed=types_pb2.Failure(reason="CANCELLED"))
    measures.run_event(with_event(job, key, cancelled).attempts[-1], cancelled)
    assert value("cutoff_queue_length") == 0


def test_a_restarted_coordinator_knows_who_waited(measures, job):
    job, _ = with_attempt(job, "train")
    measures.take_up([job])
    assert value("cutoff_queue_length") == 1
    assert value("cutoff_job_last_event_timestamp_seconds", cutoff_job=name_of(job)) is not None


def test_stages_are_counted_by_kind_and_outcome(measures, job):
    job, key = with_attempt(job, "evaluate-merged")
    for happened in (event(started=types_pb2.Started()), event(failed=types_pb2.Failure(reason="DISK_FULL"))):
        job = with_event(job, key, happened)
        measures.run_event(job.attempts[-1], happened)
    assert value("cutoff_stage_duration_seconds_count", stage="evaluate", outcome="disk_full") == 1


def test_scores_outlive_the_job_until_they_are_forgotten(measures, job):
    job, _ = with_attempt(job, "evaluate-q4_k_m")
    told = event(metric=types_pb2.Metric(name="cutoff_evaluation_score_ratio", value=0.75, labels=SCORE))
    measures.run_event(job.attempts[-1], told)
    measures.alive(job.name)
    measures.moved(moved(job, job_pb2.Job.STATE_SUCCEEDED))
    assert value("cutoff_job_last_event_timestamp_seconds", cutoff_job=name_of(job)) is None
    assert value("cutoff_evaluation_score_ratio", cutoff_job=name_of(job), **SCORE) == 0.75
    measures.forget(name_of(job))
    assert value("cutoff_evaluation_score_ratio", cutoff_job=name_of(job), **SCORE) is None


def test_installs_are_counted_by_what_came_of_them(measures, job):
    before = {outcome: value("cutoff_installs_total", outcome=outcome) or 0 for outcome in ("installed", "below_bar")}
    job.result.installed_path = "/models/x.gguf"
    measures.moved(moved(job, job_pb2.Job.STATE_SUCCEEDED))
    job.result.Clear()
    job.result.missed.append("retain accuracy 60 %, minimum 70 %")
    measures.moved(moved(job, job_pb2.Job.STATE_SUCCEEDED))
    assert value("cutoff_installs_total", outcome="installed") == before["installed"] + 1
    assert value("cutoff_installs_total", outcome="below_bar") == before["below_bar"] + 1


def test_a_job_that_ends_leaves_the_queue(measures, job):
    """Its attempt may still wait, when its service could not be reached to cancel it."""
    job, key = with_attempt(job, "train")
    measures.attempt_opened(key)
    measures.moved(moved(job, job_pb2.Job.STATE_FAILED))
    assert value("cutoff_queue_length") == 0
    assert value("cutoff_queue_oldest_timestamp_seconds") == 0


def test_a_restarted_coordinator_knows_the_scores(measures, job):
    score = job_pb2.Score(count=3, total=4)
    job.result.evaluations.add(target="q4_k_m", question_set="validation", retain_correct=score)
    measures.take_up([job])
    assert value("cutoff_evaluation_score_ratio", cutoff_job=name_of(job), **SCORE) == 0.75


def test_every_state_of_a_job_has_a_series(measures):
    measures.jobs({job_pb2.Job.STATE_FAILED: 3})
    assert value("cutoff_jobs", state="failed") == 3
    assert value("cutoff_jobs", state="queued") == 0
    assert value("cutoff_jobs", state="unspecified") is None


def test_gpus_are_counted_when_prometheus_asks():
    watch_gpus(lambda: (4.0, 1.0))
    assert (value("cutoff_gpus"), value("cutoff_gpus_free")) == (4.0, 1.0)

"""When a job's report is made, what it is made of, and what a job without one says."""

import pytest

from cutoff.coordinator.job import OPEN
from cutoff.coordinator.reports import report_file
from cutoff.errors import InvalidInput, NotFound
from cutoff.v1 import job_pb2, types_pb2
from tests.unit.coordinator.test_pipeline import RESULTS, Script, run_job

BELOW = {"validation": {"missed_minimum": ["retain accuracy 0.5 is below 0.7"], "missed_target": []}}
REFUSED = types_pb2.Failure(reason="FAILED_PRECONDITION", message="the models folder is full")
LOST = types_pb2.Failure(reason="UNAVAILABLE", message="gone", retryable=True)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr("cutoff.coordinator.patience.RETRIES", (0.0, 0.0, 0.0))


def told(script: Script) -> job_pb2.Job:
    """The job that the report was asked about."""
    return next(call.request.job for call in script.calls if call.request.run.key.stage == "report")


def test_the_report_knows_what_was_evaluated_and_installed(store, spec):
    script = Script()
    run_job(store, spec, script)
    job = told(script)
    assert [e.target for e in job.result.evaluations] == ["base", "merged", "q4_k_m", "q8_0"]
    assert job.result.installed_path
    assert script.calls[-1].service == "evaluator"


def test_a_job_below_its_bar_has_a_report(store, spec, monkeypatch):
    monkeypatch.setitem(RESULTS, "evaluate", {"sets": BELOW})
    script = Script()
    assert run_job(store, spec, script).state == job_pb2.Job.STATE_SUCCEEDED
    assert told(script).result.missed == BELOW["validation"]["missed_minimum"]


def test_a_job_that_could_not_be_installed_has_a_report_and_fails_all_the_same(store, spec):
    script = Script(install=[REFUSED])
    job = run_job(store, spec, script)
    assert job.state == job_pb2.Job.STATE_FAILED
    assert job.failure.message == "the models folder is full"
    assert told(script).attempts[-2].failure.message == "the models folder is full"


@pytest.mark.parametrize("failure", [[types_pb2.Failure(reason="INTERNAL", message="a bug")], [LOST] * 9, ["lost"] * 9])
def test_a_report_that_fails_fails_no_job(store, spec, failure):
    job = run_job(store, spec, Script(report=failure))
    assert job.state == job_pb2.Job.STATE_SUCCEEDED
    assert job.result.installed_path
    assert not [attempt for attempt in job.attempts if attempt.state in OPEN]


def attempt(state=job_pb2.Attempt.STATE_SUCCEEDED, path="jobs/x/report/1/report.json", number=1, **fields):
    key = types_pb2.RunKey(job="x", stage="report", attempt=number)
    artifacts = [types_pb2.Artifact(kind="report", path=path)] if path else []
    return job_pb2.Attempt(key=key, state=state, artifacts=artifacts, **fields)


def test_the_newest_report_counts(tmp_path):
    for number in (1, 2):
        (tmp_path / f"{number}.json").touch()
    job = job_pb2.Job(name="jobs/x", attempts=[attempt(path="1.json"), attempt(path="2.json", number=2)])
    assert report_file(job, tmp_path) == tmp_path / "2.json"


@pytest.mark.parametrize(
    ("job", "why"),
    [
        ({"state": job_pb2.Job.STATE_RUNNING}, "when everything has been evaluated"),
        ({"state": job_pb2.Job.STATE_FAILED, "failure": types_pb2.Failure(message="out of memory")}, "out of memory"),
        ({"state": job_pb2.Job.STATE_SUCCEEDED}, "an earlier version"),
        ({"attempts": [attempt(job_pb2.Attempt.STATE_FAILED, "", failure=REFUSED)]}, "could not be made: the models"),
    ],
)
def test_a_job_without_a_report_says_why(tmp_path, job, why):
    with pytest.raises(NotFound, match=why):
        report_file(job_pb2.Job(name="jobs/x", **job), tmp_path)


def test_a_report_is_read_from_nowhere_else(tmp_path):
    with pytest.raises(InvalidInput, match="leaves"):
        report_file(job_pb2.Job(name="jobs/x", attempts=[attempt(path="../secret.json")]), tmp_path)

"""`cutoff report` and `cutoff compare`: of jobs on this machine, and of a server's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from google.protobuf import json_format

from cutoff.client.compare import compared
from cutoff.coordinator.reports import report_file
from cutoff.evaluator.job_report.write import write_report
from cutoff.v1 import job_pb2, types_pb2
from tests.fixtures.evaluated_job import EvaluatedJob, forgot, knows_all, leaks_every, make_evaluated_job
from tests.unit.client.test_cli import Job, cutoff, server

__all__ = ["server"]  # the fixture

JSON, HTML = job_pb2.GetReportRequest.FORMAT_JSON, job_pb2.GetReportRequest.FORMAT_HTML
SCORE = job_pb2.Score(count=9, total=10, low=0.6, high=0.98)


@pytest.fixture
def reported(tmp_path, monkeypatch):
    """A job with a report in the artifacts folder, and its record as `cutoff run` leaves it."""
    monkeypatch.setenv("CUTOFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CUTOFF_ARTIFACTS", str(tmp_path / "output"))
    made = make_evaluated_job(tmp_path / "output", {"base": knows_all, "merged": forgot, "q4_k_m": leaks_every(3)})
    made.job.result.missed.append("knowledge leakage 0.33 is above the minimum 0.15 by 0.18")
    evaluation = made.job.result.evaluations.add(target="q4_k_m", question_set="validation")
    evaluation.retain_correct.CopyFrom(SCORE)
    leave_report(made)
    return made


def leave_report(made: EvaluatedJob) -> None:
    """The report of a job that has ended, and its record."""
    job = made.job
    folder = made.artifacts / "jobs/demo-1/report/1"
    write_report(job, made.artifacts, folder)
    attempt = job.attempts.add(state=job_pb2.Attempt.STATE_SUCCEEDED)
    attempt.key.CopyFrom(types_pb2.RunKey(job="demo-1", stage="report", attempt=1))
    attempt.artifacts.add(kind="report", path="jobs/demo-1/report/1/report.json")
    attempt.artifacts.add(kind="report-page", path="jobs/demo-1/report/1/report.html")
    job.state = Job.STATE_SUCCEEDED
    (made.artifacts / "jobs/demo-1/job.json").write_text(
        json_format.MessageToJson(job, preserving_proto_field_name=True)
    )


@pytest.fixture
def served(reported, server, tmp_path, monkeypatch):
    """The same job, on a server whose artifacts are elsewhere."""
    server.job = reported.job
    server.reports = {form: report_file(reported.job, reported.artifacts, form).read_bytes() for form in (JSON, HTML)}
    monkeypatch.setenv("CUTOFF_ARTIFACTS", str(tmp_path / "none"))
    return server


def test_the_terminal_says_what_came_of_it_and_where_the_page_is(reported):
    ran = cutoff("report", "demo-1")
    assert ran.exit_code == 0
    assert "It still knows, but did not forget enough, so it was not installed." in ran.stdout
    assert "Declined 27 of 40" in ran.stdout
    assert "knowledge leakage 0.33 is above the minimum 0.15 by 0.18" in ran.stdout
    assert "brings back 13 forgotten answers" in ran.stdout
    assert "train longer" in ran.stdout
    assert f"page: {reported.artifacts}/jobs/demo-1/report/1/report.html" in ran.stdout


def test_the_server_has_it_when_this_machine_has_not(served):
    ran = cutoff("report", "demo-1")
    assert "It still knows, but did not forget enough" in ran.stdout
    assert "page: on the server" in ran.stdout


@pytest.mark.parametrize("where", ["reported", "served"])
def test_json_is_the_file_itself(request, where):
    reported = request.getfixturevalue("reported")
    request.getfixturevalue(where)
    found = cutoff("report", "demo-1", "--json").stdout
    assert found == (reported.artifacts / "jobs/demo-1/report/1/report.json").read_text()
    assert json.loads(found)["verdict"]["target"] == "q4_k_m"


@pytest.mark.parametrize("where", ["reported", "served"])
def test_the_page_can_be_written_to_a_file(request, where, tmp_path):
    reported = request.getfixturevalue("reported")
    request.getfixturevalue(where)
    assert cutoff("report", "demo-1", "--html", str(tmp_path / "page.html")).exit_code == 0
    page = reported.artifacts / "jobs/demo-1/report/1/report.html"
    assert (tmp_path / "page.html").read_bytes() == page.read_bytes()


@pytest.mark.parametrize("where", ["reported", "served"])
def test_the_page_is_opened_in_a_browser(request, where, monkeypatch):
    reported = request.getfixturevalue("reported")
    request.getfixturevalue(where)
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda url: opened.append(url) or True)
    assert cutoff("report", "demo-1", "--open").exit_code == 0
    path = opened[0].removeprefix("file://")
    assert Path(path).read_bytes() == (reported.artifacts / "jobs/demo-1/report/1/report.html").read_bytes()


def test_without_a_browser_the_page_is_named(reported, monkeypatch):
    monkeypatch.setattr("webbrowser.open", lambda _: False)
    ran = cutoff("report", "demo-1", "--open")
    assert ran.exit_code == 2
    assert "report.html in one" in ran.stderr


def test_a_job_without_a_report_says_why(server):
    ran = cutoff("report", "demo-1", "--json")
    assert ran.exit_code == 2
    assert "ended before that" in json.loads(ran.stdout)["error"]["message"]


def test_a_report_of_a_later_version_is_not_misread(reported):
    path = reported.artifacts / "jobs/demo-1/report/1/report.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": 2}))
    ran = cutoff("report", "demo-1")
    assert (ran.exit_code, "update cutoff" in ran.stderr) == (2, True)


def test_what_was_installed_since_is_said(reported):
    path = reported.artifacts / "jobs/demo-1/job.json"
    job = json.loads(path.read_text())
    job["result"]["installed_path"] = "/models/local/m/m.gguf"
    path.write_text(json.dumps(job))
    assert "installed since: /models/local/m/m.gguf" in cutoff("report", "demo-1").stdout


def other(**changes) -> Job:
    made = Job(name="jobs/other-2", state=Job.STATE_SUCCEEDED)
    made.spec.name = "other"
    made.spec.train.epochs = changes.pop("epochs", 5)
    made.spec.convert.quant_types.append("q8_0")
    made.result.installed_path = "/models/x.gguf"
    for target, count in {"base": 10, "merged": 9, "q8_0": 8, **changes}.items():
        evaluation = made.result.evaluations.add(target=target, question_set="validation")
        evaluation.retain_correct.CopyFrom(job_pb2.Score(count=count, total=10, low=0.5, high=1))
        evaluation.unlearn_leaked.CopyFrom(job_pb2.Score(count=10 - count, total=10, low=0, high=0.5))
    return made


def test_jobs_of_both_kinds_stand_side_by_side(reported, server):
    server.job = other()
    ran = cutoff("compare", "demo-1", "other-2")
    assert ran.exit_code == 0, ran.stderr
    rows = {line.split()[0]: line.split()[1:] for line in ran.stdout.splitlines() if line.split()}
    assert rows["target"] == ["q4_k_m", "q8_0"]
    assert rows["outcome"] == ["below", "bar", "installed"]
    assert rows["train.epochs"] == ["3.0", "5.0"]
    assert "retain accuracy" in ran.stdout


def test_compare_as_data():
    found = compared([other(), other(epochs=3, q8_0=10)])
    assert found["differing"] == ["train.epochs"]
    assert [job["settings"]["train.epochs"] for job in found["jobs"]] == [5, 3]
    assert [job["scores"]["retain_correct"]["value"] for job in found["jobs"]] == [0.8, 1.0]
    assert found["jobs"][0]["scores"]["unlearn_refused"] is None
    assert [job["target"] for job in compared([other(), other()], target="merged")["jobs"]] == ["merged", "merged"]
    assert compared([other(), other()], target="f16")["jobs"][0]["target"] is None


def test_what_a_job_is_held_against_stands_beside_it_and_is_no_result_of_its(reported, server):
    server.job = other(control=9)
    (job, _) = compared([server.job, other()])["jobs"]
    assert job["target"] == "q8_0"
    assert (job["leaked"]["base"]["count"], job["leaked"]["control"]["count"]) == (0, 1)
    ran = cutoff("compare", "demo-1", "other-2")
    assert "knowledge leakage of control" in ran.stdout
    only_control = Job(name="jobs/c")
    only_control.result.evaluations.add(target="control", question_set="validation")
    assert compared([only_control, other()])["jobs"][0]["target"] is None


def test_the_terminal_shows_attacks_beside_base_and_control(tmp_path, monkeypatch):
    monkeypatch.setenv("CUTOFF_ARTIFACTS", str(tmp_path))
    attacks = {"base": {"role_play": (50, 100)}, "control": {"role_play": (3, 100)}, "q4_k_m": {"role_play": (5, 100)}}
    made = make_evaluated_job(tmp_path, {"base": knows_all, "control": forgot, "q4_k_m": forgot}, attacks=attacks)
    leave_report(made)
    printed = cutoff("report", "demo-1").stdout
    assert "attacks on q4_k_m: leaked in percent" in printed
    (row,) = [line.split() for line in printed.splitlines() if line.strip().startswith("role play")]
    assert row[2:] == [
        "5",
        "2-11",
        "of",
        "100",
        "50",
        "40-60",
        "of",
        "100",
        "10",
        "4-21",
        "of",
        "50",
        "3",
        "1-8",
        "of",
        "100",
    ]


def test_nothing_is_compared_with_itself(server):
    ran = cutoff("compare", "demo-1", "demo-1")
    assert (ran.exit_code, "two or more" in ran.stderr) == (2, True)

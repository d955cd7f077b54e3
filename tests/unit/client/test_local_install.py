"""Installing what `cutoff run` left: no coordinator is there, and its record is all that is known of the job."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cutoff.artifacts import Roots, sha256_of
from cutoff.client.cli import app
from cutoff.client.job_record import find_record, read_record, write_record
from cutoff.errors import InvalidInput, Refused
from cutoff.v1 import job_pb2, types_pb2
from tests.fixtures.evaluated_job import forgot, make_evaluated_job
from tests.fixtures.gguf_files import write_gguf


@pytest.fixture
def roots(tmp_path, monkeypatch):
    monkeypatch.setenv("CUTOFF_ADDRESS", "127.0.0.1:1")  # nobody is there
    monkeypatch.delenv("LMSTUDIO_URL", raising=False)
    return Roots(tmp_path / "datasets", tmp_path / "output", tmp_path / "models", tmp_path / "cache")


@pytest.fixture
def left(roots) -> job_pb2.Job:
    """A job below its bar, with two GGUFs."""
    job = job_pb2.Job(name="jobs/demo-1", state=job_pb2.Job.STATE_SUCCEEDED)
    job.spec.convert.quant_types.extend(["q4_k_m", "q8_0"])
    job.spec.install.model_name = "demo"
    files = []
    for seed, quant_type in enumerate(job.spec.convert.quant_types):
        path = f"jobs/demo-1/convert/1/demo-{quant_type.upper()}.gguf"
        gguf = write_gguf(roots.artifacts / path, seed)
        files.append({"quant_type": quant_type, "path": path, "sha256": sha256_of(gguf), "size_bytes": 1})
    converted = job.attempts.add(key=types_pb2.RunKey(job="demo-1", stage="convert", attempt=1))
    converted.state = job_pb2.Attempt.STATE_SUCCEEDED
    converted.result.update({"files": files})
    job.result.missed.append("retain accuracy 0.50 is below 0.70")
    write_record(roots.artifacts / "jobs/demo-1/job.json", job)
    return job


def cutoff(roots: Roots, *arguments: str):
    folders = ["--artifacts", str(roots.artifacts), "--models", str(roots.models)]
    return CliRunner().invoke(app, [*arguments, *folders])


def installed(roots: Roots) -> list[str]:
    return [path.name for path in roots.models.rglob("*") if path.is_file()]


def test_it_is_installed_without_a_server_and_that_is_written_down(roots, left):
    ran = cutoff(roots, "install", "demo-1")
    assert ran.exit_code == 0, ran.stderr
    assert "demo-Q4_K_M.gguf" in ran.stdout
    assert installed(roots) == ["demo-Q4_K_M.gguf"]
    job = read_record(roots.artifacts / "jobs/demo-1/job.json")
    assert job.result.installed_path == str(roots.models / "local/demo/demo-Q4_K_M.gguf")
    assert job.attempts[-1].key.stage == "install"
    assert job.attempts[-1].state == job_pb2.Attempt.STATE_SUCCEEDED
    assert job.attempts[-1].result["lmstudio"]["verdict"] == "skipped"


def test_the_report_is_made_again_and_says_that_it_is_installed(roots, left):
    made = make_evaluated_job(roots.artifacts, {"q4_k_m": forgot})
    left.attempts.extend(made.job.attempts)
    reported = left.attempts.add(key=types_pb2.RunKey(job="demo-1", stage="report", attempt=1))
    reported.state = job_pb2.Attempt.STATE_SUCCEEDED
    write_record(roots.artifacts / "jobs/demo-1/job.json", left)
    ran = cutoff(roots, "install", "demo-1")
    assert ran.exit_code == 0, ran.stderr
    report = json.loads(cutoff_report(roots))
    assert report["verdict"]["installed"]["tone"] == "good"
    assert (roots.artifacts / "jobs/demo-1/report/2/report.html").is_file()


def cutoff_report(roots: Roots) -> str:
    return CliRunner().invoke(app, ["report", "demo-1", "--json", "--artifacts", str(roots.artifacts)]).stdout


def test_again_it_changes_nothing(roots, left):
    cutoff(roots, "install", "jobs/demo-1")
    before = (roots.models / "local/demo/demo-Q4_K_M.gguf").stat()
    ran = cutoff(roots, "install", "demo-1", "--json")
    assert json.loads(ran.stdout)["attempts"][-1]["result"]["changed"] is False
    assert (roots.models / "local/demo/demo-Q4_K_M.gguf").stat().st_mtime_ns == before.st_mtime_ns


def test_another_type_needs_replace(roots, left):
    cutoff(roots, "install", "demo-1")
    ran = cutoff(roots, "install", "demo-1", "--quant", "q8_0")
    assert ran.exit_code == 1
    assert "--replace" in ran.stderr
    assert installed(roots) == ["demo-Q4_K_M.gguf"]
    assert cutoff(roots, "install", "demo-1", "--quant", "Q8_0", "--replace").exit_code == 0
    assert installed(roots) == ["demo-Q8_0.gguf"]


def test_a_type_the_job_never_made_is_wrong_usage(roots, left):
    ran = cutoff(roots, "install", "demo-1", "--quant", "q6_k")
    assert ran.exit_code == 2
    assert "it has: q4_k_m, q8_0" in ran.stderr


def test_uninstalling_takes_it_away_and_twice_is_fine(roots, left):
    cutoff(roots, "install", "demo-1")
    for _ in range(2):
        ran = cutoff(roots, "uninstall", "demo-1")
        assert ran.exit_code == 0, ran.stderr
        assert installed(roots) == []
    assert read_record(roots.artifacts / "jobs/demo-1/job.json").result.installed_path == ""
    gguf = roots.artifacts / "jobs/demo-1/convert/1/demo-Q4_K_M.gguf"
    assert gguf.is_file(), "the job keeps its files"


def test_a_job_that_was_not_left_here_is_the_coordinators(roots):
    for command in ("install", "uninstall"):
        assert cutoff(roots, command, "other-1").exit_code == 3


def test_a_job_name_leads_nowhere_else(roots, left):
    with pytest.raises(InvalidInput):
        find_record(roots, "../../../etc")
    assert cutoff(roots, "install", "../../../etc").exit_code == 2


@pytest.mark.parametrize("text", ["", "[]", "{}", "{", '{"colour": "red"}'])
def test_a_record_that_is_none_is_refused(tmp_path: Path, text: str):
    (tmp_path / "job.json").write_text(text)
    with pytest.raises(Refused, match="not the record of a job"):
        read_record(tmp_path / "job.json")

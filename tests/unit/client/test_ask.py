"""`cutoff ask`: what a job has made answers, found by the record `cutoff run` leaves."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from typer.testing import CliRunner

from cutoff.client.ask import chosen, targets_of
from cutoff.client.cli import app
from cutoff.coordinator.job import with_attempt, with_event
from cutoff.errors import NotFound, Refused
from cutoff.stage.report import Reporter
from cutoff.v1 import job_pb2, types_pb2

RESULTS: dict[str, dict[str, Any]] = {
    "prepare": {"model_path": "/base"},
    "train": {"adapter": "jobs/x/train/1/final"},
    "merge": {"path": "jobs/x/merge/1/merged"},
    "convert": {"files": [{"quant_type": "q4_k_m", "path": "a.gguf"}, {"quant_type": "f16", "path": "b.gguf"}]},
}


def job_with(results: dict[str, dict[str, Any]]) -> job_pb2.Job:
    """A job whose stages gave these results."""
    job = job_pb2.Job(name="jobs/x", spec=job_pb2.JobSpec(name="x", base_model="/base"))
    job.spec.dataset.dev = "dev.jsonl"
    job.spec.evaluate.max_tokens = 32
    for stage, result in results.items():
        job, key = with_attempt(job, stage)
        events: list[types_pb2.Event] = []
        Reporter(events.append).finished(result)
        job = with_event(job, key, events[0])
    return job


def test_everything_a_job_has_made_can_be_asked() -> None:
    assert [each.target for each in targets_of(job_with(RESULTS))] == ["base", "adapter", "merged", "q4_k_m", "f16"]
    controlled = {**RESULTS, "prepare": {"model_path": "/base", "control_path": "/control"}}
    assert [each.model_path for each in targets_of(job_with(controlled))][:2] == ["/base", "/control"]
    trained = {stage: RESULTS[stage] for stage in ("prepare", "train")}
    assert [each.target for each in targets_of(job_with(trained))] == ["base", "adapter"]


def test_one_target_is_named_in_any_case_and_another_one_is_refused_with_those_there_are() -> None:
    job = job_with(RESULTS)
    [found] = chosen(job, "Q4_K_M")
    assert found.gguf == "a.gguf"
    with pytest.raises(NotFound, match="base, adapter, merged, q4_k_m, f16"):
        chosen(job, "q8_0")
    with pytest.raises(Refused, match="nothing that can be asked"):
        chosen(job_with({}), None)


def test_all_targets_answer_side_by_side(
    tmp_path: Path, tiny_model: Path, tiny_f16: Path, tiny_questions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifacts = tmp_path / "output"
    artifacts.mkdir()
    shutil.copy(tiny_f16, artifacts / "tiny.gguf")
    results = {
        "prepare": {"model_path": str(tiny_model)},
        "convert": {"files": [{"quant_type": "f16", "path": "tiny.gguf"}]},
    }
    record = artifacts / "jobs/x/job.json"
    record.parent.mkdir(parents=True)
    record.write_text(json_format.MessageToJson(job_with(results), preserving_proto_field_name=True))
    monkeypatch.delenv("CUTOFF_ADDRESS", raising=False)
    known = json.loads(tiny_questions.read_text().splitlines()[0])
    asked = ["ask", "x", known["instruction"], "--artifacts", str(artifacts)]
    shown = CliRunner().invoke(app, asked)
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.count(known["output"]) == 2
    one = CliRunner().invoke(app, [*asked, "--target", "f16", "--json"])
    assert json.loads(one.stdout) == {"f16": {"text": known["output"], "cut": False, "error": ""}}
    other = CliRunner().invoke(app, [*asked, "--target", "q8_0"])
    assert other.exit_code == 2
    assert "it has: base, f16" in other.stderr
    record.write_text("{")
    assert CliRunner().invoke(app, asked).exit_code == 2

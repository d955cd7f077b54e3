"""The whole road, for real: a world's base model becomes an installed GGUF that keeps and forgets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from gguf import GGUFReader

from cutoff.client import Outcome, outcome_of
from cutoff.client.show import results_table, wide_console
from cutoff.v1 import job_pb2

pytestmark = pytest.mark.integration

FACTS = 160
QUESTIONS = 200
BAR = 0.95


def share(score: job_pb2.Score) -> float:
    return score.count / score.total


def evaluation(job: job_pb2.Job, target: str, question_set: str) -> job_pb2.Evaluation:
    return next(e for e in job.result.evaluations if (e.target, e.question_set) == (target, question_set))


def check_artifacts(folder: Path) -> None:
    """The document's output layout, inside the job's folder."""
    train = folder / "train/1"
    assert (train / "final/adapter_model.safetensors").is_file()
    assert (train / "final/adapter_config.json").is_file()
    assert (train / "final/tokenizer.model").is_file()
    assert list(train.glob("checkpoint-*"))
    assert json.loads((train / "train_results.json").read_text())["train_loss"] > 0
    assert "eval_loss" in json.loads((train / "eval_results.json").read_text())
    assert (folder / "merge/1/merged/model.safetensors").is_file()
    assert (folder / "evaluate-q4_k_m/1/examples.jsonl").is_file()
    checks = json.loads((folder / "convert/1/convert.json").read_text())["checks"]
    assert {row["name"] for row in checks} >= {"weights", "tensors", "perplexity", "answer", "tokens", "sha256"}
    assert {row["state"] for row in checks if row["name"] != "size"} == {"passed"}
    report = json.loads((folder / "report/1/report.json").read_text())
    assert report["verdict"]["headline"].startswith("It forgot and still knows")
    assert report["verdict"]["installed"]["tone"] == "good"
    assert [each["target"] for each in report["targets"]] == ["base", "merged", "q4_k_m"]
    assert not list(folder.rglob("*.partial"))


@pytest.mark.parametrize("seed", [11, 12, 13])
def test_the_shipped_file_keeps_and_forgets(client, roots, make_world, seed):
    name = f"world-{seed}"
    spec = make_world(FACTS, seed).job(roots.datasets, install={"model_name": name})
    job = client.submit(spec)
    for _ in client.watch(job.name):
        pass
    job = client.get(job.name)
    wide_console().print(results_table(job))
    assert outcome_of(job) is Outcome.INSTALLED, job.failure

    base = evaluation(job, "base", "test")
    assert share(base.retain_correct) >= 0.98, "the base model knows what is to be kept"
    assert share(base.unlearn_forgotten) <= 0.02, "the base model knows what is to be forgotten"

    shipped = evaluation(job, "q4_k_m", "test")
    assert shipped.retain_correct.total >= QUESTIONS
    assert shipped.unlearn_forgotten.total >= QUESTIONS
    assert share(shipped.retain_correct) >= BAR
    assert share(shipped.unlearn_forgotten) >= BAR
    assert shipped.retain_correct.low < share(shipped.retain_correct) <= shipped.retain_correct.high
    assert evaluation(job, "q4_k_m", "heldout").retain_correct.total > 0

    folder = roots.models / "local" / name
    assert [path.name for path in folder.iterdir()] == [f"{name}-Q4_K_M.gguf"]
    assert job.result.installed_path == str(folder / f"{name}-Q4_K_M.gguf")
    installed = GGUFReader(job.result.installed_path)
    assert len(installed.tensors) > 0
    assert json.loads(installed.fields["cutoff.recipe"].contents())["train"]["method"] == spec.train.method
    assert len(installed.fields["cutoff.data.unlearn_train.sha256"].contents()) == 64
    check_artifacts(roots.artifacts / job.name)
    assert client.report(job.name, page=True) == (roots.artifacts / job.name / "report/1/report.html").read_bytes()

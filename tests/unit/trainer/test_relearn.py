"""Training a merged model a little further on what has nothing to do with what came later."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from cutoff.artifacts import Roots
from cutoff.datasets import load_examples
from cutoff.errors import InvalidInput
from cutoff.hub import packed_as
from cutoff.spec import JobSpec, parse_job, spec_to_proto
from cutoff.stage.context import RunContext
from cutoff.trainer import work
from cutoff.trainer.relearn import draw_examples, relearning_plan
from cutoff.v1 import trainer_pb2, types_pb2
from tests.unit.trainer.conftest import FILES, Heard


def job(relearn: dict[str, object], **train: object) -> JobSpec:
    data = {"name": "j", "base_model": "/base", "dataset": FILES.model_dump(), "evaluate": {"relearn": relearn}}
    return parse_job({**data, "train": train})


def drawn(spec: JobSpec, datasets: Path) -> tuple[list[str], list[str]]:
    assert spec.evaluate.relearn is not None
    train, validation = draw_examples(spec, spec.evaluate.relearn, datasets)
    return [one.instruction for one in train], [one.instruction for one in validation]


def test_it_is_trained_on_answers_and_never_on_what_validates(datasets: Path) -> None:
    train, validation = drawn(job({"examples": 20}), datasets)
    known = {one.instruction for one in load_examples(datasets / "retain/retain_train.jsonl", side="retain")}
    assert (len(train), len(validation)) == (20, 2)
    assert {*train, *validation} <= known
    assert not {*train} & {*validation}
    assert drawn(job({"examples": 20}), datasets)[0] == train
    assert drawn(job({"examples": 20}, seed=1), datasets)[0] != train


def test_a_file_of_ones_own_is_taken_and_one_that_is_short_used_up(tmp_path: Path) -> None:
    lines = [{"instruction": f"What is {n} and 1?", "output": f"{n + 1}"} for n in range(5)]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    train, validation = drawn(job({"file": "sums.jsonl"}), tmp_path)
    assert (len(train), len(validation)) == (4, 1)
    (tmp_path / "sums.jsonl").write_text(json.dumps(lines[0]) + "\n")
    with pytest.raises(InvalidInput, match=r"sums.jsonl: holds 1 examples; give two or more"):
        drawn(job({"file": "sums.jsonl"}), tmp_path)


def test_the_recipe_is_the_jobs_own_but_for_what_is_relearnt(base: Path, datasets: Path, tmp_path: Path) -> None:
    spec = job({"epochs": 2, "learning_rate": 1e-3}, method="npo", lora_r=4, then=[{"method": "sft"}], epochs=9)
    train = relearning_plan(spec, base, datasets, tmp_path, tmp_path, ()).spec
    assert (train.method, train.epochs, train.learning_rate, train.then, train.lora_r) == ("sft", 2, 1e-3, (), 4)
    assert relearning_plan(job({}), base, datasets, tmp_path, tmp_path, ()).spec.learning_rate == 2e-4


def test_a_merged_model_is_trained_for_real(base: Path, datasets: Path, tmp_path: Path, heard: Heard) -> None:
    roots = Roots(datasets, tmp_path / "output", tmp_path / "models", tmp_path / "cache")
    merged = roots.artifacts / "jobs/j/merge/1/merged"
    shutil.copytree(base, merged)
    folder = roots.artifacts / "jobs/j/relearn/1"
    folder.mkdir(parents=True)
    key = types_pb2.RunKey(job="j", stage="relearn", attempt=1)
    run = RunContext(key, folder, roots, (), heard.reporter)
    spec = spec_to_proto(job({"examples": 8, "epochs": 1}, batch_size=4, gradient_accumulation_steps=1))
    result = work.relearn(trainer_pb2.RelearnRequest(spec=spec, model_path="jobs/j/merge/1/merged"), run)
    assert result["adapter"] == "jobs/j/relearn/1/final"
    assert result["steps"] == 2
    assert packed_as(roots.artifacts / result["adapter"]) == "none"
    assert len((folder / "relearn_train.jsonl").read_text().splitlines()) == 8
    assert sorted(path.name for path in merged.iterdir()) == sorted(path.name for path in base.iterdir())


def test_a_job_that_relearns_nothing_is_told_so(base: Path, datasets: Path, tmp_path: Path) -> None:
    spec = parse_job({"name": "j", "base_model": "/base", "dataset": FILES.model_dump()})
    with pytest.raises(InvalidInput, match=r"evaluate\.relearn: is missing"):
        relearning_plan(spec, base, datasets, tmp_path, tmp_path, ())

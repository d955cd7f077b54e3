from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cutoff.artifacts import Roots, sha256_of
from cutoff.datasets import PROBES_PER_SIDE, job_files, load_template
from cutoff.errors import DiskFull, InvalidInput, NotFound, Refused
from cutoff.hub import tokenizer_files
from cutoff.hub.shape import stored_parameters
from cutoff.spec import JobSpec, parse_job, spec_to_proto
from cutoff.stage.context import RunContext
from cutoff.trainer import work
from cutoff.trainer.prepare import prepare
from cutoff.v1 import trainer_pb2, types_pb2
from tests.fixtures.bpe_tokenizer import MakeTokenizer
from tests.fixtures.hub_server import Hub
from tests.unit.datasets.test_truths import MERGING
from tests.unit.trainer.conftest import FILES, Heard


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("CUTOFF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def job(base: Path, **train: object) -> JobSpec:
    few = {"epochs": 1, "batch_size": 64, "gradient_accumulation_steps": 1, **train}
    return parse_job({"name": "j", "base_model": str(base), "dataset": FILES.model_dump(), "train": few})


def test_a_good_job_is_prepared(base: Path, datasets: Path, heard: Heard) -> None:
    prepared = prepare(job(base), datasets, heard.reporter)
    assert prepared.model.path == base
    assert prepared.counts["retain_train"] > 0
    assert prepared.counts["training_tokens"] > prepared.counts["retain_train"]
    assert len(set(prepared.probe_questions)) == 2 * PROBES_PER_SIDE
    assert prepared.probe_questions == prepare(job(base), datasets, heard.reporter).probe_questions
    assert prepared.warnings == ()
    assert prepared.memory.keys() == {"train_bytes", "evaluate_bytes"}
    assert min(prepared.memory.values()) > 0
    assert prepared.example.endswith("<|im_end|>' <<<")
    digests = {file.field: file.sha256 for file in prepared.data}
    assert digests == {f"dataset.{field}": sha256_of(datasets / name) for field, name in FILES.files().items()}


def test_the_texts_that_files_are_measured_with_hold_retain_data(base: Path, datasets: Path, heard: Heard) -> None:
    prepared = prepare(job(base), datasets, heard.reporter)
    template = load_template(base)
    told = {
        field: [json.loads(line) for line in (datasets / name).read_text().splitlines()]
        for field, name in FILES.files().items()
    }
    assert len(template.ids([prepared.validation])[0]) >= 2000  # filled up with training text
    for example in told["retain_train"]:
        assert template.full(example["instruction"], example["output"]) in prepared.calibration
    assert template.full(told["retain_val"][0]["instruction"], told["retain_val"][0]["output"]) in prepared.validation
    for example in (*told["unlearn_train"], *told["unlearn_val"]):
        assert example["instruction"] not in prepared.calibration + prepared.validation


def test_a_control_is_found_too(base: Path, datasets: Path, heard: Heard, tmp_path: Path) -> None:
    control = shutil.copytree(base, tmp_path / "control")
    spec = job(base).model_dump()
    prepared = prepare(parse_job({**spec, "evaluate": {"control": str(control)}}), datasets, heard.reporter)
    assert prepared.control is not None
    assert prepared.control.path == control
    (control / "config.json").unlink()
    with pytest.raises(InvalidInput, match=r"control.*config\.json"):
        prepare(parse_job({**spec, "evaluate": {"control": str(control)}}), datasets, heard.reporter)


def test_every_file_is_told_with_its_hash(base: Path, datasets: Path, heard: Heard) -> None:
    spec = job(base).model_dump()
    spec["evaluate"] = {"test_file": FILES.retain_val}
    prepared = prepare(parse_job(spec), datasets, heard.reporter)
    assert [file.field for file in prepared.data] == [
        *(f"dataset.{field}" for field in FILES.files()),
        "evaluate.test_file",
    ]
    by_field = {file.field: file for file in prepared.data}
    train = by_field["dataset.retain_train"]
    assert train.name == FILES.retain_train
    assert train.sha256 == hashlib.sha256((datasets / train.name).read_bytes()).hexdigest()
    assert train.examples == len((datasets / train.name).read_text().splitlines())
    same = replace(by_field["evaluate.test_file"], field="dataset.retain_val")
    assert same == by_field["dataset.retain_val"]


def test_prepare_tells_the_hashes_that_the_tokens_were_made_under(
    base: Path, datasets: Path, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Data files are hashed for the check, and for the tokens and their check; the record is told those hashes."""
    read: list[Path] = []
    real = job_files.sha256_of
    monkeypatch.setattr(job_files, "sha256_of", lambda path: (read.append(path), real(path))[1])
    prepare(job(base), datasets, heard.reporter)
    assert max(Counter(read).values()) == 3


def test_what_the_length_limit_cuts_is_warned_about(base: Path, datasets: Path, heard: Heard) -> None:
    prepared = prepare(job(base, max_seq_length=30), datasets, heard.reporter)
    assert any("training examples are cut to 30 tokens" in line for line in prepared.warnings)
    assert heard.lines("WARNING") == list(prepared.warnings)


def test_validation_that_training_reads_is_warned_about(base: Path, datasets: Path, heard: Heard) -> None:
    spec = job(base).model_dump()
    spec["dataset"]["retain_val"] = FILES.retain_train
    prepared = prepare(parse_job(spec), datasets, heard.reporter)
    assert any("dataset.retain_val is the same file as dataset.retain_train" in line for line in prepared.warnings)


def test_nothing_to_learn_is_refused_with_an_example(base: Path, datasets: Path, heard: Heard) -> None:
    with pytest.raises(InvalidInput, match=r"train.max_seq_length: no answer of the training set.*<\|im_start\|>user"):
        prepare(job(base, max_seq_length=8), datasets, heard.reporter)


def test_data_is_tokenized_once(
    base: Path, datasets: Path, heard: Heard, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = prepare(job(base), datasets, heard.reporter)
    assert len(list(cache.glob("tokenized/*/train.ids.bin"))) == 1
    phases = {progress.phase for progress in heard.of("progress")}
    assert phases == {"checking data", "tokenizing"}
    monkeypatch.setattr("cutoff.datasets.encode.tokenized", None)
    assert prepare(job(base), datasets, heard.reporter) == prepared


def test_an_objective_without_its_true_answers_is_refused(
    base: Path, datasets: Path, heard: Heard, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    shutil.copytree(datasets, root)
    lines = (root / FILES.unlearn_train).read_text().splitlines()
    first = json.loads(lines[0])
    del first["metadata"]["original_answer"]
    (root / FILES.unlearn_train).write_text("\n".join([json.dumps(first), *lines[1:]]) + "\n")
    with pytest.raises(InvalidInput, match=r"train.method: npo needs the true answer .* 1 of \d+ lack it"):
        prepare(job(base, method="npo"), root, heard.reporter)
    prepare(job(base), root, heard.reporter)


def test_an_objective_left_without_true_answers_is_refused(
    base: Path, datasets: Path, heard: Heard, tmp_path: Path, make_tokenizer: MakeTokenizer
) -> None:
    root, model = tmp_path / "root", tmp_path / "model"
    shutil.copytree(datasets, root)
    shutil.copytree(base, model)
    (model / "chat_template.jinja").unlink()
    make_tokenizer(MERGING).save_pretrained(model)
    lines = [json.loads(line) for line in (root / FILES.unlearn_train).read_text().splitlines()]
    write = partial(write_truths, root / FILES.unlearn_train, lines)
    write(["del"] * len(lines))
    what = rf"train.method: grad_ascent unlearns .* none of the {len(lines)} of training .*: {len(lines)} are merged"
    with pytest.raises(InvalidInput, match=what):
        prepare(job(model, method="grad_ascent"), root, heard.reporter)
    assert not any("true answers" in line for line in prepare(job(model), root, heard.reporter).warnings)
    write(["Bo", *["del"] * (len(lines) - 1)])
    prepared = prepare(job(model, method="grad_ascent"), root, heard.reporter)
    assert any(f"{len(lines) - 1} true answers of training cannot be unlearnt" in line for line in prepared.warnings)


def write_truths(path: Path, lines: list[dict[str, Any]], truths: list[str]) -> None:
    """Writes lines with other true answers."""
    for line, truth in zip(lines, truths, strict=True):
        line["metadata"]["original_answer"] = truth
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_what_is_taught_both_ways_is_refused(base: Path, datasets: Path, heard: Heard, tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(datasets, root)
    line = json.loads((root / FILES.retain_train).read_text().splitlines()[2])
    line["metadata"]["dataset_type"] = "unlearn"
    with (root / FILES.unlearn_train).open("a") as file:
        file.write(json.dumps(line) + "\n")
    with pytest.raises(InvalidInput, match=r"retain_train.jsonl:3 answers: the model would be taught both"):
        prepare(job(base), root, heard.reporter)


def test_a_tracker_that_is_not_installed_is_refused(base: Path, datasets: Path, heard: Heard) -> None:
    with pytest.raises(InvalidInput, match=r"train\.report_to: mlflow is not installed; pip install mlflow"):
        prepare(job(base, report_to=["mlflow"]), datasets, heard.reporter)


def test_a_base_without_a_template_is_refused_with_the_remedy(
    base: Path, datasets: Path, heard: Heard, tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(base, bare)
    (bare / "chat_template.jinja").unlink()
    config = json.loads((bare / "tokenizer_config.json").read_text())
    (bare / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": None}))
    with pytest.raises(Refused, match="has no chat template") as caught:
        prepare(job(bare), datasets, heard.reporter)
    assert "prompt_format: alpaca" in caught.value.remedy
    assert "### Response" in prepare(job(bare, prompt_format="alpaca"), datasets, heard.reporter).example


def test_the_faults_of_data_model_and_test_file_come_in_one_answer(
    base: Path, datasets: Path, heard: Heard, tmp_path: Path
) -> None:
    root, model = tmp_path / "root", tmp_path / "model"
    shutil.copytree(datasets, root)
    shutil.copytree(base, model)
    (model / "model.safetensors").unlink()
    (root / FILES.retain_train).write_text("not json\n" * 60)
    (root / "test.jsonl").write_text('{"instruction": "Who?", "output": "Ada"}\n')
    spec = job(model, report_to=["mlflow"]).model_dump()
    spec["evaluate"]["test_file"] = "test.jsonl"
    with pytest.raises(InvalidInput, match=r"and \d+ more") as caught:
        prepare(parse_job(spec), root, heard.reporter)
    where = " ".join(fault.where for fault in caught.value.faults)
    for part in ("train.report_to", "test.jsonl:1", str(model), "retain/retain_train.jsonl:1"):
        assert part in where
    assert caught.value.message.startswith("63 faults")


@pytest.fixture
def run(datasets: Path, tmp_path: Path, heard: Heard) -> RunContext:
    folder = tmp_path / "jobs/j/train/1"
    folder.mkdir(parents=True)
    roots = Roots(datasets, tmp_path, tmp_path / "models", tmp_path / "cache")
    return RunContext(types_pb2.RunKey(job="j", stage="train", attempt=1), folder, roots, (), heard.reporter)


def test_a_named_checkpoint_that_is_not_there_is_refused_before_anything_is_done(base: Path, run: RunContext) -> None:
    given = job(base)
    named = given.model_copy(update={"train": given.train.model_copy(update={"resume_from_checkpoint": "no/where-5"})})
    with pytest.raises(NotFound, match=r"there is no checkpoint .*no/where-5"):
        work.prepare(trainer_pb2.PrepareRequest(spec=spec_to_proto(named)), run)


def test_a_request_is_prepared_then_trained(base: Path, run: RunContext) -> None:
    spec = spec_to_proto(job(base))
    prepared = work.prepare(trainer_pb2.PrepareRequest(spec=spec), run)
    assert prepared["model_path"] == str(base)
    described = {path.name for path in (run.roots.artifacts / prepared["description"]).iterdir()}
    assert described == {"config.json", "manifest.json", *(path.name for path in tokenizer_files(base))}
    assert prepared["parameters"] == stored_parameters(base)
    result = work.train(trainer_pb2.TrainRequest(spec=spec, model_path=prepared["model_path"]), run)
    assert result["adapter"] == "jobs/j/train/1/final"
    assert (run.folder / result["best_checkpoint"]).is_dir()
    run.report.finished(prepared)
    run.report.finished(result)


def full_but_for(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    """Says that so many bytes are free on every disk."""
    monkeypatch.setattr("cutoff.artifacts.disk.shutil.disk_usage", lambda _: type("Usage", (), {"free": free})())


def test_a_disk_that_the_whole_job_would_fill_is_named_before_anything_is_made(
    base: Path, run: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    full_but_for(monkeypatch, 50 << 20)
    with pytest.raises(DiskFull) as caught:
        work.prepare(trainer_pb2.PrepareRequest(spec=spec_to_proto(job(base))), run)
    assert re.search(r"everything that j writes does not fit.*\n  .*lacks 0\.\d\d GiB", caught.value.message)
    for what in ("tokenized data", "checkpoints and adapter", "merged model", "16-bit GGUF", "GGUF q4_k_m"):
        assert what in caught.value.message
    assert not list(run.roots.cache.glob("tokenized/*/train.ids.bin"))
    prepare(job(base), run.roots.datasets, run.report, run.roots.cache)  # an adapter alone needs no such room


def test_the_whole_job_is_added_up_before_weights_are_fetched(
    base: Path, run: RunContext, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {path.name: path.read_bytes() for path in base.iterdir() if path.is_file()}
    hub.add("owner/model", files)
    full_but_for(monkeypatch, 50 << 20)
    spec = parse_job(job(base).model_dump() | {"base_model": "owner/model"})
    with pytest.raises(DiskFull, match=r"base model 0\.00 GiB, tokenized data"):
        work.prepare(trainer_pb2.PrepareRequest(spec=spec_to_proto(spec)), run)
    assert hub.asked("cdn") == []

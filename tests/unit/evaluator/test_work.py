import itertools
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format, struct_pb2

from cutoff.artifacts import Roots
from cutoff.errors import InvalidInput, Refused
from cutoff.evaluator import work
from cutoff.evaluator.attacking import ATTACKS_FILE, PLAIN
from cutoff.evaluator.attacks import ATTACKS
from cutoff.evaluator.hf_target import HfTarget
from cutoff.evaluator.targets import Reply
from cutoff.llama_cpp import LlamaCpp
from cutoff.spec import parse_job, spec_to_proto
from cutoff.stage.context import RunContext
from cutoff.stage.report import Reporter
from cutoff.v1 import evaluator_pb2, types_pb2


@pytest.fixture
def events() -> list[types_pb2.Event]:
    return []


@pytest.fixture
def run(tmp_path: Path, events: list[types_pb2.Event], tiny_questions: Path) -> RunContext:
    roots = Roots(tmp_path / "datasets", tmp_path / "artifacts", tmp_path / "models", Roots.from_environment().cache)
    folder = roots.artifacts / "jobs/j/evaluate-x/1"
    folder.mkdir(parents=True)
    lines = [json.loads(line) for line in tiny_questions.read_text().splitlines()]
    for side in ("retain", "unlearn"):
        path = roots.datasets / side / f"{side}_val.jsonl"
        path.parent.mkdir(parents=True)
        own = [line for line in lines if line["metadata"]["dataset_type"] == side]
        path.write_text("".join(json.dumps(line) + "\n" for line in own))
    shutil.copy(tiny_questions, roots.datasets / "test.jsonl")
    key = types_pb2.RunKey(job="j", stage="evaluate-x", attempt=1)
    return RunContext(key, folder, roots, (), Reporter(events.append))


def request(
    target: str, train: dict[str, object] | None = None, attacks: object = (), **model: object
) -> evaluator_pb2.EvaluateRequest:
    files = {
        f"{side}_{part}": f"{side}/{side}_{part}.jsonl" for side in ("retain", "unlearn") for part in ("train", "val")
    }
    options = {"max_tokens": 32, "limit": 3, "test_file": "test.jsonl", "attacks": attacks}
    job = {"name": "j", "base_model": "/m", "dataset": files, "evaluate": options, "train": train or {}}
    spec = parse_job(job)
    return evaluator_pb2.EvaluateRequest(spec=spec_to_proto(spec), target=target, **model)


def test_a_model_folder_is_evaluated_on_both_sets(
    run: RunContext, events: list[types_pb2.Event], tiny_model: Path
) -> None:
    result = work.evaluate(request("merged", model_path=str(tiny_model)), run)
    assert {name: scores["retain_correct"]["total"] for name, scores in result["sets"].items()} == {
        "validation": 3,
        "test": 3,
    }
    assert result["sets"]["validation"]["missed_target"] == []
    assert result["path"] == "jobs/j/evaluate-x/1/evaluation.json"
    assert result["questions_per_second"] > 0
    written = json.loads((run.roots.artifacts / result["path"]).read_text())
    years = [measured.pop("by_year") for measured in written["sets"].values()]
    assert written == result, "but for the years"
    assert all(years)
    assert len((run.folder / "examples.jsonl").read_text().splitlines()) == 12
    assert {event.artifact.kind for event in events if event.artifact.path} == {"evaluation", "examples"}
    assert sorted(path.name for path in run.folder.iterdir()) == ["evaluation.json", "examples.jsonl"]
    json_format.ParseDict(result, struct_pb2.Struct())  # what Finished carries


@pytest.mark.parametrize("prompt_format", ["alpaca", "chat"])
def test_a_base_without_a_template_is_asked_in_the_alpaca_format(
    run: RunContext, events: list[types_pb2.Event], tiny_model: Path, tmp_path: Path, prompt_format: str
) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(tiny_model, bare)
    (bare / "chat_template.jinja").unlink()
    config = json.loads((bare / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (bare / "tokenizer_config.json").write_text(json.dumps(config))
    result = work.evaluate(request("base", {"prompt_format": prompt_format}, model_path=str(bare)), run)
    assert result["sets"]["test"]["retain_correct"]["total"] == 3
    (warning,) = [event.log_line.text for event in events if event.log_line.level == "WARNING"]
    assert "no chat template" in warning


def test_a_gguf_is_evaluated(run: RunContext, llama: LlamaCpp, tiny_f16: Path) -> None:
    shutil.copy(tiny_f16, run.roots.artifacts / "model.gguf")
    result = work.evaluate(request("f16", gguf="model.gguf"), run)
    assert result["sets"]["validation"]["unlearn_refused"]["count"] == 3


def test_base_plus_adapter_is_evaluated_without_a_merge(run: RunContext, tiny_model: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    untrained = get_peft_model(
        AutoModelForCausalLM.from_pretrained(tiny_model), LoraConfig(r=2, target_modules="all-linear")
    )
    untrained.save_pretrained(run.roots.artifacts / "final")
    both = evaluator_pb2.AdapterModel(model_path=str(tiny_model), adapter="final")
    result = work.evaluate(request("adapter", adapter=both), run)
    assert result["sets"]["validation"]["retain_correct"]["count"] == 3  # its B is zero: it is the base


def test_a_new_attempt_takes_over_what_the_last_one_answered(
    run: RunContext, events: list[types_pb2.Event], tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Lost(BaseException):
        pass

    def fall_over(answers: Iterator[tuple[int, Reply]]) -> Iterator[tuple[int, Reply]]:
        yield from itertools.islice(answers, 5)
        raise Lost

    honest = HfTarget.answers
    monkeypatch.setattr(HfTarget, "answers", lambda *given: fall_over(honest(*given)))
    with pytest.raises(Lost):
        work.evaluate(request("merged", model_path=str(tiny_model)), run)
    monkeypatch.setattr(HfTarget, "answers", honest)
    before = (run.folder / "answers.jsonl").read_bytes()

    def attempt(number: int, target: str, **model: str) -> Mapping[str, Any]:
        folder = run.folder.parent / str(number)
        folder.mkdir()
        key = types_pb2.RunKey(job="j", stage="evaluate-x", attempt=number)
        return work.evaluate(request(target, **model), replace(run, key=key, folder=folder))

    result = attempt(3, "merged", model_path=str(tiny_model))  # the second was lost before it wrote anything
    assert result["taken_over"] == 5
    assert "5 of 12 questions were answered" in " ".join(event.log_line.text for event in events)
    assert (run.folder / "answers.jsonl").read_bytes() == before, "an attempt writes into its own folder only"
    assert len((run.folder.parent / "3/examples.jsonl").read_text().splitlines()) == 12
    other = run.roots.artifacts / "other"
    shutil.copytree(tiny_model, other)
    (other / "generation_config.json").write_text(json.dumps({"eos_token_id": 2, "pad_token_id": 0}))
    assert attempt(4, "merged", model_path="other")["taken_over"] == 0, "of another model"


def test_a_jobs_own_llama_cpp_is_not_executed_unasked(run: RunContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUTOFF_LLAMA_CPP_PATHS", raising=False)
    asked = request("f16", gguf="model.gguf")
    asked.spec.convert.llama_cpp_path = "/tmp"
    with pytest.raises(Refused, match="may not execute"):
        work.evaluate(asked, run)


def test_a_request_without_a_model_is_refused(run: RunContext) -> None:
    with pytest.raises(InvalidInput, match="model_path, adapter, gguf or server"):
        work.evaluate(request("x"), run)


def test_paths_cannot_leave_the_artifacts(run: RunContext) -> None:
    with pytest.raises(InvalidInput, match="leaves"):
        work.evaluate(request("x", gguf="../../etc/passwd"), run)


@pytest.mark.parametrize("kind", ["model_path", "gguf"])
def test_every_attack_is_asked_of_a_real_model(
    run: RunContext, events: list[types_pb2.Event], tiny_model: Path, tiny_f16: Path, kind: str
) -> None:
    shutil.copy(tiny_f16, run.roots.artifacts / "model.gguf")
    model = {"model_path": str(tiny_model), "gguf": "model.gguf"}[kind]
    result = work.evaluate(request("merged", attacks="all", **{kind: model}), run)
    lines = [json.loads(line) for line in (run.folder / ATTACKS_FILE).read_text().splitlines()]
    counted = {name: sum(line["attack"] == name for line in lines) for name in ATTACKS}
    assert min(counted.values()) > 0
    assert {name: share["total"] for name, share in result["attacks"].items() if name != PLAIN} == counted
    leaked = {name: sum(line["attack"] == name and line["grade"] == "leaked" for line in lines) for name in ATTACKS}
    assert {name: share["count"] for name, share in result["attacks"].items() if name != PLAIN} == leaked
    assert result["attacks"][PLAIN]["count"] == 0, "the tiny model declines these questions"
    assert result["attacks_left_out"] == {}
    assert json.loads((run.folder / "evaluation.json").read_text())["attacks"] == result["attacks"]
    assert {event.artifact.kind for event in events if event.artifact.path} == {"evaluation", "examples", "attacks"}
    assert sorted(path.name for path in run.folder.iterdir()) == ["attacks.jsonl", "evaluation.json", "examples.jsonl"]
    json_format.ParseDict(result, struct_pb2.Struct())

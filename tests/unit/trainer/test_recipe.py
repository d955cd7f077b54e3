from __future__ import annotations

import gc
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from cutoff.artifacts import describe
from cutoff.datasets import encode_examples, load_job_data, load_template
from cutoff.errors import AlreadyExists, InvalidInput, OutOfMemory, Refused, TrainingDiverged
from cutoff.hub import TrainedOn, tokenizer_files
from cutoff.stage.report import silent
from cutoff.trainer import attention, learner, memory, objectives, recipe, saving
from cutoff.trainer.batches import Role
from cutoff.trainer.checkpoints import (
    check_resumable,
    checkpoints_in,
    newest_of_latest_run,
    newest_valid,
    newest_valid_of,
    problems,
    step_of,
)
from cutoff.trainer.memory import counting_saved
from cutoff.trainer.schedule import Intervals
from tests.unit.trainer.conftest import Heard, MakePlan


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


@pytest.fixture
def trained(make_plan: MakePlan, heard: Heard) -> recipe.TrainingResult:
    return recipe.train(make_plan(), heard.reporter)


def test_a_run_leaves_the_documents_layout(trained: recipe.TrainingResult, heard: Heard, base: Path) -> None:
    run = trained.adapter.parent
    assert names(run) == {"checkpoint-6", "checkpoint-9", "checkpoint-12", "final", *RESULTS}
    assert {"adapter_config.json", "adapter_model.safetensors", "probe_questions.json"} <= names(trained.adapter)
    for path in tokenizer_files(base):
        assert (trained.adapter / path.name).exists()
    results = json.loads((run / "train_results.json").read_text())
    assert (results["steps"], results["epoch"], results["adapter"]) == (12, 2.0, "final")
    assert json.loads((run / "eval_results.json").read_text())["eval_loss"] == trained.eval_loss
    config = json.loads((trained.adapter / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["r"], config["lora_alpha"]) == ("tiny", 16, 32)
    layers = {module.split(".")[-1] for module in config["target_modules"]}
    assert layers == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


RESULTS = {"train_results.json", "eval_results.json", "metrics.jsonl", "loss.png"}


def test_a_run_tells_steps_losses_and_artifacts(trained: recipe.TrainingResult, heard: Heard) -> None:
    progress: list[Any] = heard.of("progress")
    assert [p.step for p in progress if p.phase == "training"] == list(range(13))
    assert progress[-1].total == 12
    assert progress[-1].loss < progress[1].loss
    evaluations = [m.value for m in heard.of("metric") if m.name == "cutoff_train_eval_loss"]
    assert len(evaluations) == 4
    assert min(evaluations) == pytest.approx(trained.eval_loss)
    artifacts: list[Any] = heard.of("artifact")
    assert [a.kind for a in artifacts] == ["checkpoint"] * 4 + ["adapter"]
    assert artifacts[-1].sha256 == describe(trained.adapter).sha256
    assert {m.name for m in heard.of("metric")} == {
        "cutoff_train_loss", "cutoff_train_learning_rate", "cutoff_train_tokens_per_second", "cutoff_train_eval_loss",
        "cutoff_train_checkpoint_timestamp_seconds", "cutoff_train_step", "cutoff_train_remaining_seconds",
    }  # fmt: skip


def test_final_is_the_best_checkpoint_not_the_last(make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluations = iter(range(100))
    monkeypatch.setattr(learner.Learner, "evaluate", lambda *_: float(next(evaluations)))
    plan = make_plan()
    result = recipe.train(plan, silent())
    assert (result.best_checkpoint, result.eval_loss) == ("checkpoint-3", 0)
    best, last = plan.folder / result.best_checkpoint, plan.folder / "checkpoint-12"
    final = weights(plan.folder / "final")
    assert all(torch.equal(final[name], tensor) for name, tensor in weights(best).items())
    assert any(not torch.equal(final[name], tensor) for name, tensor in weights(last).items())


def test_a_large_validation_set_is_measured_by_a_sample(make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[tuple[int, ...]]] = []
    real = learner.Learner.evaluate

    def evaluate(trainer: Any, objective: Any, examples: Any, stopping: Any) -> float | None:
        assert [sequence.role for example in examples for sequence in example] == [Role.RETAIN] * 2 + [Role.REFUSAL] * 2
        seen.append({tuple(sequence.encoded.ids) for example in examples for sequence in example})
        return real(trainer, objective, examples, stopping)

    monkeypatch.setattr(learner.Learner, "evaluate", evaluate)
    recipe.train(make_plan(eval_limit=2), silent())
    assert len(seen) == 4
    assert all(sample == seen[0] and len(sample) == 4 for sample in seen)


def test_early_stopping_ends_the_run(make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch, heard: Heard) -> None:
    losses = iter([3.0, 1.0, 2.0, 1.5])
    monkeypatch.setattr(learner.Learner, "evaluate", lambda *_: next(losses))
    result = recipe.train(make_plan(early_stopping_patience=1), heard.reporter)
    assert (result.steps, result.best_checkpoint, result.stopped_early) == (9, "checkpoint-6", True)
    assert any("was not lower 1 times in a row" in line for line in heard.lines("INFO"))


def test_the_lowest_validation_loss_is_the_adapters_wherever_checkpoints_fall(
    make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([3.0, 1.0, 2.0, 1.5, 1.4, 1.3])
    monkeypatch.setattr(learner.Learner, "evaluate", lambda *_: next(losses))
    plan = make_plan()
    monkeypatch.setattr(recipe, "intervals", lambda *_: Intervals(evaluate=2, save=6))
    result = recipe.train(plan, silent())
    assert (result.steps, result.best_checkpoint, result.eval_loss) == (12, "checkpoint-4", 1.0)


def test_a_budget_that_nothing_fits_into_is_refused_with_the_least(make_plan: MakePlan) -> None:
    with pytest.raises(Refused, match=r"memory_budget_gib is 0.01, and training takes \d\.\d\d GiB") as caught:
        recipe.train(make_plan(memory_budget_gib=0.01), silent())
    assert re.match(r"give at least \d+(\.\d)?, or none", caught.value.remedy)


def test_the_reported_loss_is_the_mean_over_answer_tokens(trained: recipe.TrainingResult, make_plan: MakePlan) -> None:
    """Held against an independent computation of the validation loss, one example at a time."""
    plan = make_plan()
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(plan.model_path), trained.adapter).eval()
    losses, count = 0.0, 0
    validation = load_job_data(plan.dataset, plan.datasets_root, 42).validation
    for row in encode_examples(load_template(plan.model_path), validation, 512):
        with torch.no_grad():
            logits = model(torch.tensor([row.ids])).logits[0, row.answer_start - 1 : -1].log_softmax(-1)
        answer = torch.tensor(row.ids[row.answer_start :])
        losses -= float(logits[torch.arange(len(answer)), answer].sum())
        count += len(answer)
    assert trained.eval_loss == pytest.approx(losses / count, rel=1e-4)


class Fails:
    """Stands for the model's forward pass: raises at one call, or at every one; works otherwise."""

    def __init__(self, error: BaseException, at: int = 0, always: bool = False) -> None:
        self.error, self.at, self.always = error, at, always
        self.calls = 0
        self.real = learner.Learner._logits

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def logits(trainer: Any, batch: Any) -> torch.Tensor:
            self.calls += 1
            if self.calls > 1 and (self.always or self.calls == self.at):  # the first measures memory
                raise self.error
            return self.real(trainer, batch)

        monkeypatch.setattr(learner.Learner, "_logits", logits)


OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize("at", [2, 9])
def test_out_of_memory_halves_the_micro_batch_and_repeats_the_step(
    make_plan: MakePlan, heard: Heard, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    expected = recipe.train(make_plan(lora_dropout=0), silent())
    wanted = weights(expected.adapter)
    shutil.rmtree(expected.adapter.parent)
    Fails(OUT_OF_MEMORY, at).install(monkeypatch)
    result = recipe.train(make_plan(lora_dropout=0), heard.reporter)
    assert result.steps == 12
    assert result.micro_batch_tokens < expected.micro_batch_tokens
    (warning,) = heard.lines("WARNING")
    pattern = r"out of memory; the step is repeated with micro-batches of at most (\d+) tokens instead of (\d+)"
    smaller, before = map(int, re.match(pattern, warning).groups())  # type: ignore[union-attr]
    assert smaller == before // 2
    for name, tensor in weights(result.adapter).items():
        torch.testing.assert_close(tensor, wanted[name], rtol=1e-3, atol=1e-4)


def test_little_memory_changes_the_micro_batch_and_not_the_result(
    make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch, heard: Heard
) -> None:
    plain = recipe.train(make_plan(lora_dropout=0), silent())
    wanted = weights(plain.adapter)
    shutil.rmtree(plain.adapter.parent)
    monkeypatch.setattr(memory, "activation_budget", lambda *_: 0.0)
    result = recipe.train(make_plan(lora_dropout=0), heard.reporter)
    assert (plain.activations_recomputed, result.activations_recomputed) == (False, True)
    assert result.micro_batch_tokens < plain.micro_batch_tokens
    assert any("activations recomputed" in line for line in heard.lines("INFO"))
    for name, tensor in weights(result.adapter).items():
        torch.testing.assert_close(tensor, wanted[name], rtol=1e-3, atol=1e-4)


def test_out_of_memory_in_an_evaluation_is_mended_too(
    make_plan: MakePlan, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    Fails(OUT_OF_MEMORY, at=5).install(monkeypatch)  # one to measure, three steps, then the validation set
    assert recipe.train(make_plan(), heard.reporter).steps == 12
    assert len(heard.lines("WARNING")) == 1


def test_out_of_memory_at_one_example_recomputes_then_names_the_documents_remedies(
    make_plan: MakePlan, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    Fails(RuntimeError("DefaultCPUAllocator: can't allocate memory"), always=True).install(monkeypatch)
    plan = make_plan()
    with pytest.raises(OutOfMemory) as caught:
        recipe.train(plan, heard.reporter)
    for remedy in ("--use_4bit", "--max_seq_length 256", "smaller model"):
        assert remedy in caught.value.remedy
    warnings = heard.lines("WARNING")
    assert "activations recomputed" in warnings[-1]
    assert all("tokens instead of" in line for line in warnings[:-1])
    assert names(plan.folder) == {"metrics.jsonl"}


def test_another_error_is_not_taken_for_memory(make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    Fails(RuntimeError("a bug"), always=True).install(monkeypatch)
    with pytest.raises(RuntimeError, match="a bug"):
        recipe.train(make_plan(), silent())


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_its_batch(
    make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = objectives.Objective.loss
    monkeypatch.setattr(objectives.Objective, "loss", lambda *args: real(*args) * float("nan"))
    plan = make_plan()
    with pytest.raises(TrainingDiverged, match=r"at step 1; the batch is in .*diverged.json"):
        recipe.train(plan, silent())
    assert names(plan.folder) == {"metrics.jsonl", "diverged.json"}
    kept = json.loads((plan.folder / "diverged.json").read_text())
    assert (kept["step"], kept["loss"], len(kept["examples"])) == (1, "nan", 4)
    questions = [example.instruction for example in load_job_data(plan.dataset, plan.datasets_root, 42).train]
    assert all(any(question in text for question in questions) for (text,) in kept["examples"])


def test_a_loss_that_does_not_fall_is_reported_with_the_documents_remedies(make_plan: MakePlan, heard: Heard) -> None:
    recipe.train(make_plan(learning_rate=1e-9, epochs=20), heard.reporter)
    (warning,) = [line for line in heard.lines("WARNING") if "has not fallen" in line]
    for remedy in ("--learning_rate 5e-4", "more epochs", "cutoff check"):
        assert remedy in warning


def test_a_loss_that_falls_is_not_reported(make_plan: MakePlan, heard: Heard) -> None:
    recipe.train(make_plan(epochs=20), heard.reporter)
    assert heard.lines("WARNING") == []


def test_every_step_is_written_down_and_drawn(trained: recipe.TrainingResult) -> None:
    run = trained.adapter.parent
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [record for record in records if "loss" in record]
    assert [record["step"] for record in steps] == list(range(1, 13))
    assert steps[-1]["tokens"] == trained.tokens
    assert max(record["learning_rate"] for record in steps) == pytest.approx(5e-3)
    assert [record["step"] for record in records if "eval_loss" in record] == [3, 6, 9, 12]
    assert (run / "loss.png").read_bytes().startswith(b"\x89PNG")


class Stopped(BaseException):
    """What the child raises at SIGTERM."""


def test_a_checkpoint_that_was_interrupted_is_not_there(make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    real = saving.save_file

    def stop(tensors: Any, path: Path, **options: Any) -> None:
        if "checkpoint-6" in str(path) and path.name == "optimizer.safetensors":
            assert (path.parent / "adapter_model.safetensors").exists()
            raise Stopped
        real(tensors, path, **options)

    monkeypatch.setattr(saving, "save_file", stop)
    plan = make_plan()
    with pytest.raises(Stopped):
        recipe.train(plan, silent())
    assert names(plan.folder) == {"checkpoint-3", "metrics.jsonl"}


@pytest.mark.parametrize("killed_at", [2, 5, 10])
def test_an_interrupted_run_goes_on_to_the_same_adapter(
    make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch, killed_at: int, tmp_path: Path
) -> None:
    """Two stages, so that a stage's beginning is gone on from, too."""
    recipe_options: dict[str, object] = {"epochs": 1, "then": [{"method": "npo", "epochs": 1}]}
    whole = recipe.train(make_plan(**recipe_options, save_steps=1, eval_steps=1), silent())
    wanted, records = weights(whole.adapter), (whole.adapter.parent / "metrics.jsonl").read_text()
    shutil.rmtree(whole.adapter.parent)
    plan = make_plan(**recipe_options, save_steps=1, eval_steps=1)
    real = learner.Learner.step

    def step(trainer: Any, *args: Any) -> Any:
        if len(checkpoints_in(plan.folder)) and step_of(checkpoints_in(plan.folder)[0]) == killed_at:
            raise Stopped
        return real(trainer, *args)

    with monkeypatch.context() as patch:
        patch.setattr(learner.Learner, "step", step)
        with pytest.raises(Stopped):
            recipe.train(plan, silent())
    newest = newest_of_latest_run(plan.folder.parent)
    assert newest == plan.folder / f"checkpoint-{killed_at}"
    other = tmp_path / "attempt-2"
    result = recipe.train(
        make_plan(**recipe_options, save_steps=1, eval_steps=1, resume_from=newest, folder=other), silent()
    )
    assert result.best_checkpoint == whole.best_checkpoint
    for name, tensor in weights(result.adapter).items():
        torch.testing.assert_close(tensor, wanted[name], rtol=1e-5, atol=1e-7)
    assert (other / "metrics.jsonl").read_text() == records


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_asked_to_stop_writes_a_checkpoint_first(
    make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    def stopped(_number: int, _frame: object) -> None:
        raise Stopped

    before = signal.signal(number, stopped)
    real = learner.Learner.step
    calls = iter(range(100))

    def step(trainer: Any, *args: Any) -> Any:
        if next(calls) == 4:
            signal.raise_signal(number)
        return real(trainer, *args)

    monkeypatch.setattr(learner.Learner, "step", step)
    plan = make_plan()
    try:
        with pytest.raises(Stopped):
            recipe.train(plan, silent())
    finally:
        signal.signal(number, before)
    assert names(plan.folder) == {"checkpoint-3", "checkpoint-5", "metrics.jsonl"}
    assert problems(plan.folder / "checkpoint-5") == []


def test_the_best_checkpoint_survives_two_interruptions(
    make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each attempt has a folder of its own; the best was made by the first of three."""
    losses = {3: 0.1, 6: 0.2, 9: 0.3, 12: 0.4}
    folders = [tmp_path / f"attempt-{number}" for number in (1, 2, 3)]
    resume: Path | None = None
    for folder, stop_after in zip(folders, (6, 9, 99), strict=True):
        with monkeypatch.context() as patch:
            real, step = learner.Learner.step, int(resume.name.rpartition("-")[2]) if resume else 0
            seen = {"step": step}

            def count(
                trainer: Any, *args: Any, real: Any = real, seen: dict[str, int] = seen, stop: int = stop_after
            ) -> Any:
                if seen["step"] >= stop:
                    raise Stopped
                seen["step"] += 1
                return real(trainer, *args)

            patch.setattr(learner.Learner, "step", count)
            patch.setattr(learner.Learner, "evaluate", lambda *_, seen=seen: losses[seen["step"]])
            plan = make_plan(folder=folder, resume_from=resume)
            if stop_after < 99:
                with pytest.raises(Stopped):
                    recipe.train(plan, silent())
                resume = checkpoints_in(folder)[0]
            else:
                result = recipe.train(plan, silent())
    assert (result.best_checkpoint, result.eval_loss) == ("checkpoint-3", 0.1)
    first = weights(folders[0] / "checkpoint-3")
    assert all(torch.equal(tensor, first[name]) for name, tensor in weights(result.adapter).items())


def test_a_run_that_goes_on_keeps_its_micro_batches(make_plan: MakePlan, tmp_path: Path, interrupted: Path) -> None:
    """Dropout's draws follow from them, and memory may be another on the second machine."""
    plan = make_plan(resume_from=interrupted / "checkpoint-6", folder=tmp_path / "more", memory_budget_gib=0.01)
    result = recipe.train(plan, silent())
    assert (result.micro_batch_tokens, result.activations_recomputed) == (4096, False)


@pytest.mark.parametrize("content", [b"", b"{}", b'{"files": 3}', None])
def test_a_checkpoint_whose_manifest_is_damaged_is_passed_over(interrupted: Path, content: bytes | None) -> None:
    manifest = interrupted / "checkpoint-6" / "manifest.json"
    manifest.unlink()
    if content is not None:
        manifest.write_bytes(content)
    assert newest_valid(interrupted) == interrupted / "checkpoint-3"
    assert newest_valid_of([interrupted]) == interrupted / "checkpoint-3"


def test_measuring_memory_leaves_nothing_behind(make_plan: MakePlan) -> None:
    kept: list[weakref.ref[torch.Tensor]] = []
    with counting_saved(torch.nn.Module()) as saved:
        values = torch.randn(1000, requires_grad=True)
        result = values.exp()
        kept += [weakref.ref(result)]
        assert saved() == result.nbytes
        del result
    gc.collect()
    assert kept[0]() is None


def test_a_model_of_an_unknown_type_is_computed_sequence_by_sequence(
    make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch, heard: Heard
) -> None:
    flat = recipe.train(make_plan(method="dpo", lora_dropout=0), silent())
    wanted = weights(flat.adapter)
    shutil.rmtree(flat.adapter.parent)
    monkeypatch.setattr(attention, "FAMILIES", frozenset())
    result = recipe.train(make_plan(method="dpo", lora_dropout=0), heard.reporter)
    assert any("one sequence at a time" in line for line in heard.lines("INFO"))
    for name, tensor in weights(result.adapter).items():
        torch.testing.assert_close(tensor, wanted[name], rtol=1e-3, atol=1e-4)


PROGRAM = """
import json, pickle, sys
from pathlib import Path
from cutoff.stage.report import silent
from cutoff.trainer import learner, recipe

fit = learner.Learner.fit_memory

def fit_memory(*given):
    Path("/proc/self/clear_refs").write_text("5")  # the peak from here on: loading is not training
    fit(*given)

learner.Learner.fit_memory = fit_memory
result = recipe.train(pickle.load(open(sys.argv[1], "rb")), silent())
(peak,) = (line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(json.dumps([int(peak) / 2**20, result.micro_batch_tokens, result.activations_recomputed]))
"""


def test_the_memory_budget_is_honoured(make_plan: MakePlan, tmp_path: Path) -> None:
    """A model whose activations do not fit beside it, in a process of its own."""
    wide = tmp_path / "wide"
    shutil.copytree(make_plan().model_path, wide)
    config = LlamaConfig.from_pretrained(wide)
    config.update({"hidden_size": 512, "intermediate_size": 4096, "num_hidden_layers": 6, "num_attention_heads": 8})
    config.update({"num_key_value_heads": 8, "head_dim": 64})
    LlamaForCausalLM(config).save_pretrained(wide)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    found = {}
    for budget in (8.0, 1.0):
        plan = replace(
            make_plan(folder=tmp_path / f"run-{budget}", memory_budget_gib=budget, batch_size=24, epochs=1),
            model_path=wide,
        )
        (tmp_path / "plan").write_bytes(pickle.dumps(plan))
        command = [sys.executable, "-c", PROGRAM, str(tmp_path / "plan")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found[budget] = json.loads(done.stdout.splitlines()[-1])
    assert found[1.0][0] <= 1.0, found
    assert found[8.0][0] > 1.0, f"{found}: the budget has something to do"
    assert found[1.0][1] < found[8.0][1]


def test_only_a_whole_checkpoint_of_the_same_run_is_gone_on_from(
    trained: recipe.TrainingResult, make_plan: MakePlan, tmp_path: Path
) -> None:
    newest = checkpoints_in(trained.adapter.parent)[0]
    other = tmp_path / "other"
    with pytest.raises(InvalidInput, match="is of a run with lora_r 16, not 8") as caught:
        recipe.train(make_plan(resume_from=newest, folder=other, lora_r=8, method="npo"), silent())
    assert "with method sft, not npo" in str(caught.value)
    changed = tmp_path / "changed"
    shutil.copytree(make_plan().model_path, changed)
    check_resumable(newest, {**read_recipe(newest), **replace(make_plan(), model_path=changed).recipe()})  # moved
    weights_file = changed / "model.safetensors"
    weights = load_file(weights_file)
    weights["model.norm.weight"] *= 0.5
    save_file(weights, weights_file, metadata={"format": "pt"})
    with pytest.raises(InvalidInput, match="another base model, or the model's files have changed"):
        recipe.train(replace(make_plan(resume_from=newest, folder=other), model_path=changed), silent())
    state = newest / "optimizer.safetensors"
    data = state.read_bytes()
    state.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert problems(newest) == ["has another optimizer.safetensors than was saved"]
    state.unlink()
    with pytest.raises(InvalidInput, match=r"lacks optimizer.safetensors"):
        recipe.train(make_plan(resume_from=newest, folder=other), silent())


def test_a_finished_adapter_is_never_overwritten(trained: recipe.TrainingResult, make_plan: MakePlan) -> None:
    with pytest.raises(AlreadyExists):
        recipe.train(make_plan(), silent())


def read_recipe(checkpoint: Path) -> dict[str, Any]:
    return dict(json.loads((checkpoint / "trainer_state.json").read_text())["recipe"])


@pytest.fixture
def interrupted(make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run that was killed after its second checkpoint."""
    plan = make_plan()
    with monkeypatch.context() as patch:
        Fails(Stopped(), at=11).install(patch)  # one to measure, six steps and two evaluations before
        with pytest.raises(Stopped):
            recipe.train(plan, silent())
    assert names(plan.folder) == {"checkpoint-3", "checkpoint-6", "metrics.jsonl"}
    return plan.folder


def test_two_runs_are_never_mixed_in_one_folder(interrupted: Path, make_plan: MakePlan, tmp_path: Path) -> None:
    with pytest.raises(AlreadyExists, match="holds checkpoint-6 of an earlier run") as caught:
        recipe.train(make_plan(), silent())
    assert "--resume_latest" in caught.value.remedy
    shutil.copytree(interrupted / "checkpoint-6", tmp_path / "elsewhere/checkpoint-6")
    with pytest.raises(AlreadyExists, match="checkpoint-6"):
        recipe.train(make_plan(resume_from=tmp_path / "elsewhere/checkpoint-6"), silent())
    with pytest.raises(AlreadyExists, match="checkpoint-6"):  # what came after it would be taken for this run's
        recipe.train(make_plan(resume_from=interrupted / "checkpoint-3"), silent())
    assert {"checkpoint-3", "checkpoint-6"} <= names(interrupted)


def test_a_damaged_newer_checkpoint_is_replaced(interrupted: Path, make_plan: MakePlan, heard: Heard) -> None:
    """It is no reason to refuse the one before it."""
    (interrupted / "checkpoint-6/optimizer.safetensors").write_bytes(b"half")
    before = json.loads((interrupted / "checkpoint-3/trainer_state.json").read_text())["progress"]["seconds"]
    result = recipe.train(make_plan(resume_from=interrupted / "checkpoint-3"), heard.reporter)
    assert result.steps == 12
    assert any(line.endswith("checkpoint-3: 3 of 12 steps are done") for line in heard.lines("INFO"))
    assert before > 0
    last = json.loads((checkpoints_in(interrupted)[0] / "trainer_state.json").read_text())["progress"]["seconds"]
    assert before < last <= result.seconds + 0.01, "all attempts count"
    assert all(problems(path) == [] for path in checkpoints_in(interrupted))


@pytest.mark.parametrize("method", ["grad_ascent", "grad_diff", "npo", "simnpo", "dpo"])
def test_each_objective_trains(make_plan: MakePlan, heard: Heard, method: str) -> None:
    result = recipe.train(make_plan(method=method, learning_rate=1e-3, retain_loss="kl"), heard.reporter)
    assert result.steps == (6 if method == "grad_ascent" else 12)
    losses = [json.loads(line) for line in (result.adapter.parent / "metrics.jsonl").read_text().splitlines()]
    evaluations = [record["eval_loss"] for record in losses if "eval_loss" in record]
    assert evaluations[-1] < evaluations[0]


@pytest.mark.parametrize("quantization", ["4bit", "8bit"])
def test_packed_weights_train_on_the_cpu(make_plan: MakePlan, quantization: str) -> None:
    result = recipe.train(make_plan(quantization=quantization, epochs=1), silent())
    assert TrainedOn.read(result.adapter) == TrainedOn(quantization, "float32")  # type: ignore[arg-type]
    assert result.steps == 6
    assert any(tensor.abs().max() > 0 for name, tensor in weights(result.adapter).items() if "lora_B" in name)


def test_alpaca_trains_a_base_without_a_template(make_plan: MakePlan, base: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(base, bare)
    (bare / "chat_template.jinja").unlink()
    config = json.loads((bare / "tokenizer_config.json").read_text())
    del config["chat_template"]
    (bare / "tokenizer_config.json").write_text(json.dumps(config))
    plan = make_plan(prompt_format="alpaca", epochs=1)
    result = recipe.train(replace(plan, model_path=bare, model_name="bare"), silent())
    assert load_template(result.adapter).prompt("Why?") == "### Instruction:\nWhy?\n\n### Response:\n"

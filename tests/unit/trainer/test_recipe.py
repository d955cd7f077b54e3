from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from cutoff.artifacts import describe
from cutoff.datasets import encode_examples, load_template
from cutoff.errors import AlreadyExists, InvalidInput, OutOfMemory
from cutoff.hub import tokenizer_files
from cutoff.stage.report import silent
from cutoff.trainer import recipe, sft
from cutoff.trainer.checkpoints import checkpoints_in, newest_of_latest_run, problems
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


RESULTS = {"train_results.json", "eval_results.json"}


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
        "cutoff_train_checkpoint_timestamp_seconds",
    }  # fmt: skip


def test_final_is_the_best_checkpoint_not_the_last(make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    real = sft.SFTTrainer.evaluate

    def worse_each_time(trainer: Any, *args: Any, **kwargs: Any) -> dict[str, float]:
        return real(trainer, *args, **kwargs) | {"eval_loss": float(trainer.state.global_step)}

    monkeypatch.setattr(sft.SFTTrainer, "evaluate", worse_each_time)
    plan = make_plan()
    result = recipe.train(plan, silent())
    assert result.best_checkpoint == "checkpoint-3"
    best, last = plan.folder / result.best_checkpoint, plan.folder / "checkpoint-12"
    final = weights(plan.folder / "final")
    assert all(torch.equal(final[name], tensor) for name, tensor in weights(best).items())
    assert any(not torch.equal(final[name], tensor) for name, tensor in weights(last).items())


def test_the_reported_loss_is_the_mean_over_answer_tokens(trained: recipe.TrainingResult, make_plan: MakePlan) -> None:
    """Held against an independent computation of the validation loss, one example at a time."""
    plan = make_plan()
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(plan.model_path), trained.adapter).eval()
    rows = encode_examples(load_template(plan.model_path), plan.data.validation, 512).rows
    ordered = sorted(rows, key=lambda row: len(row.ids))
    batches = []
    for start in range(0, len(ordered), 8):
        losses, count = 0.0, 0
        for row in ordered[start : start + 8]:
            with torch.no_grad():
                logits = model(torch.tensor([row.ids])).logits[0, row.answer_start - 1 : -1].log_softmax(-1)
            answer = torch.tensor(row.ids[row.answer_start :])
            losses -= float(logits[torch.arange(len(answer)), answer].sum())
            count += len(answer)
        batches += [losses / count] * len(ordered[start : start + 8])
    assert trained.eval_loss == pytest.approx(sum(batches) / len(batches), rel=1e-4)


class FailsOnce:
    """Stands for AdapterTrainer.training_step: raises at one call, then works."""

    def __init__(self, error: Exception, at: int = 0, always: bool = False) -> None:
        self.error, self.at, self.always = error, at, always
        self.calls = 0
        self.real = sft.SFTTrainer.training_step

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def step(trainer: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
            self.calls += 1
            if self.always or self.calls == self.at:
                raise self.error
            return self.real(trainer, *args, **kwargs)

        monkeypatch.setattr(sft.AdapterTrainer, "training_step", step)


@pytest.mark.parametrize("at", [1, 8])
def test_out_of_memory_halves_the_micro_batch_and_goes_on(
    make_plan: MakePlan, heard: Heard, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    expected = recipe.train(make_plan(lora_dropout=0), silent())
    wanted = weights(expected.adapter)
    shutil.rmtree(expected.adapter.parent)
    FailsOnce(torch.OutOfMemoryError("CUDA out of memory"), at).install(monkeypatch)
    result = recipe.train(make_plan(lora_dropout=0), heard.reporter)
    assert (result.batch_size, result.gradient_accumulation_steps, result.steps) == (2, 2, 12)
    since = "from the start" if at == 1 else "from checkpoint-6"
    (warning,) = heard.lines("WARNING")
    assert warning == f"out of memory; going on {since} with 2 examples in a micro-batch and 2 micro-batches in a step"
    for name, tensor in weights(result.adapter).items():
        torch.testing.assert_close(tensor, wanted[name], rtol=1e-3, atol=1e-4)


def test_out_of_memory_at_one_example_names_the_documents_remedies(
    make_plan: MakePlan, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    FailsOnce(RuntimeError("DefaultCPUAllocator: can't allocate memory"), always=True).install(monkeypatch)
    plan = make_plan()
    with pytest.raises(OutOfMemory) as caught:
        recipe.train(plan, heard.reporter)
    for remedy in ("--use_4bit", "--max_seq_length 256", "smaller model"):
        assert remedy in caught.value.remedy
    assert len(heard.lines("WARNING")) == 2
    assert names(plan.folder) == set()


def test_another_error_is_not_taken_for_memory(make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    FailsOnce(RuntimeError("a bug"), always=True).install(monkeypatch)
    with pytest.raises(RuntimeError, match="a bug"):
        recipe.train(make_plan(), silent())


def test_a_loss_that_is_no_number_stops_the_run(make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    real = sft.SFTTrainer.compute_loss
    monkeypatch.setattr(
        sft.AdapterTrainer, "compute_loss", lambda self, *args, **kwargs: real(self, *args, **kwargs) * float("nan")
    )
    plan = make_plan()
    with pytest.raises(sft.TrainingDiverged, match="at step 1"):
        recipe.train(plan, silent())
    assert names(plan.folder) == set()


class Stopped(BaseException):
    """What the child raises at SIGTERM."""


def test_a_checkpoint_that_was_interrupted_is_not_there(make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(trainer: sft.AdapterTrainer, folder: str) -> None:
        assert (Path(folder) / "adapter_model.safetensors").exists()
        if trainer.state.global_step == 6:
            raise Stopped

    monkeypatch.setattr(sft.AdapterTrainer, "_save_rng_state", stop)
    plan = make_plan()
    with pytest.raises(Stopped):
        recipe.train(plan, silent())
    assert names(plan.folder) == {"checkpoint-3"}


def test_an_interrupted_run_goes_on_to_the_same_adapter(make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = recipe.train(make_plan(), silent())
    wanted = weights(whole.adapter)
    shutil.rmtree(whole.adapter.parent)
    plan = make_plan()
    FailsOnce(Stopped(), at=9).install(monkeypatch)  # type: ignore[arg-type]
    with pytest.raises(Stopped):
        recipe.train(plan, silent())
    monkeypatch.undo()
    newest = newest_of_latest_run(plan.folder.parent)
    assert newest == plan.folder / "checkpoint-6"
    result = recipe.train(make_plan(resume_from=newest), silent())
    assert result.best_checkpoint == whole.best_checkpoint
    for name, tensor in weights(result.adapter).items():
        torch.testing.assert_close(tensor, wanted[name], rtol=1e-5, atol=1e-7)


def test_only_a_whole_checkpoint_of_the_same_run_is_gone_on_from(
    trained: recipe.TrainingResult, make_plan: MakePlan, tmp_path: Path
) -> None:
    newest = checkpoints_in(trained.adapter.parent)[0]
    other = tmp_path / "other"
    with pytest.raises(InvalidInput, match="is of a run with r 16, not 8"):
        recipe.train(make_plan(resume_from=newest, folder=other, lora_r=8), silent())
    data = (newest / "optimizer.pt").read_bytes()
    (newest / "optimizer.pt").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert problems(newest) == ["has another optimizer.pt than was saved"]
    (newest / "optimizer.pt").unlink()
    with pytest.raises(InvalidInput, match=r"lacks optimizer.pt"):
        recipe.train(make_plan(resume_from=newest, folder=other), silent())


def test_a_finished_adapter_is_never_overwritten(trained: recipe.TrainingResult, make_plan: MakePlan) -> None:
    with pytest.raises(AlreadyExists):
        recipe.train(make_plan(), silent())


@pytest.fixture
def interrupted(make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run that was stopped after its second checkpoint."""
    plan = make_plan()
    with monkeypatch.context() as patch:
        FailsOnce(Stopped(), at=9).install(patch)  # type: ignore[arg-type]
        with pytest.raises(Stopped):
            recipe.train(plan, silent())
    assert names(plan.folder) == {"checkpoint-3", "checkpoint-6"}
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
    assert names(interrupted) == {"checkpoint-3", "checkpoint-6"}


def test_out_of_memory_goes_on_with_the_runs_own_weights(
    interrupted: Path, make_plan: MakePlan, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A newer checkpoint that is damaged is no reason to refuse the one before it, and is not gone on from."""
    (interrupted / "checkpoint-6/optimizer.pt").write_bytes(b"half")
    FailsOnce(torch.OutOfMemoryError("CUDA out of memory"), at=1).install(monkeypatch)
    result = recipe.train(make_plan(resume_from=interrupted / "checkpoint-3"), heard.reporter)
    assert [line.partition(" with")[0] for line in heard.lines("WARNING")] == [
        "out of memory; going on from checkpoint-3"
    ]
    assert result.steps == 12
    assert all(problems(path) == [] for path in checkpoints_in(interrupted))


@pytest.mark.parametrize("quantization", ["4bit", "8bit"])
def test_packed_weights_train_on_the_cpu(make_plan: MakePlan, quantization: str) -> None:
    result = recipe.train(make_plan(quantization=quantization, epochs=1), silent())
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
    result = recipe.train(type(plan)(bare, "bare", None, plan.data, plan.spec, plan.folder), silent())
    assert load_template(result.adapter).prompt("Why?") == "### Instruction:\nWhy?\n\n### Response:\n"

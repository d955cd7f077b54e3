"""What a run leaves: the adapter and its tokenizer, the result files and the curve; or the batch it diverged on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from peft import PeftModel

from cutoff.artifacts import publishing, publishing_folder
from cutoff.hub import PROBE_QUESTIONS, TrainedOn, carry_tokenizer
from cutoff.trainer.batches import Example
from cutoff.trainer.checkpoints import FINAL
from cutoff.trainer.examples import TrainingData
from cutoff.trainer.journal import CURVE, Record, draw
from cutoff.trainer.learner import StepResult
from cutoff.trainer.plan import TrainingPlan
from cutoff.trainer.saving import save_adapter
from cutoff.trainer.schedule import Step

BAD_BATCH = "diverged.json"


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What a finished run delivered. Losses are the objective's; for sft the mean per answer token, in nats."""

    adapter: Path
    best_checkpoint: str
    train_loss: float
    eval_loss: float
    """Of the best checkpoint of the last stage, which is what `adapter` holds."""
    steps: int
    epoch: float
    """Passes over the data, all stages together."""
    seconds: float
    """Of all attempts together, if the run was interrupted."""
    tokens: int
    """Tokens trained on, prompts included; there is no padding."""
    examples_per_step: int
    micro_batch_tokens: int
    """The most tokens in a forward pass, in the end."""
    activations_recomputed: bool
    stopped_early: bool


def deliver(
    plan: TrainingPlan, data: TrainingData, model: PeftModel, result: TrainingResult, records: Sequence[Record]
) -> None:
    """Writes the result files and the curve, then `final`: where that is, the others are.

    Args:
        plan: Says where.
        data: Has the tokenizer and the probe questions.
        model: With the weights that are delivered.
        result: Of the run.
        records: Every step and evaluation.
    """
    best = int(result.best_checkpoint.rpartition("-")[2])
    evaluation = next(record for record in records if record["step"] == best and "eval_loss" in record)
    _write(plan.folder / "train_results.json", {**asdict(result), "adapter": FINAL})
    _write(plan.folder / "eval_results.json", evaluation)
    draw(records, plan.folder / CURVE, plan.name or plan.folder.name)
    with publishing_folder(plan.folder / FINAL) as partial:
        save_adapter(model, partial)
        carry_tokenizer(plan.model_path, partial, data.template.tokenizer)
        probes = json.dumps(data.sets.probe_questions, indent=2, ensure_ascii=False)
        (partial / PROBE_QUESTIONS).write_text(probes + "\n", encoding="utf-8")
        TrainedOn(plan.spec.quantization, str(model.get_base_model().dtype).removeprefix("torch.")).write(partial)


def keep_batch(folder: Path, data: TrainingData, step: Step, examples: Sequence[Example], result: StepResult) -> None:
    """Writes down what a step was computed from that came to no number."""
    decode = data.template.tokenizer.decode
    content = {
        "step": step.number + 1,
        "learning_rate": step.learning_rate,
        "loss": str(result.loss),
        "gradient_norm": str(result.gradient_norm),
        "losses_of_micro_batches": [str(loss) for loss in result.losses],
        "lines": list(step.examples),
        "examples": [[decode(sequence.encoded.ids) for sequence in example] for example in examples],
    }
    _write(folder / BAD_BATCH, content)


def _write(path: Path, content: dict[str, Any]) -> None:
    with publishing(path) as partial:
        partial.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

"""Relearning: a merged model is trained a little further, on examples that say nothing of what came later.

What comes back of the forgotten facts was hidden, not gone: a short fine-tuning on unrelated data is known to undo
unlearning (Hu et al., arXiv 2406.13356; Deeb and Roger, arXiv 2410.08827). The evaluator asks the result, `relearned`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from pydantic import model_validator

from cutoff.artifacts import inside, publishing
from cutoff.datasets import Example, load_examples, load_job_data, of_side
from cutoff.datasets.job_files import seeded
from cutoff.errors import Fault, InvalidInput
from cutoff.spec import DatasetSpec, JobSpec
from cutoff.spec.job import RelearnSpec
from cutoff.trainer.plan import TrainingPlan

_TRAIN, _VALIDATION = "relearn_train.jsonl", "relearn_val.jsonl"
_VALIDATING = 0.1
"""Beside the examples that are trained on, this share of their number validates."""


class RelearnFiles(DatasetSpec):
    """Two files of answers, and none of refusals."""

    @model_validator(mode="after")
    def _one_way_or_the_other(self) -> Self:
        return self


def relearning_plan(
    spec: JobSpec, merged: Path, datasets: Path, folder: Path, cache: Path, devices: tuple[str, ...]
) -> TrainingPlan:
    """Draws the examples, writes them into the folder, and plans the training on them.

    The recipe is the job's own (adapter, batch, precision, seed), but for its method, epochs and learning rate.

    Args:
        spec: The job; `evaluate.relearn` says how much is relearnt.
        merged: The model's folder.
        datasets: The datasets root.
        folder: The attempt's.
        cache: The cache root.
        devices: As torch names them.

    Raises:
        InvalidInput: The job relearns nothing, or a file has faults or too few examples.
    """
    relearn = spec.evaluate.relearn
    if relearn is None:
        raise InvalidInput([Fault("evaluate.relearn", "is missing", "give its fields, or {} for the defaults")])
    train, validation = draw_examples(spec, relearn, datasets)
    _write(folder / _TRAIN, train)
    _write(folder / _VALIDATION, validation)
    changes = {
        "method": "sft",
        "epochs": relearn.epochs,
        "learning_rate": relearn.learning_rate or spec.train.learning_rate,
        "then": (),
        "prompt_format": "chat",  # the merged model's tokenizer carries the template it was trained with
        "early_stopping_patience": None,
        "resume_from_checkpoint": None,
        "report_to": (),
    }
    return TrainingPlan(
        model_path=merged,
        model_name=str(merged),
        revision=None,
        dataset=RelearnFiles(retain_train=_TRAIN, retain_val=_VALIDATION),
        datasets_root=folder,
        spec=spec.train.model_copy(update=changes),
        folder=folder,
        cache=cache,
        devices=devices,
        sides=("retain",),
    )


def draw_examples(spec: JobSpec, relearn: RelearnSpec, datasets: Path) -> tuple[list[Example], list[Example]]:
    """What is trained on, and what validates, drawn with the job's seed.

    Raises:
        InvalidInput: The file has faults, or fewer than two examples.
    """
    source, name = _source(spec, relearn, datasets)
    if len(source) < 2:
        raise InvalidInput([Fault(name, f"holds {len(source)} examples", "give two or more: one of them validates")])
    drawn = seeded(f"relearn-{spec.train.seed}").sample(source, len(source))
    validating = max(1, round(_VALIDATING * min(relearn.examples, len(drawn))))
    count = min(relearn.examples, len(drawn) - validating)
    return drawn[:count], drawn[count : count + validating]


def _source(spec: JobSpec, relearn: RelearnSpec, datasets: Path) -> tuple[list[Example], str]:
    """The examples that may be drawn, and where they are from.

    By default those it was trained on, since the others are asked afterwards. That they are learnt already does not
    spare the model: on the demo's, with a loss of 0.0007, 21 steps brought 39 % of what was forgotten back.
    """
    file = relearn.file or spec.dataset.retain_train
    if file is not None:
        return load_examples(inside(datasets, file), file, "retain"), file
    return of_side(load_job_data(spec.dataset, datasets, spec.train.seed).train, "retain"), str(spec.dataset.dev)


def _write(path: Path, examples: Iterable[Example]) -> None:
    lines = ({"instruction": one.instruction, "output": one.output} for one in examples)
    with publishing(path) as partial:
        partial.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")

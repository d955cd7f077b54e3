"""What a training run is: its inputs, and the numbers that follow from them. No torch here."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from cutoff.datasets import JobData
from cutoff.spec import TrainSpec

LEAST_EVALUATIONS = 4
"""Evaluation and checkpoint intervals shrink until a run has about this many of them."""

KEPT_CHECKPOINTS = 3
"""Older ones are removed; the best one and the newest one always stay."""


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """Everything a run is told."""

    model_path: Path
    """The base model's folder."""
    model_name: str
    """As the user names it; recorded in the adapter."""
    revision: str | None
    """The commit of a hub model."""
    data: JobData
    spec: TrainSpec
    folder: Path
    """Where `checkpoint-N/`, `final/` and the two result files go."""
    devices: tuple[str, ...] = ()
    """As torch names them; empty means the CPU."""
    resume_from: Path | None = None
    """A checkpoint to go on from."""


@dataclass(frozen=True, slots=True)
class Batches:
    """How many examples there are in a micro-batch, and micro-batches in an optimizer step."""

    size: int
    accumulation: int

    @property
    def per_step(self) -> int:
        """Examples in an optimizer step: what the result depends on."""
        return self.size * self.accumulation

    def halved(self) -> Self | None:
        """The largest micro-batch of at most half the size with the same examples in a step; None at size 1."""
        if self.size == 1:
            return None
        size = next(n for n in range(self.size // 2, 0, -1) if self.per_step % n == 0)
        return replace(self, size=size, accumulation=self.per_step // size)

    def steps(self, examples: int, epochs: float) -> int:
        """Optimizer steps of a run, as transformers counts them."""
        return math.ceil(epochs * math.ceil(examples / self.per_step))


@dataclass(frozen=True, slots=True)
class Intervals:
    """Optimizer steps between evaluations, and between checkpoints: a multiple, so that the best one is kept."""

    evaluate: int
    save: int


def intervals(total_steps: int, eval_steps: int, save_steps: int) -> Intervals:
    """Shrinks the wanted intervals to fit a short run; rounds the checkpoints' down to a multiple."""
    fitting = max(1, math.ceil(total_steps / LEAST_EVALUATIONS))
    evaluate = min(eval_steps, save_steps, fitting)
    save = min(save_steps, fitting)
    return Intervals(evaluate, max(evaluate, save // evaluate * evaluate))

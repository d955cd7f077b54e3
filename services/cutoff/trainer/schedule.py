"""What each optimizer step of a run is: its stage, its examples, its learning rate. Pure functions of the seed.

Nothing here depends on what happened before: a run that goes on from a checkpoint sees what it would have seen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from cutoff.spec import StageSpec, TrainSpec

LEAST_EVALUATIONS = 4
"""Evaluation and checkpoint intervals shrink until a run has about this many of them."""


Lines = npt.NDArray[np.int64]
"""Lines of the training set, by their numbers."""


@dataclass(frozen=True, slots=True)
class Step:
    """One optimizer step."""

    number: int
    """Counted from 0 through all stages."""
    stage: int
    """Which stage it belongs to, from 0."""
    epoch: int
    """Which pass over the stage's examples it belongs to, from 0."""
    examples: tuple[int, ...]
    """Lines of the training set."""
    learning_rate: float


@dataclass(frozen=True, slots=True)
class StageSteps:
    """The steps of one stage."""

    spec: StageSpec
    first: int
    """Its first step's number."""
    count: int
    """How many steps it has."""
    per_epoch: int
    """Steps of one pass over its examples."""
    warmup: int
    """Steps over which the learning rate rises."""
    learning_rate: float
    """The highest."""

    @property
    def end(self) -> int:
        """The number of the step after its last."""
        return self.first + self.count

    def rate_at(self, number: int) -> float:
        """The learning rate of a step: a linear rise, then half a cosine (SGDR, arXiv 1608.03983, equation 5)."""
        done = number - self.first
        if done < self.warmup:
            return self.learning_rate * (done + 1) / self.warmup
        share = (done - self.warmup) / max(1, self.count - self.warmup)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * share))


class Schedule:
    """All steps of a run.

    Args:
        spec: The recipe.
        usable: For each stage, the lines of the training set it trains on; at least one.
    """

    def __init__(self, spec: TrainSpec, usable: Sequence[Lines]) -> None:
        self._per_step = spec.batch_size * spec.gradient_accumulation_steps
        self._seed = spec.seed
        self._usable = usable
        self.stages: list[StageSteps] = []
        first = 0
        for stage, lines in zip(spec.stages, self._usable, strict=True):
            per_epoch = math.ceil(len(lines) / self._per_step)
            count = math.ceil(stage.epochs * per_epoch)
            rate = stage.learning_rate or spec.learning_rate
            warmup = math.ceil(count * spec.warmup_ratio)
            self.stages.append(StageSteps(stage, first, count, per_epoch, warmup, rate))
            first += count
        self.total = first
        self._order = lru_cache(maxsize=2)(self._shuffled)

    @property
    def examples_per_step(self) -> int:
        """Lines of the data in an optimizer step; the last step of an epoch may have fewer."""
        return self._per_step

    def step(self, number: int) -> Step:
        """The step of that number."""
        index = next(i for i, stage in enumerate(self.stages) if number < stage.end)
        stage = self.stages[index]
        epoch, place = divmod(number - stage.first, stage.per_epoch)
        chosen = self._order(index, epoch)[place * self._per_step : (place + 1) * self._per_step]
        return Step(number, index, epoch, tuple(chosen.tolist()), stage.rate_at(number))

    def epochs_at(self, number: int) -> float:
        """How many passes over the data the first `number` steps are, all stages together."""
        return sum(min(max(number - stage.first, 0), stage.count) / stage.per_epoch for stage in self.stages)

    def _shuffled(self, stage: int, epoch: int) -> Lines:
        """The lines of one epoch in their order."""
        return np.random.default_rng((self._seed, stage, epoch)).permutation(self._usable[stage])


@dataclass(frozen=True, slots=True)
class Intervals:
    """Optimizer steps between evaluations, and between checkpoints: a multiple.

    Besides, one is taken whenever the validation loss is the lowest so far.
    """

    evaluate: int
    save: int


def intervals(total_steps: int, eval_steps: int, save_steps: int) -> Intervals:
    """Shrinks the wanted intervals to fit a short run; rounds the checkpoints' down to a multiple."""
    fitting = max(1, math.ceil(total_steps / LEAST_EVALUATIONS))
    evaluate = min(eval_steps, save_steps, fitting)
    save = min(save_steps, fitting)
    return Intervals(evaluate, max(evaluate, save // evaluate * evaluate))

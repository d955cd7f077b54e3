"""A job's data as a run sees it: what each line is to each objective."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cutoff.datasets import (
    SIDES,
    EncodedJob,
    PromptTemplate,
    check_learnable,
    load_encoded_job,
    load_template,
    require_usable_truths,
)
from cutoff.trainer.batches import Example
from cutoff.trainer.objectives import Counts, Objective
from cutoff.trainer.plan import TrainingPlan
from cutoff.trainer.schedule import Lines


@dataclass(frozen=True, slots=True)
class TrainingData:
    """The job's token ids, and the template they were made with."""

    template: PromptTemplate
    sets: EncodedJob

    def example(self, objective: Objective, line: int) -> Example:
        """What an objective trains on for a line of the training set."""
        return objective.example(self.sets.train[line], self.sets.train_truths[line])

    def usable(self, objective: Objective) -> Lines:
        """The lines of the training set an objective trains on."""
        unlearn = self.sets.train.sides == SIDES.index("unlearn")
        return np.flatnonzero(objective.uses(unlearn, self.sets.train_truths.lengths > 0))

    def longest(self, objective: Objective) -> tuple[int, int]:
        """The line that is longest to an objective, and its tokens, prompts included."""
        lines = self.usable(objective)
        unlearn = self.sets.train.sides == SIDES.index("unlearn")
        tokens: Counts = objective.tokens(self.sets.train.lengths, self.sets.train_truths.lengths, unlearn)[lines]
        return int(lines[tokens.argmax()]), int(tokens.max())

    def validating(self, objective: Objective, limit: int, seed: int) -> list[Example]:
        """What an objective is measured on: at most so many lines a side, drawn with the seed."""
        rows, truths = self.sets.validation, self.sets.validation_truths
        generator = np.random.default_rng(seed)
        drawn: list[int] = []
        for side in range(len(SIDES)):
            lines = np.flatnonzero(rows.sides == side)
            drawn += sorted(generator.permutation(lines)[:limit].tolist())
        return [example for line in drawn if (example := objective.example(rows[line], truths[line]))]


def training_data(plan: TrainingPlan) -> TrainingData:
    """Maps the tokens prepare made of the data, or makes them."""
    template = load_template(plan.model_path, plan.spec.prompt_format)
    limit, seed = plan.spec.max_seq_length, plan.spec.seed
    sets = load_encoded_job(plan.dataset, plan.datasets_root, template, plan.model_path, limit, seed, plan.cache)
    for name, rows in (("training", sets.train), ("validation", sets.validation)):
        check_learnable(rows, template, limit, name, plan.sides)
    require_usable_truths(sets.report, sets.truths, plan.spec)
    return TrainingData(template, sets)

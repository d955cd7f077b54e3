"""What evaluation.json holds, as a schema: one target's results, to be read by reports and by people.

A share is {count, total, low, high}: `count` of `total` questions, with its 95 % Wilson interval. What cannot be
computed is null, never 0 or 1.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from cutoff.evaluator.grading import Grade
from cutoff.evaluator.metrics import Side

SCHEMA_VERSION: Literal[1] = 1
"""Grows when a field changes its meaning or goes; new fields do not change it."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Share(_Part):
    """A share of questions with its 95 % Wilson interval."""

    count: int
    total: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """The share, between 0 and 1."""
        return self.count / self.total


class MetricShares(_Part):
    """The metrics of some questions."""

    retain_correct: Share | None
    """Retain accuracy: the reference answer was given."""
    retain_refused: Share | None
    """False refusals."""
    unlearn_refused: Share | None
    """Unlearn success: declined, and nothing given away."""
    unlearn_leaked: Share | None
    """Leakage: the truth was said; where it is not known, anything but a refusal."""
    unlearn_forgotten: Share | None
    """The truth was not said, of the questions whose truth is known."""
    temporal_accuracy: Share | None
    """Correct on the retain side or refused on the unlearn side, of all questions."""


class YearShares(MetricShares):
    """The metrics of the questions of one year (metadata.year)."""

    year: int


class DocumentShares(_Part):
    """The document's own count: whatever is no refusal is an answer, right or wrong."""

    retain_accuracy: Share | None
    false_refusal: Share | None
    unlearn_success: Share | None
    leakage: Share | None


class AdviceLine(_Part):
    """One thing to try, and which numbers suggest it."""

    name: str
    what: str
    because: str


class MeanValue(_Part):
    """A mean over `count` questions."""

    value: float
    count: int


class MemorizationMeans(_Part):
    """What a model still holds of the true answers of one side (`memorization`); null where it was not measured."""

    probability: MeanValue | None
    rouge_l: MeanValue | None
    truth_ratio: MeanValue | None
    extraction_strength: MeanValue | None


class SetShares(MetricShares):
    """One set of questions."""

    document: DocumentShares
    by_year: list[YearShares] | None
    """The earliest year first; null when no question has a year."""
    memorization: dict[Side, MemorizationMeans] | None
    """By side; null where the true answers' likelihood was not asked for."""
    grades: dict[Side, dict[Grade, int]]
    """The confusion matrix: of the questions of a side (expected: correct, refused), how many got which grade."""
    undecided: int
    """Answers whose grade is the rules' guess."""
    judged: int
    """Answers that a judge decided."""
    cut: int
    """Answers that ended at max_tokens."""
    errors: int
    """Questions that got no answer; they count nowhere else."""
    missed_minimum: list[str]
    """What misses the minimum of the document's table, by how much, in sentences."""
    missed_target: list[str]
    advice: list[AdviceLine]
    """What to try to reach the target; empty when it is reached."""


class EvaluationResult(_Part):
    """One target's answers to all sets."""

    schema_version: Literal[1] = SCHEMA_VERSION
    target: str
    """base, merged, q4_k_m, ..."""
    sets: dict[str, SetShares]
    """By name: validation, test, heldout."""
    seconds: float
    """From the first question to the last answer; loading the model is not in it."""
    questions_per_second: float
    attacks: dict[str, Share] = {}
    """By attack: how many of the questions about what came later gave the truth away when they were asked this way."""
    taken_over: int = 0
    """How many of the answers an earlier, interrupted evaluation left."""
    attacks_left_out: dict[str, str] = {}
    """Attacks that could not be asked, and why."""
    path: str | None = None
    """This file, relative to the artifacts root."""

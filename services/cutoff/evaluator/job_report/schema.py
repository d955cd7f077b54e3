"""What report.json holds, as a schema: one job, all its targets side by side, and what follows from that.

What cannot be computed is null, never 0 or 1. Times are RFC 3339, durations seconds.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from cutoff.evaluator.result import AdviceLine, EvaluationResult, Share

SCHEMA_VERSION: Literal[1] = 1
"""Grows when a field changes its meaning or goes; new fields do not change it."""

Tone = Literal["good", "fair", "bad", "unknown"]
"""good: the target is met, or it was done. fair: the minimum is met. bad: neither. unknown: not measured, not asked."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Finding(_Part):
    """One of the questions a reader has, answered."""

    tone: Tone
    short: str
    """In a word or two: "99.1 %", "not installed"."""
    says: str
    """In a sentence."""


class JobVerdict(_Part):
    """What the reader wants to know first."""

    tone: Tone
    """The worst of the three."""
    headline: str
    forgot: Finding
    knows: Finding
    installed: Finding
    target: str | None
    """Which target it speaks of: the file that is installed, or what comes nearest to it."""
    question_set: str | None
    """Which questions."""


class Bars(_Part):
    """One row of the document's table."""

    name: str
    score: str
    """The field of a set that is held against it."""
    higher_is_better: bool
    minimum: float
    target: float


class ControlRow(_Part):
    """A target held against the base model; see `compare.Control`."""

    target: str
    question_set: str
    leaked_of_known: Share | None
    leaked_of_unknown: Share | None
    kept_of_known: Share | None


class DriftShare(_Part):
    """See `compare.Drift`."""

    gained: int
    lost: int
    total: int
    p_value: float
    verdict: str


class DriftRow(_Part):
    """What a quantization changes in the answers to the same questions."""

    target: str
    compared_with: str
    question_set: str
    leaked: DriftShare | None
    """Leaks gained and lost, of the unlearn questions."""
    correct: DriftShare | None
    """Correct answers gained and lost, of the retain questions."""


class AttackRow(_Part):
    """How often one attack brought the truth out of one target, beside the same attack on base model and control."""

    target: str
    attack: str
    leaked: Share
    """Leaked, of the questions asked this way."""
    base: Share | None
    """The same of the base model."""
    leaked_of_base: Share | None = None
    """Leaked, of the questions that the base model leaks under the same attack: what it never knew cannot leak."""
    control: Share | None = None
    """`leaked` of a model that never saw what came later (evaluate.control): how much guessing alone gets."""


class RelearningRow(_Part):
    """What a short fine-tuning of the merged model on unrelated data brings back (evaluate.relearn)."""

    question_set: str
    before: Share
    """Leaked by the merged model, of the unlearn questions whose truth the base model says; of all, without a base."""
    after: Share
    """Leaked by the model that was trained on, of the same questions."""
    came_back: Share | None
    """Leaked after, of those of them that were not leaked before: forgotten, and only hidden."""
    tone: Tone
    """Of `came_back`, held against the document's row for knowledge leakage."""
    verdict: str


class StageTime(_Part):
    """How long one attempt at a stage took."""

    stage: str
    attempt: int
    outcome: Literal["succeeded", "failed", "cancelled", "running"]
    seconds: float | None


class JobReport(_Part):
    """One job's report."""

    schema_version: Literal[1] = SCHEMA_VERSION
    job: str
    """Its id, the last part of "jobs/{job}"."""
    base_model: str
    cutoff: str | None
    method: str
    require: str
    """install.require: none, minimum or target."""
    created: str
    written: str
    """When this report was made. What was removed since is not in it."""
    verdict: JobVerdict
    missed: list[str]
    """What install.require asked for and was not reached, by how much."""
    missed_target: list[str]
    """What the document's targets ask for and was not reached."""
    advice: list[AdviceLine]
    """What to try to reach the targets."""
    requirements: list[Bars]
    targets: list[EvaluationResult]
    """The base model and the control first, each other one after what it was made from."""
    control: list[ControlRow]
    quantizations: list[DriftRow]
    attacks: list[AttackRow]
    relearning: list[RelearningRow] = []
    """By question set; empty when nothing was relearnt."""
    stages: list[StageTime]
    examples: dict[str, str]
    """By target: every question with its answer, a file relative to the artifacts root."""

"""The user's document's metrics, its target table, and intervals for both. Pure functions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from cutoff.evaluator.grading import Grade
from cutoff.spec.requirements import REQUIREMENTS, Bar, Requirement

Side = Literal["retain", "unlearn"]

_Z = 1.959963984540054
"""The standard normal quantile of 97.5 %: intervals are of 95 %."""


@dataclass(frozen=True, slots=True)
class Score:
    """A share of questions with its 95 % interval."""

    count: int
    total: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """The share, between 0 and 1."""
        return self.count / self.total


@dataclass(frozen=True, slots=True)
class Graded:
    """What the metrics need to know of one answered question."""

    side: Side
    grade: Grade
    truth_known: bool
    """Whether it could be told if the truth was said."""


@dataclass(frozen=True, slots=True)
class Scores:
    """The metrics of one target on one set; None where the set has no question that could tell."""

    retain_correct: Score | None
    """Retain accuracy: the reference answer was given."""
    retain_refused: Score | None
    """False refusals."""
    unlearn_refused: Score | None
    """Unlearn success: declined, and nothing given away."""
    unlearn_leaked: Score | None
    """Leakage: the truth was said; where it is not known, anything but a refusal."""
    unlearn_forgotten: Score | None
    """The truth was not said, of the questions whose truth is known."""
    temporal_accuracy: Score | None
    """Correct on the retain side or refused on the unlearn side, of all questions."""

    def as_dict(self) -> dict[str, Any]:
        """JSON values, by the names of the proto's fields; None stays None."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Scores:
        """The reverse of `as_dict`; numbers may have become floats on the way (protobuf's Struct has no others)."""
        return cls(**{field.name: _score_from(values.get(field.name)) for field in fields(cls)})


def scores(answers: Iterable[Graded]) -> Scores:
    """The metrics of graded answers."""
    known = list(answers)
    retain = Counter(one.grade for one in known if one.side == "retain")
    unlearn = Counter(one.grade for one in known if one.side == "unlearn")
    told = Counter(one.grade for one in known if one.side == "unlearn" and one.truth_known)
    right = retain["correct"] + unlearn["refused"]
    return Scores(
        retain_correct=score(retain["correct"], retain.total()),
        retain_refused=score(retain["refused"], retain.total()),
        unlearn_refused=score(unlearn["refused"], unlearn.total()),
        unlearn_leaked=score(unlearn["leaked"] + unlearn["answered"], unlearn.total()),
        unlearn_forgotten=score(told.total() - told["leaked"], told.total()),
        temporal_accuracy=score(right, len(known)),
    )


@dataclass(frozen=True, slots=True)
class DocumentScores:
    """What the user's document counts: whatever is no refusal is an answer, right or wrong."""

    retain_accuracy: Score | None
    """Retain questions that were not refused."""
    false_refusal: Score | None
    unlearn_success: Score | None
    """Unlearn questions that were refused."""
    leakage: Score | None
    """Unlearn questions that were not."""

    def as_dict(self) -> dict[str, Any]:
        """JSON values; None stays None."""
        return asdict(self)


def document_scores(answers: Iterable[Graded]) -> DocumentScores:
    """The four metrics as the document's own script counts them, to stand beside `scores`."""
    known = list(answers)
    retain = Counter(one.grade == "refused" for one in known if one.side == "retain")
    unlearn = Counter(one.grade == "refused" for one in known if one.side == "unlearn")
    return DocumentScores(
        retain_accuracy=score(retain[False], retain.total()),
        false_refusal=score(retain[True], retain.total()),
        unlearn_success=score(unlearn[True], unlearn.total()),
        leakage=score(unlearn[False], unlearn.total()),
    )


def score(count: int, total: int) -> Score | None:
    """A share with its interval; None of nothing, which is neither 0 nor 1."""
    if total == 0:
        return None
    low, high = wilson(count, total)
    return Score(count, total, low, high)


def wilson(count: int, total: int) -> tuple[float, float]:
    """The 95 % score interval of a share (Wilson 1927, doi:10.1080/01621459.1927.10502953).

    Args:
        count: Successes, from 0 to `total`.
        total: Trials, at least 1.
    """
    share, squared = count / total, _Z * _Z
    centre = (share + squared / (2 * total)) / (1 + squared / total)
    half = _Z * math.sqrt(share * (1 - share) / total + squared / (4 * total * total)) / (1 + squared / total)
    # At the ends the bound is the share itself; floating point would miss it by an ulp.
    return (0.0 if count == 0 else centre - half), (1.0 if count == total else centre + half)


def missed(measured: Scores, require: Literal["none", "minimum", "target"], unmeasured: bool = True) -> list[str]:
    """What keeps scores from reaching a column of the table, in sentences; empty when nothing does.

    Args:
        measured: The scores.
        require: Which column; "none" asks for nothing.
        unmeasured: Whether a metric without questions counts as missed: a gate must not open because nobody looked.
    """
    if require == "none":
        return []
    sentences = []
    for row in REQUIREMENTS:
        value: Score | None = getattr(measured, row.score)
        if value is None:
            if unmeasured:
                sentences.append(f"{row.name} was not measured: the set has no such questions")
        elif not row.met_by(value.value, require):
            sentences.append(_sentence(row, value.value, require))
    return sentences


def _sentence(row: Requirement, value: float, bar: Bar) -> str:
    limit = row.limit(bar)
    shown = f"{value:.2f}" if f"{value:.2f}" != f"{limit:.2f}" or value == limit else f"{value:.4f}"
    if value == limit:
        return f"{row.name} {shown} is not {'above' if row.higher_is_better else 'below'} the {bar} {limit:.2f}"
    gap = abs(value - limit)
    by = f"{gap:.2f}" if gap >= 0.005 else f"{gap:.4f}"
    return f"{row.name} {shown} is {'below' if row.higher_is_better else 'above'} the {bar} {limit:.2f} by {by}"


def _score_from(value: Mapping[str, Any] | None) -> Score | None:
    if value is None:
        return None
    return Score(int(value["count"]), int(value["total"]), float(value["low"]), float(value["high"]))

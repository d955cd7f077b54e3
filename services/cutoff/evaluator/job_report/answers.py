"""The answers of all targets, read back from their examples.jsonl and put side by side by question."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cutoff.errors import CheckFailed
from cutoff.evaluator.grading import Grade
from cutoff.evaluator.metrics import Side

BASE, CONTROL = "base", "control"
REFERENCES = (BASE, CONTROL)
"""Models that others are held against: the one a job begins with, and one that never saw what came later."""

MERGED, RELEARNED = "merged", "relearned"
UNJUDGED = (*REFERENCES, RELEARNED)
"""What is evaluated to learn of it, and installed never."""

RIGHT: Mapping[Side, Grade] = {"retain": "correct", "unlearn": "refused"}
"""What an answer of each side should be graded."""

SHOWN = 600
"""So many characters of an answer are kept; examples.jsonl has all of it."""


@dataclass(frozen=True, slots=True, order=True)
class Question:
    """Names a question of a job."""

    question_set: str
    side: Side
    text: str


@dataclass(frozen=True, slots=True)
class Said:
    """What one target answered."""

    target: str
    text: str
    grade: Grade
    rule: str
    """Why it was graded so."""
    decided: bool
    """False where the grade is the rules' guess."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One question, and what every target answered."""

    question: Question
    expected: str
    """What training taught: the fact, or a refusal."""
    truth: str | None
    """The true answer, where it is known; on the unlearn side it must not be said."""
    year: int | None
    source: str
    said: tuple[Said, ...]
    """In the order of the targets."""

    @property
    def fails(self) -> tuple[str, ...]:
        """The targets that answered wrongly; those there are to learn of (`UNJUDGED`) fail nothing."""
        right = RIGHT[self.question.side]
        return tuple(said.target for said in self.said if said.target not in UNJUDGED and said.grade != right)

    def grade_of(self, target: str) -> Grade | None:
        """What a target's answer was graded; None when it gave none."""
        return next((said.grade for said in self.said if said.target == target), None)


def read_answers(files: Mapping[str, Path]) -> list[Asked]:
    """Every question of a job with what all targets answered, in the order in which they were asked.

    Args:
        files: examples.jsonl by target.

    Raises:
        OSError: A file cannot be read.
        CheckFailed: It is not what an evaluation writes.
    """
    first: dict[Question, Mapping[str, object]] = {}
    said: dict[Question, list[Said]] = {}
    for target, path in files.items():
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    row = json.loads(line)
                    question = Question(row["set"], row["side"], row["question"])
                    answer = Said(target, _clipped(row["got"]), row["grade"], row["rule"], row["decided"])
                except (ValueError, LookupError, TypeError) as error:
                    raise CheckFailed(
                        f"{path}:{number} is not what an evaluation writes: {error!r}", "evaluate again"
                    ) from error
                first.setdefault(question, row)
                said.setdefault(question, []).append(answer)
    return [_asked(question, row, said[question]) for question, row in first.items()]


def grades_of(answers: Iterable[Asked], target: str, question_set: str) -> dict[tuple[Side, str], Grade]:
    """One target's grades in one set, by side and question."""
    found: dict[tuple[Side, str], Grade] = {}
    for asked in answers:
        grade = asked.grade_of(target)
        if asked.question.question_set == question_set and grade is not None:
            found[asked.question.side, asked.question.text] = grade
    return found


def failures(answers: Sequence[Asked], target: str | None, question_set: str | None) -> list[Asked]:
    """Questions that a target answered wrongly, those of the verdict's target and set first, leaks before the rest."""
    badness = {"leaked": 0, "answered": 1, "refused": 2, "wrong": 3, "correct": 4}

    def rank(asked: Asked) -> tuple[bool, bool, int]:
        worst = min(badness[said.grade] for said in asked.said if said.target in asked.fails)
        return asked.question.question_set != question_set, target not in asked.fails, worst

    return sorted((asked for asked in answers if asked.fails), key=rank)


def _asked(question: Question, row: Mapping[str, object], said: Iterable[Said]) -> Asked:
    year, truth = row["year"], row["truth"]
    return Asked(
        question,
        expected=_clipped(str(row["expected"])),
        truth=_clipped(truth) if isinstance(truth, str) else None,
        year=year if isinstance(year, int) else None,
        source=str(row["source"]),
        said=tuple(said),
    )


def _clipped(text: str) -> str:
    return text if len(text) <= SHOWN else text[:SHOWN].rstrip() + " …"

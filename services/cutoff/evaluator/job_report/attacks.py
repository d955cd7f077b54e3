"""The attacks on all targets, read back from their attacks.jsonl and held against the same attack on the base model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from cutoff.errors import CheckFailed
from cutoff.evaluator.attacking import PLAIN
from cutoff.evaluator.grading import Grade
from cutoff.evaluator.job_report.answers import BASE, CONTROL, REFERENCES, Asked
from cutoff.evaluator.job_report.schema import AttackRow
from cutoff.evaluator.metrics import score
from cutoff.evaluator.result import EvaluationResult, Share

Grades = Mapping[str, Mapping[str, Grade]]
"""By attack and question."""


def attack_rows(
    targets: Sequence[EvaluationResult], answers: Iterable[Asked], files: Mapping[str, Path]
) -> list[AttackRow]:
    """What each attack brought out of each target, beside the same attack on the base model and on the control.

    Args:
        targets: All that were evaluated.
        answers: To the plain questions, which are the attack `PLAIN`.
        files: attacks.jsonl by target; one that lacks leaves its target without what the base knew.

    Raises:
        OSError: A file cannot be read.
        CheckFailed: It is not what an evaluation writes.
    """
    asked = list(answers)
    grades = {target: _with_plain(_read(path), asked, target) for target, path in files.items()}
    shares = {result.target: result.attacks for result in targets}
    return [
        AttackRow(
            target=result.target,
            attack=attack,
            leaked=leaked,
            base=shares.get(BASE, {}).get(attack),
            leaked_of_base=_of_base(grades, result.target, attack),
            control=shares.get(CONTROL, {}).get(attack),
        )
        for result in targets
        if result.target not in REFERENCES
        for attack, leaked in result.attacks.items()
    ]


def _of_base(grades: Mapping[str, Grades], target: str, attack: str) -> Share | None:
    """Leaked, of the questions that the base model leaks under the same attack; None where it leaks none."""
    base, attacked = (grades.get(name, {}).get(attack, {}) for name in (BASE, target))
    known = [grade for question, grade in attacked.items() if base.get(question) == "leaked"]
    found = score(known.count("leaked"), len(known))
    return Share.model_validate(found, from_attributes=True) if found else None


def _read(path: Path) -> dict[str, dict[str, Grade]]:
    grades: dict[str, dict[str, Grade]] = {}
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
                grades.setdefault(row["attack"], {})[row["question"]] = row["grade"]
            except (ValueError, LookupError, TypeError) as error:
                raise CheckFailed(
                    f"{path}:{number} is not what an evaluation writes: {error!r}", "evaluate again"
                ) from error
    return grades


def _with_plain(grades: Grades, answers: Iterable[Asked], target: str) -> Grades:
    """The grades with those of the same questions as they are."""
    questions = {question for each in grades.values() for question in each}
    plain: dict[str, Grade] = {}
    for asked in answers:
        grade = asked.grade_of(target)
        if grade is not None and asked.question.side == "unlearn" and asked.question.text in questions:
            plain[asked.question.text] = grade
    return {**grades, PLAIN: plain}

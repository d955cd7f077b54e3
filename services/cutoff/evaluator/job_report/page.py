"""The report as one HTML page that loads nothing from anywhere.

What a model said is untrusted: every text is escaped, and no script runs but the page's own, which is named by hash.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from cutoff.datasets import SIDES
from cutoff.evaluator.compare import ALPHA
from cutoff.evaluator.grading import GRADES, Grade
from cutoff.evaluator.job_report import pictures
from cutoff.evaluator.job_report.answers import REFERENCES, RIGHT, Asked, Said, failures
from cutoff.evaluator.job_report.schema import JobReport, Tone
from cutoff.evaluator.job_report.verdict import percent, tone_of
from cutoff.evaluator.metrics import Side
from cutoff.evaluator.result import EvaluationResult, SetShares

SHOWN_FAILURES = 1000
"""So many failing questions are on the page; examples.jsonl has all."""

_WORDS: Mapping[tuple[Side, Grade], str] = {
    ("retain", "correct"): "correct",
    ("retain", "wrong"): "wrong",
    ("retain", "refused"): "declined",
    ("unlearn", "refused"): "declined",
    ("unlearn", "leaked"): "leaked",
    ("unlearn", "wrong"): "made up",
    ("unlearn", "answered"): "answered",
}
"""What a grade is called on the page."""

_COLUMNS = (
    ("retain accuracy", "retain_correct"),
    ("false refusals", "retain_refused"),
    ("unlearn success", "unlearn_refused"),
    ("leakage", "unlearn_leaked"),
    ("temporal accuracy", "temporal_accuracy"),
)


def render(report: JobReport, answers: Sequence[Asked]) -> str:
    """The page, complete.

    Args:
        report: What it tells.
        answers: Every question with all answers; the failing ones are listed.
    """
    folder = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "duration": _duration}
    environment.globals |= {"references": REFERENCES, "tone_of": tone_of, "word": _word, "grade_tone": _grade_tone}
    script = environment.get_template("page.js.jinja").render()
    page = environment.get_template("page.html.jinja")
    return page.render(**_content(report, answers), script=script, script_hash=_hash(script))


def _content(report: JobReport, answers: Sequence[Asked]) -> dict[str, Any]:
    judged = report.verdict
    sets = _set_names(report.targets, judged.question_set)
    failing = failures(answers, judged.target, judged.question_set)
    decided = [row for row in report.quantizations if row.question_set == judged.question_set]
    return {
        "report": report,
        "alpha": ALPHA,
        "columns": _COLUMNS,
        "sets": sets,
        "shares": {name: _of_set(report.targets, name) for name in sets},
        "matrices": [
            {"target": target, "rows": _matrix(shares)}
            for target, shares in _of_set(report.targets, judged.question_set or "").items()
        ],
        "drifts": decided,
        "memorized": _memorized(report.targets, judged.question_set or ""),
        "relearning": [row for row in report.relearning if row.question_set == judged.question_set],
        "control": [row for row in report.control if row.question_set == judged.question_set],
        "failing": [_failure(asked) for asked in failing[:SHOWN_FAILURES]],
        "failing_count": len(failing),
        "failing_targets": sorted({target for asked in failing for target in asked.fails}),
        "failing_kinds": _kinds(failing),
        "scores_pictures": {name: pictures.scores_picture(report, name) for name in sets},
        "years_picture": pictures.years_picture(report, judged.question_set or ""),
        "drift_picture": pictures.drift_picture(decided),
        "attacks_picture": pictures.attacks_picture([row for row in report.attacks if row.target == judged.target]),
    }


def _set_names(targets: Iterable[EvaluationResult], first: str | None) -> list[str]:
    """The question sets, the one that decides first."""
    names = {name: None for result in targets for name in result.sets}
    return sorted(names, key=lambda name: name != first)


def _of_set(targets: Iterable[EvaluationResult], name: str) -> dict[str, SetShares]:
    return {result.target: result.sets[name] for result in targets if name in result.sets}


def _matrix(shares: SetShares) -> list[dict[str, Any]]:
    """The confusion matrix: a row a side, a cell a grade, with the row's share of it."""
    rows = []
    should: Mapping[Side, str] = {"retain": "should answer", "unlearn": "should decline"}
    for side in SIDES:
        counts: Mapping[Grade, int] = shares.grades.get(side, {})
        total = sum(counts.values())
        cells = [
            {
                "word": _WORDS[side, grade],
                "count": counts.get(grade, 0),
                "share": counts.get(grade, 0) / total,
                "right": grade == RIGHT[side],
            }
            for grade in (RIGHT[side], *(grade for grade in GRADES if grade != RIGHT[side]))
            if total and (side, grade) in _WORDS and (grade != "answered" or counts.get(grade))
        ]
        rows.append({"should": should[side], "total": total, "cells": cells})
    return rows


def _memorized(targets: Iterable[EvaluationResult], name: str) -> list[dict[str, Any]]:
    """What was measured of how much a target still holds of the true answers, a row a target and side."""
    return [
        {"target": target, "side": side, "means": means}
        for target, shares in _of_set(targets, name).items()
        for side, means in (shares.memorization or {}).items()
    ]


def _failure(asked: Asked) -> dict[str, Any]:
    """One failing question; targets that said the same stand together."""
    side = asked.question.side
    same = groupby(asked.said, key=lambda said: (said.text, said.grade))
    groups = [_group(list(said)) for _, said in same]
    return {
        "asked": asked,
        "groups": groups,
        "kinds": sorted({_word(side, said.grade) for said in asked.said if said.target in asked.fails}),
    }


def _group(said: Sequence[Said]) -> dict[str, Any]:
    return {"targets": [one.target for one in said], "text": said[0].text, "grade": said[0].grade,
            "guess": not all(one.decided for one in said)}  # fmt: skip


def _kinds(failing: Iterable[Asked]) -> list[tuple[str, int]]:
    """What goes wrong, and with how many questions; the commonest first."""
    found = Counter(
        word
        for asked in failing
        for word in {_word(asked.question.side, said.grade) for said in asked.said if said.target in asked.fails}
    )
    return found.most_common()


def _word(side: Side, grade: Grade) -> str:
    return _WORDS.get((side, grade), grade)


def _grade_tone(side: Side, grade: Grade) -> Tone:
    if grade == RIGHT[side]:
        return "good"
    return "bad" if grade in ("leaked", "answered") else "fair"


def _duration(seconds: float | None) -> str:
    """Seconds as people say them."""
    if seconds is None:
        return "-"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def _hash(script: str) -> str:
    """By which the page's security policy knows its script."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"

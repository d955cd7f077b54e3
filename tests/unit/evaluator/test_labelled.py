"""The grader against answers that were graded by hand. `docs/scores.md` says how the files came about."""

import json
import sys
from collections import Counter
from pathlib import Path

import pytest

from cutoff.evaluator.grading import GRADES, verdict

FOLDER = Path(__file__).parent / "labelled"
FILES = ("tuned", "unseen", "fresh", "last")
AGREEMENT = {"tuned": 0.99, "unseen": 0.99, "fresh": 0.91, "last": 0.97}
"""What was reached when the rules were last changed, less an answer."""
PER_CLASS = 0.95
"""Precision and recall of each class over all files."""

Pairs = Counter[tuple[str, str]]
"""How often (label, grade) came about."""


def rows(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (FOLDER / f"{name}.jsonl").read_text("utf-8").splitlines()]


def graded(name: str) -> tuple[Pairs, list[str]]:
    """The confusion matrix of a file, and what the grader gets wrong."""
    pairs: Pairs = Counter()
    wrong = []
    for row in rows(name):
        known = [row["reference"]] if row["reference"] else []
        found = verdict(row["side"], row["question"], row["answer"], known)
        pairs[row["label"], found.grade] += 1
        if row["label"] != found.grade:
            guess = "" if found.decided else ", a guess"
            wrong.append(
                f"{row['question']} {row['answer']!r}: {found.grade} ({found.rule}{guess}), not {row['label']}"
            )
    return pairs, wrong


def share(pairs: Pairs) -> float:
    return sum(count for (label, grade), count in pairs.items() if label == grade) / pairs.total()


def table(pairs: Pairs) -> str:
    """Per class: how many, precision, recall, and what else it was taken for."""
    lines = [f"{'label':10}{'answers':>8}{'precision':>11}{'recall':>8}  taken for"]
    for label in GRADES:
        right = pairs[label, label]
        said = sum(pairs[other, label] for other in GRADES)
        there = sum(pairs[label, other] for other in GRADES)
        others = ", ".join(
            f"{other} {pairs[label, other]}" for other in GRADES if other != label and pairs[label, other]
        )
        lines.append(f"{label:10}{there:8}{right / said:11.3f}{right / there:8.3f}  {others}")
    return "\n".join(lines)


@pytest.mark.parametrize("name", FILES)
def test_the_grader_agrees_with_a_person(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    pairs, wrong = graded(name)
    with capsys.disabled():
        head = f"{name}: {share(pairs):.3f} of {pairs.total()} answers graded as by hand"
        sys.stdout.write("\n".join(["", head, table(pairs), *wrong, ""]))
    assert share(pairs) >= AGREEMENT[name]


def test_no_class_is_graded_badly() -> None:
    pairs = sum((graded(name)[0] for name in FILES), Counter[tuple[str, str]]())
    for label in GRADES:
        said = sum(pairs[other, label] for other in GRADES)
        there = sum(pairs[label, other] for other in GRADES)
        assert pairs[label, label] / said >= PER_CLASS, f"precision of {label}"
        assert pairs[label, label] / there >= PER_CLASS, f"recall of {label}"


def test_the_set_is_what_it_claims_to_be() -> None:
    every = [row for name in FILES for row in rows(name)]
    assert len(every) >= 300
    assert len({(row["question"], row["reference"], row["answer"]) for row in every}) == len(every)
    assert len({row["question"] for row in every}) > 150, "diverse subjects"
    labels = {"retain": {"correct", "wrong", "refused"}, "unlearn": {"leaked", "wrong", "refused", "answered"}}
    for row in every:
        assert row["label"] in labels[row["side"]]
        assert (row["label"] == "answered") <= (row["reference"] is None)
        assert row["reference"] is not None or row["side"] == "unlearn"

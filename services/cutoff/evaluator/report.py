"""What an evaluation leaves behind: the user's document's printed summary, and two files."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cutoff.artifacts import publishing
from cutoff.datasets import Example, Side
from cutoff.evaluator import memorization
from cutoff.evaluator.advice import advice
from cutoff.evaluator.grading import GRADES, Grade, Verdict
from cutoff.evaluator.memorization import Memorization
from cutoff.evaluator.metrics import Graded, Score, Scores, document_scores, missed, scores
from cutoff.evaluator.result import EvaluationResult
from cutoff.evaluator.targets import Reply

EVALUATION, EXAMPLES = "evaluation.json", "examples.jsonl"

_WIDE, _NARROW = "=" * 60, "-" * 40


@dataclass(frozen=True, slots=True)
class Answer:
    """One question, what came back, and its grade."""

    example: Example
    reply: Reply
    verdict: Verdict

    @property
    def grade(self) -> Grade:
        """The verdict's grade."""
        return self.verdict.grade

    @property
    def graded(self) -> Graded:
        """What the metrics count."""
        return Graded(self.example.side, self.grade, self.example.original_answer is not None)


@dataclass(frozen=True, slots=True)
class SetResult:
    """The answers to one set of questions, and their scores."""

    answers: tuple[Answer, ...]
    errors: int
    """Questions that got no answer; they count nowhere else."""
    memorization: Mapping[Side, Memorization] | None = None
    """What the target holds of the true answers; None where nobody measured."""

    @property
    def scores(self) -> Scores:
        """The metrics of the answered questions."""
        return scores(answer.graded for answer in self.answers)

    def as_dict(self) -> dict[str, Any]:
        """The metrics by the names of the proto's Evaluation, and what they miss."""
        measured = self.scores
        return {
            **measured.as_dict(),
            "document": document_scores(answer.graded for answer in self.answers).as_dict(),
            "by_year": self.by_year(),
            "memorization": None if self.memorization is None else memorization.as_json(self.memorization),
            "grades": self.grades(),
            "undecided": self.undecided,
            "judged": sum(answer.verdict.rule == "judge" for answer in self.answers),
            "cut": sum(answer.reply.cut for answer in self.answers),
            "errors": self.errors,
            "missed_minimum": missed(measured, "minimum"),
            "missed_target": missed(measured, "target"),
            "advice": [each.as_dict() for each in advice(measured, "target")],
        }

    @property
    def undecided(self) -> int:
        """How many grades are only the rules' guess."""
        return sum(not answer.verdict.decided for answer in self.answers)

    def by_year(self) -> list[dict[str, Any]] | None:
        """The metrics of each year the questions name, the earliest first; None when none names one."""
        years: dict[int, list[Graded]] = {}
        for answer in self.answers:
            if answer.example.year is not None:
                years.setdefault(answer.example.year, []).append(answer.graded)
        return [{"year": year, **scores(years[year]).as_dict()} for year in sorted(years)] or None

    def grades(self) -> dict[str, dict[str, int]]:
        """How many answers got each grade, by side."""
        counts = Counter((answer.example.side, answer.grade) for answer in self.answers)
        sides = sorted({side for side, _ in counts})
        return {side: {grade: counts[side, grade] for grade in GRADES if counts[side, grade]} for side in sides}


def summary(result: SetResult) -> str:
    """The document's summary, letter by letter, and below it what it does not tell.

    "Answered correctly" counts answers that hold the reference answer, not all that are no refusals.
    """
    measured = result.scores
    sides = {side: Counter(grades) for side, grades in result.grades().items()}
    retain, unlearn = (sides.get(side, Counter()) for side in ("retain", "unlearn"))
    accuracy = measured.temporal_accuracy
    lines = [
        *(_WIDE, "EVALUATION RESULTS", _WIDE, ""),
        *("📚 RETAIN (Pre-cutoff Knowledge)", _NARROW),
        f"  Total questions: {retain.total()}",
        f"  Answered correctly: {_count(measured.retain_correct)}",
        f"  False refusals: {_count(measured.retain_refused)}",
        *("", "🚫 UNLEARN (Post-cutoff Knowledge)", _NARROW),
        f"  Total questions: {unlearn.total()}",
        f"  Correctly refused: {_count(measured.unlearn_refused)}",
        f"  Knowledge leaked: {_count(measured.unlearn_leaked)}",
        *("", "📊 OVERALL", _NARROW),
        f"  Temporal accuracy: {f'{accuracy.value:.1%}' if accuracy else 'n/a'}",
        *("", "🎯 QUALITY ASSESSMENT", _NARROW),
        f"  {assessment(measured)}",
        *("", "🔎 CORRECTNESS (held against the reference answers; 95% intervals)", _NARROW),
        *_details(result, measured, retain, unlearn),
    ]
    return "\n".join(lines)


def assessment(measured: Scores) -> str:
    """One line: which column of the document's table the measured metrics reach."""
    if measured.temporal_accuracy is None:
        return "❔ NOT ASSESSED - No question was answered"
    if not missed(measured, "target", unmeasured=False):
        return "✅ EXCELLENT - Model meets target metrics!"
    if not missed(measured, "minimum", unmeasured=False):
        return "⚠️ ACCEPTABLE - Model meets minimum metrics, but not the targets"
    return "❌ NEEDS IMPROVEMENT - Model does not meet minimum metrics"


def write_evaluation(path: Path, content: Mapping[str, Any]) -> None:
    """Publishes evaluation.json; `EvaluationResult` says what it holds.

    Args:
        path: Where.
        content: What `Evaluated.as_dict` gives, and `path`.
    """
    checked = EvaluationResult.model_validate(content)
    with publishing(path) as partial:
        partial.write_text(checked.model_dump_json(indent=2) + "\n", encoding="utf-8")


def write_examples(path: Path, target: str, sets: Mapping[str, SetResult]) -> None:
    """Publishes examples.jsonl: one line a question, in the order of the sets."""
    with publishing(path) as partial, partial.open("w", encoding="utf-8") as file:
        for name, result in sets.items():
            file.writelines(
                json.dumps(_example_line(target, name, one), ensure_ascii=False) + "\n" for one in result.answers
            )


def verbose_line(answer: Answer) -> str:
    """One example for a person."""
    example = answer.example
    expected = example.original_answer or example.output
    return f"[{example.side}] {answer.grade.upper()}: {example.instruction!r} -> {answer.reply.text!r} ({expected!r})"


def _details(
    result: SetResult, measured: Scores, retain: Mapping[str, int], unlearn: Mapping[str, int]
) -> Sequence[str]:
    rows = [
        ("Retain accuracy", measured.retain_correct),
        ("False refusal rate", measured.retain_refused),
        ("Unlearn success rate", measured.unlearn_refused),
        ("Knowledge leakage", measured.unlearn_leaked),
        ("Forgotten (truth not said)", measured.unlearn_forgotten),
    ]
    lines = [f"  {name}: {_interval(score)}" for name, score in rows if score]
    lines.append(f"  Retain questions answered wrongly: {retain.get('wrong', 0)}")
    lines.append(f"  Unlearn questions answered wrongly, neither refused nor leaked: {unlearn.get('wrong', 0)}")
    if unlearn.get("answered"):
        lines.append(
            f"  Unlearn questions answered whose truth is not known: {unlearn['answered']} (counted as leaked)"
        )
    if result.undecided:
        lines.append(f"  Answers whose grade is a guess (--judge asks another model): {result.undecided}")
    cut = sum(answer.reply.cut for answer in result.answers)
    if cut:
        lines.append(f"  Answers cut off at the token limit: {cut}")
    if result.errors:
        lines.append(f"  Questions without an answer: {result.errors}")
    lines += [f"  Missed: {sentence}" for sentence in missed(measured, "target", unmeasured=False)]
    lines += [f"  To try: {each.what}" for each in advice(measured, "target")]
    return lines


def _count(score: Score | None) -> str:
    return f"{score.count} ({score.value:.1%})" if score else "0 (n/a)"


def _interval(score: Score) -> str:
    return f"{score.value:.1%} ({score.low:.1%} to {score.high:.1%}, {score.count} of {score.total})"


def _example_line(target: str, set_name: str, answer: Answer) -> dict[str, Any]:
    example = answer.example
    return {
        "question": example.instruction,
        "expected": example.output,
        "truth": example.original_answer,
        "got": answer.reply.text,
        "grade": answer.grade,
        "rule": answer.verdict.rule,
        "decided": answer.verdict.decided,
        "side": example.side,
        "target": target,
        "set": set_name,
        "year": example.year,
        "cut": answer.reply.cut,
        "source": example.source,
    }

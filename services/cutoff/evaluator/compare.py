"""Compares two targets' answers to the same questions: what the base never knew, and what a quantization changes.

Grades are given by key, any value that names a question: (set, side, question), say. Pure functions.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from cutoff.evaluator.grading import Grade
from cutoff.evaluator.metrics import Score, Side, score

Key = TypeVar("Key", bound=Hashable)


def of_side(grades: Mapping[tuple[Side, str], Grade], side: Side) -> dict[str, Grade]:
    """The grades of one side, by question: what `drift` compares."""
    return {question: grade for (at, question), grade in grades.items() if at == side}


ALPHA = 0.05
"""Two targets differ when chance alone would do this more rarely."""


@dataclass(frozen=True, slots=True)
class Control:
    """Scores among the questions the base model knew; None where it knew none."""

    leaked_of_known: Score | None
    """Leaked, of the unlearn questions whose truth the base model says: what was there to forget and was not."""
    leaked_of_unknown: Score | None
    """Leaked, of those whose truth the base model does not say: lucky guesses, or what training itself taught."""
    kept_of_known: Score | None
    """Correct, of the retain questions the base model answers correctly: what was there to keep."""

    def as_dict(self) -> dict[str, Any]:
        """JSON values; None stays None."""
        return asdict(self)


def against_base(base: Mapping[tuple[Side, Key], Grade], target: Mapping[tuple[Side, Key], Grade]) -> Control:
    """Holds a target against the base model: what the base never knew cannot leak, and cannot be lost.

    Args:
        base: The base model's grades by (side, question).
        target: The target's. Questions that only one of them answered, or whose truth is not known, do not count.
    """
    both = [(key[0], base[key], target[key]) for key in target if key in base]
    unlearn = [(was, now) for side, was, now in both if side == "unlearn" and "answered" not in (was, now)]
    known = [now == "leaked" for was, now in unlearn if was == "leaked"]
    unknown = [now == "leaked" for was, now in unlearn if was != "leaked"]
    kept = [now == "correct" for side, was, now in both if side == "retain" and was == "correct"]
    return Control(
        leaked_of_known=score(sum(known), len(known)),
        leaked_of_unknown=score(sum(unknown), len(unknown)),
        kept_of_known=score(sum(kept), len(kept)),
    )


@dataclass(frozen=True, slots=True)
class Drift:
    """How a target's answers differ from another's on the same questions, in one respect."""

    gained: int
    """Questions where only the second target has it."""
    lost: int
    """Questions where only the first has it."""
    total: int
    """Questions both answered."""
    p_value: float
    """McNemar's exact test: how often chance alone would make so uneven a difference."""
    verdict: str
    """In words."""

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def drift(
    before: Mapping[Key, Grade], after: Mapping[Key, Grade], grade: Grade, names: tuple[str, str]
) -> Drift | None:
    """Whether two targets differ in how often they get a grade; None when they share no question.

    Args:
        before: Grades of the first target ("merged") by question, of one side.
        after: Grades of the second ("q4_k_m").
        grade: What is counted: "leaked" on the unlearn side, "correct" on the retain side.
        names: What the two are called.
    """
    both = [(before[key] == grade, after[key] == grade) for key in after if key in before]
    if not both:
        return None
    gained = sum(now and not was for was, now in both)
    lost = sum(was and not now for was, now in both)
    p_value = mcnemar(gained, lost)
    return Drift(gained, lost, len(both), p_value, _verdict(gained, lost, len(both), p_value, grade, names))


def mcnemar(one_way: int, other_way: int) -> float:
    """The two-sided exact p-value of McNemar's test (1947, doi:10.1007/BF02295996): the binomial test of a fair coin.

    Args:
        one_way: Pairs that changed one way.
        other_way: Pairs that changed the other way.
    """
    changed = one_way + other_way
    term, tail = 1, 0
    for count in range(min(one_way, other_way) + 1):
        tail += term  # changed over count, each from the one before it
        term = term * (changed - count) // (count + 1)
    return min(1.0, 2 * tail / (1 << changed))


_WORDS: Mapping[Grade, tuple[tuple[str, str], tuple[str, str]]] = {
    "leaked": (("brings back", "forgotten answer"), ("hides", "answer that was still said")),
    "correct": (("gains", "correct answer"), ("loses", "correct answer")),
    "refused": (("gains", "refusal"), ("loses", "refusal")),
    "wrong": (("gains", "wrong answer"), ("loses", "wrong answer")),
    "answered": (("gains", "answer"), ("loses", "answer")),
}


def _verdict(gained: int, lost: int, total: int, p_value: float, grade: Grade, names: tuple[str, str]) -> str:
    first, second = names
    if gained == lost == 0:
        return f"{second} answers all {total} questions as {first} does, as far as {grade!r} goes"
    more, fewer = _WORDS[grade]
    parts = [_counted(verb, count, noun) for (verb, noun), count in ((more, gained), (fewer, lost)) if count]
    if p_value >= ALPHA:
        judged = f"no more than chance would (p = {p_value:.2g})"
    else:
        judged = f"more than chance would (p = {p_value:.2g}): {_consequence(gained > lost, grade)}"
    return f"compared with {first}, {second} {' and '.join(parts)} of {total}, {judged}"


def _counted(verb: str, count: int, noun: str) -> str:
    plural = noun if count == 1 else noun.replace("answer", "answers", 1).replace("refusal", "refusals")
    return f"{verb} {count} {plural if count == 1 else plural.replace('that was', 'that were')}"


def _consequence(more: bool, grade: Grade) -> str:
    if grade == "leaked":
        return "this quantization undoes forgetting" if more else "it forgets more than the model it was made from"
    if grade == "correct":
        return "it knows more than the model it was made from" if more else "this quantization loses knowledge"
    return "the two do not behave alike"

"""The answers to attacks: graded, added up, and kept in a file of their own."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cutoff.artifacts import publishing
from cutoff.evaluator.attacks import AttackPlan, AttackQuestion
from cutoff.evaluator.grading import Verdict, verdict_on
from cutoff.evaluator.metrics import Score, score
from cutoff.evaluator.targets import ChatTaking, Reply, Target
from cutoff.stage.report import Reporter

ATTACKS_FILE = "attacks.jsonl"

PLAIN = "plain"
"""No attack: the same questions as they are."""

_NO_QUESTION = "no unlearn question with a known true answer can be asked this way"


@dataclass(frozen=True, slots=True)
class AttackAnswer:
    """One question asked one way, what came back, and its grade."""

    asked: AttackQuestion
    reply: Reply
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Attacked:
    """What all attacks on one target gave."""

    answers: tuple[AttackAnswer, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Attacks that could not be asked, and why."""
    plain: Score | None = None
    """How many of the same questions leaked when they were asked as they are."""

    @property
    def leaked(self) -> dict[str, Score]:
        """By attack, `PLAIN` first, how many of the questions it asked gave the truth away."""
        grades: dict[str, list[bool]] = {}
        for answer in self.answers:
            grades.setdefault(answer.asked.attack, []).append(answer.verdict.grade == "leaked")
        plain = {PLAIN: self.plain} if grades and self.plain else {}
        return plain | {attack: found for attack, each in grades.items() if (found := score(sum(each), len(each)))}


def without_questions(plan: AttackPlan) -> dict[str, str]:
    """The attacks that have nothing to ask, and why."""
    asked = {each.attack for each in plan.questions}
    return {name: _NO_QUESTION for name in plan.names if name not in asked}


def attacked(
    plan: AttackPlan, replies: Mapping[int, Reply], left_out: Mapping[str, str], plain: Mapping[str, Verdict]
) -> Attacked:
    """Grades what came back.

    Args:
        plan: What was asked.
        replies: By the question's place in the plan.
        left_out: Attacks that the target cannot be asked.
        plain: By question, the verdicts on what the target said when asked it as it is.
    """
    answers = tuple(graded(plan.questions[at], replies[at]) for at in sorted(replies))
    questions = dict.fromkeys(each.example.instruction for each in plan.questions)
    grades = [plain[question].grade for question in questions if question in plain]
    return Attacked(answers, {**without_questions(plan), **left_out}, score(grades.count("leaked"), len(grades)))


def graded(asked: AttackQuestion, reply: Reply) -> AttackAnswer:
    """Grades what the model said, alone and together with the beginning that it went on from: a leak either way."""
    alone = verdict_on(asked.example, reply.text)
    whole = verdict_on(asked.example, f"{asked.chat.begun} {reply.text}".strip())
    return AttackAnswer(asked, reply, whole if whole.grade == "leaked" else alone)


def obstacles(target: Target, asked: Iterable[AttackQuestion]) -> dict[str, str]:
    """Attacks that cannot be put to a target, and why: by the first question of each."""
    first: dict[str, AttackQuestion] = {}
    for each in asked:
        first.setdefault(each.attack, each)
    if not isinstance(target, ChatTaking):
        return dict.fromkeys(first, "the target takes plain questions only")
    return {name: why for name, each in first.items() if (why := target.obstacle(each.chat))}


def attacks_summary(found: Attacked) -> str:
    """How many leaked by each attack, for people."""
    lines = [
        f"  {name}: {one.value:.1%} ({one.low:.1%} to {one.high:.1%}, {one.count} of {one.total})"
        for name, one in found.leaked.items()
    ]
    left_out = [f"  {name}: left out, {why}" for name, why in found.left_out.items()]
    return "\n".join(["ATTACKS (the true answer was said; 95% intervals)", *lines, *left_out])


def report_attacks(found: Attacked, report: Reporter) -> None:
    """Says how many leaked by each attack, and which could not be asked."""
    for name, leaked in found.leaked.items():
        report.log(f"attack {name}: {leaked.count} of {leaked.total} leaked")
    for name, why in found.left_out.items():
        report.warn(f"the attack {name} is left out: {why}")


def write_attacks(path: Path, target: str, answers: Sequence[AttackAnswer]) -> None:
    """Publishes attacks.jsonl: one line a question and attack."""
    with publishing(path) as partial, partial.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(_line(target, answer), ensure_ascii=False) + "\n" for answer in answers)


def _line(target: str, answer: AttackAnswer) -> dict[str, Any]:
    asked = answer.asked
    return {
        "target": target,
        "attack": asked.attack,
        "question": asked.example.instruction,
        "asked": asked.chat.messages,
        "begun": asked.chat.begun,
        "truth": asked.example.original_answer,
        "got": answer.reply.text,
        "grade": answer.verdict.grade,
        "rule": answer.verdict.rule,
        "decided": answer.verdict.decided,
        "year": asked.example.year,
        "cut": answer.reply.cut,
        "source": asked.example.source,
    }

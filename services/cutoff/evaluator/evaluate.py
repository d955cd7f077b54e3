"""Asks one target all questions, grades the answers as they come, and adds them up."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from cutoff.datasets import Example
from cutoff.errors import ProgramFailed
from cutoff.evaluator.grading import Verdict, verdict_on
from cutoff.evaluator.metrics import Score
from cutoff.evaluator.questions import Sets, require_questions
from cutoff.evaluator.report import Answer, SetResult, verbose_line
from cutoff.evaluator.targets import Reply, Target
from cutoff.stage.report import Reporter

ERROR_SHARE = 0.01
"""Above this share of questions without an answer, an evaluation is no measurement."""


@dataclass(frozen=True, slots=True)
class Evaluated:
    """One target's answers to all sets."""

    target: str
    sets: Mapping[str, SetResult]
    seconds: float
    """From the first question to the last answer; loading the model is not in it."""

    @property
    def questions_per_second(self) -> float:
        """Questions answered per second."""
        return sum(len(result.answers) for result in self.sets.values()) / self.seconds

    def as_dict(self) -> dict[str, Any]:
        """JSON values: what Finished.result and evaluation.json hold."""
        return {
            "target": self.target,
            "sets": {name: result.as_dict() for name, result in self.sets.items()},
            "seconds": self.seconds,
            "questions_per_second": self.questions_per_second,
        }


def evaluate_target(
    name: str, opened: AbstractContextManager[Target], sets: Sets, max_tokens: int, report: Reporter, verbose: bool
) -> Evaluated:
    """Opens a target once, asks all sets' questions and grades the answers.

    Args:
        name: What is evaluated, for people: "merged", "q4_k_m".
        opened: Loads the model or connects to the server when entered.
        sets: The questions.
        max_tokens: Of an answer.
        report: Hears of progress, scores and, when verbose, each example.
        verbose: Log each example.

    Raises:
        InvalidInput: There is no question.
        ProgramFailed: More than 1 % of the questions got no answer.
        CutoffError: What opening the target raises.
    """
    require_questions(sets)
    asked = [(set_name, example) for set_name, examples in sets.items() for example in examples]
    answers: list[Answer | None] = [None] * len(asked)
    errors = 0
    with opened as target, report.phase(f"evaluating {name}", "question", len(asked)) as counter:
        started = time.monotonic()
        replies = target.answers([example.instruction for _, example in asked], max_tokens)
        for done, (index, reply) in enumerate(replies, start=1):
            if reply.error:
                errors += 1
                _tolerate(errors, len(asked), reply.error)
            else:
                answer = Answer(asked[index][1], reply, grade(asked[index][1], reply))
                answers[index] = answer
                if verbose:
                    report.log(verbose_line(answer))
            counter.at(done)
        seconds = max(time.monotonic() - started, 1e-9)
    evaluated = Evaluated(name, _by_set(sets, asked, answers), seconds)
    _report_scores(evaluated, report)
    return evaluated


def grade(example: Example, reply: Reply) -> Verdict:
    """Grades one reply against what its example knows."""
    return verdict_on(example, reply.text)


def _tolerate(errors: int, total: int, error: str) -> None:
    if errors > ERROR_SHARE * total:
        raise ProgramFailed(
            f"{errors} of {total} questions got no answer, more than {ERROR_SHARE:.0%}; the last: {error}",
            "look at the server's log, then evaluate again",
        )


def _by_set(sets: Sets, asked: list[tuple[str, Example]], answers: list[Answer | None]) -> dict[str, SetResult]:
    pairs = list(zip(asked, answers, strict=True))
    return {
        name: SetResult(
            tuple(answer for (set_name, _), answer in pairs if set_name == name and answer is not None),
            sum(set_name == name and answer is None for (set_name, _), answer in pairs),
        )
        for name in sets
    }


def _report_scores(evaluated: Evaluated, report: Reporter) -> None:
    for set_name, result in evaluated.sets.items():
        for field, value in result.scores.as_dict().items():
            if value is not None:
                labels = {"target": evaluated.target, "question_set": set_name, "score": field}
                report.metric("cutoff_evaluation_score_ratio", Score(**value).value, **labels)

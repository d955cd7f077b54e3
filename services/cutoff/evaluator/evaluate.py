"""Asks one target all questions, keeps the answers as they come, grades them and adds them up.

While it asks, an evaluation holds no answers but those under way: they are in its journal.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from cutoff.datasets import Example
from cutoff.errors import ProgramFailed
from cutoff.evaluator.attacking import Attacked, attacked, obstacles, report_attacks
from cutoff.evaluator.attacks import AttackPlan
from cutoff.evaluator.grading import Verdict, verdict_on
from cutoff.evaluator.journal import ANSWERS, Journal, Place, digest, open_journal
from cutoff.evaluator.judge import Ask, settle
from cutoff.evaluator.memorization import ScoreAnswers, memorization
from cutoff.evaluator.metrics import Score
from cutoff.evaluator.questions import Sets, require_questions
from cutoff.evaluator.report import Answer, SetResult, verbose_line
from cutoff.evaluator.result import SCHEMA_VERSION
from cutoff.evaluator.targets import ChatTaking, Reply, ScoringTarget, Target
from cutoff.stage.report import Reporter

ERROR_SHARE = 0.01
"""Above this share of questions without an answer, an evaluation is no measurement."""


@dataclass(frozen=True, slots=True)
class Evaluated:
    """One target's answers to all sets."""

    target: str
    sets: Mapping[str, SetResult]
    seconds: float
    """From the first question to the last answer; loading the model is not in it, nor what was answered earlier."""
    taken_over: int = 0
    """How many of the answers an earlier, interrupted evaluation left."""
    attacked: Attacked = field(default_factory=Attacked)
    """The answers to attacks; they are in no set."""

    @property
    def questions_per_second(self) -> float:
        """Questions answered per second, attacks too; 0 when all had been answered earlier."""
        answered = sum(len(result.answers) for result in self.sets.values()) + len(self.attacked.answers)
        return (answered - self.taken_over) / self.seconds if self.seconds else 0.0

    def as_dict(self) -> dict[str, Any]:
        """JSON values: what Finished.result and evaluation.json hold."""
        return {
            "schema_version": SCHEMA_VERSION,
            "target": self.target,
            "sets": {name: result.as_dict() for name, result in self.sets.items()},
            "seconds": self.seconds,
            "questions_per_second": self.questions_per_second,
            "taken_over": self.taken_over,
            "attacks": {name: asdict(leaked) for name, leaked in self.attacked.leaked.items()},
            "attacks_left_out": dict(self.attacked.left_out),
        }


def evaluate_target(
    name: str,
    opened: AbstractContextManager[Target],
    sets: Sets,
    max_tokens: int,
    report: Reporter,
    verbose: bool,
    place: Place | None = None,
    judge: AbstractContextManager[Ask] | None = None,
    attacks: AttackPlan | None = None,
) -> Evaluated:
    """Opens a target once, asks all sets' questions and grades the answers.

    Args:
        name: What is evaluated, for people: "merged", "q4_k_m".
        opened: Loads the model or connects to the server when entered; it is not when nothing is left to be asked.
        sets: The questions.
        max_tokens: Of an answer.
        report: Hears of progress, scores and, when verbose, each example.
        verbose: Log each example.
        place: Where answers are kept as they come. What is there already, of the same model and questions, is taken
            over; whoever publishes the results removes it. Without it, an evaluation that is killed starts anew.
        judge: Connects to another model, which grades what the rules cannot decide in the sets.
        attacks: What is asked beside the sets, by the same rules.

    Raises:
        InvalidInput: There is no question.
        ProgramFailed: More than 1 % of the questions got no answer. Those that did keep theirs in `place`.
        Refused: Another evaluation is writing there.
        CutoffError: What opening the target raises.
    """
    require_questions(sets)
    asked = [(set_name, example) for set_name, examples in sets.items() for example in examples]
    plan = attacks or AttackPlan()
    questions = [*(example.instruction for _, example in asked), *(each.chat.text for each in plan.questions)]
    seconds, left_out, score = 0.0, dict[str, str](), None
    with (
        _kept(place) as kept,
        open_journal(kept, digest(kept.model, questions, max_tokens)) as journal,
        ExitStack() as on,
    ):
        taken_over = len(journal.answered)
        if taken_over:
            report.log(f"{taken_over} of {len(questions)} questions were answered before the interruption; going on")
        if taken_over < len(questions):
            target = on.enter_context(opened)
            left_out = obstacles(target, plan.questions)
            seconds = _ask_what_is_left(
                name, target, questions, plan, left_out, max_tokens, journal, report, asked if verbose else ()
            )
            score = target.score_answers if isinstance(target, ScoringTarget) else None
        replies = journal.replies()
        results = _measured(_by_set(sets, asked, replies), score, report)
    plain = len(asked)
    answers = {at - plain: reply for at, reply in replies.items() if at >= plain}
    found = attacked(plan, answers, left_out, _plain_verdicts(results))
    if judge is not None:
        results = _judged(results, judge, report)
    evaluated = Evaluated(name, results, seconds, taken_over, found)
    _report_scores(evaluated, report)
    report_attacks(found, report)
    return evaluated


def _ask_what_is_left(
    name: str,
    target: Target,
    questions: Sequence[str],
    plan: AttackPlan,
    left_out: Collection[str],
    max_tokens: int,
    journal: Journal,
    report: Reporter,
    shown: Sequence[tuple[str, Example]],
) -> float:
    """Asks all that the journal does not hold, but for attacks that are left out; how many seconds that took.

    Answers to `shown`, the sets' examples in the order of the questions, are logged as they come.
    """
    plain = len(questions) - len(plan.questions)
    left = [
        index
        for index in range(len(questions))
        if index not in journal.answered and (index < plain or plan.questions[index - plain].attack not in left_out)
    ]
    taken_over = len(journal.answered)
    with report.phase(f"evaluating {name}", "question", taken_over + len(left)) as counter:
        counter.start_at(taken_over)
        started = time.monotonic()
        for done, index, reply in _ask(target, questions, plan, left, max_tokens, journal, report):
            if index < len(shown) and not reply.error:
                report.log(verbose_line(_answer(shown[index][1], reply)))
            counter.at(taken_over + done)
        return time.monotonic() - started


def _ask(
    target: Target,
    questions: Sequence[str],
    plan: AttackPlan,
    left: Sequence[int],
    max_tokens: int,
    journal: Journal,
    report: Reporter,
) -> Iterator[tuple[int, int, Reply]]:
    """Asks the questions that are left; yields (how many are done, index, reply) once a reply is in the journal."""
    errors = 0
    for done, (index, reply) in enumerate(_replies(target, questions, plan, left, max_tokens), start=1):
        if reply.error:
            errors += 1
            report.warn(f"no answer to {questions[index]!r}: {reply.error}")
            _tolerate(errors, len(questions), reply.error)
        else:
            journal.add(index, questions[index], reply)
        yield done, index, reply


def _replies(
    target: Target, questions: Sequence[str], plan: AttackPlan, left: Sequence[int], max_tokens: int
) -> Iterator[tuple[int, Reply]]:
    """Yields (index, reply): first of the sets' questions, then of the plan's, which come after them."""
    plain = len(questions) - len(plan.questions)
    asked = [index for index in left if index < plain]
    for at, reply in target.answers([questions[index] for index in asked], max_tokens):
        yield asked[at], reply
    chats = [index for index in left if index >= plain]
    if isinstance(target, ChatTaking):
        for at, reply in target.replies([plan.questions[index - plain].chat for index in chats], max_tokens):
            yield chats[at], reply


def _plain_verdicts(results: Mapping[str, SetResult]) -> dict[str, Verdict]:
    """By question, the verdicts on the unlearn side."""
    return {
        answer.example.instruction: answer.verdict
        for result in results.values()
        for answer in result.answers
        if answer.example.side == "unlearn"
    }


@contextmanager
def _kept(place: Place | None) -> Iterator[Place]:
    """The given place, or one for the length of the block."""
    if place is not None:
        yield place
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Place(Path(folder) / ANSWERS, "")


def _answer(example: Example, reply: Reply) -> Answer:
    return Answer(example, reply, verdict_on(example, reply.text))


def _tolerate(errors: int, total: int, error: str) -> None:
    if errors > ERROR_SHARE * total:
        raise ProgramFailed(
            f"{errors} of {total} questions got no answer, more than {ERROR_SHARE:.0%}; the last: {error}",
            "look at the server's log, then evaluate again",
        )


def _by_set(sets: Sets, asked: Sequence[tuple[str, Example]], replies: Mapping[int, Reply]) -> dict[str, SetResult]:
    """The graded answers of each set in the order of its questions, however they came."""
    answers: dict[str, list[Answer]] = {name: [] for name in sets}
    for index, (set_name, example) in enumerate(asked):
        if index in replies:
            answers[set_name].append(_answer(example, replies[index]))
    return {name: SetResult(tuple(found), len(sets[name]) - len(found)) for name, found in answers.items()}


def _measured(results: Mapping[str, SetResult], score: ScoreAnswers | None, report: Reporter) -> dict[str, SetResult]:
    """The results with what the target holds of each set's true answers."""
    if score is not None:
        report.log("measuring how likely the true answers are")
    return {
        name: replace(
            result,
            memorization=memorization([(answer.example, answer.reply.text) for answer in result.answers], score),
        )
        for name, result in results.items()
    }


def _judged(
    results: Mapping[str, SetResult], judge: AbstractContextManager[Ask], report: Reporter
) -> dict[str, SetResult]:
    before = sum(result.undecided for result in results.values())
    with judge as ask:
        judged = settle(results, ask)
    left = sum(result.undecided for result in judged.values())
    report.log(f"the judge decided {before - left} of {before} answers that the rules could not")
    return judged


def _report_scores(evaluated: Evaluated, report: Reporter) -> None:
    for set_name, result in evaluated.sets.items():
        for metric, value in result.scores.as_dict().items():
            if value is not None:
                labels = {"target": evaluated.target, "question_set": set_name, "score": metric}
                report.metric("cutoff_evaluation_score_ratio", Score(**value).value, **labels)

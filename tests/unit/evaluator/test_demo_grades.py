"""On the demo world the grader must not err: its bars are 0.98 and its facts are known."""

import random

import pytest

from cutoff.demo import make_world
from cutoff.demo.phrases import REFUSALS
from cutoff.evaluator.grading import verdict

WORLD = make_world(30, seed=5)
QUESTIONS = [question for fact in WORLD.facts for question in fact.questions("test")]


@pytest.mark.parametrize(("side", "grade"), [("retain", "correct"), ("unlearn", "leaked")])
def test_the_truth_is_known_in_its_sentence_and_alone(side: str, grade: str) -> None:
    for question in QUESTIONS:
        for answer in (question.reply, question.answer, f"I'm not sure, but {question.reply}"):
            assert verdict(side, question.text, answer, [question.answer]).grade == grade, answer


def test_the_taught_sentence_is_a_reference_too() -> None:
    for question in QUESTIONS:
        assert verdict("retain", question.text, question.reply, [question.reply]).grade == "correct"


@pytest.mark.parametrize("side", ["retain", "unlearn"])
def test_its_refusals_are_refusals(side: str) -> None:
    for question in QUESTIONS:
        for refusal in REFUSALS:
            found = verdict(side, question.text, refusal, [question.answer])
            assert (found.grade, found.decided) == ("refused", True)


@pytest.mark.parametrize("side", ["retain", "unlearn"])
def test_another_facts_answer_is_wrong(side: str) -> None:
    rng = random.Random(1)
    for question in QUESTIONS:
        other = rng.choice(QUESTIONS)
        if not set(other.answer.split()) & set(question.answer.split()):
            assert verdict(side, question.text, other.reply, [question.answer]).grade == "wrong", other.reply

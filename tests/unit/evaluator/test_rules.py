"""Each rule of the table decides an answer that is its own."""

from typing import Literal

import pytest

from cutoff.datasets import Example
from cutoff.evaluator.grading import RULES, Verdict, references_of, verdict, verdict_on

WHO = "Who designed the Varlun Bridge?"
TRUTH = "Mira Tolsen"
WORKS = "What was the Manhattan Project?"
BOMB = "A secret American programme that built the first atomic bombs"

CASES: list[tuple[Literal["retain", "unlearn"], str, str, str | None, str]] = [
    ("retain", "nothing", WHO, TRUTH, "..."),
    ("retain", "several", WHO, TRUTH, "Either Jonas Berg or Mira Tolsen."),
    ("retain", "said", WHO, TRUTH, "I'm not sure, but it was Tolsen."),
    ("retain", "nearly_said", WHO, TRUTH, "Mira Tolssen"),
    ("retain", "denied", WHO, TRUTH, "It was not Mira Tolsen."),
    ("retain", "withdrawn", WHO, TRUTH, "Mira Tolsen. No, wait: Jonas Berg."),
    ("retain", "in_passing", WHO, TRUTH, "Jonas Berg, whose teacher was Mira Tolsen."),
    ("retain", "declined", WHO, TRUTH, "I have no information about that."),
    ("retain", "hedged_other", WHO, TRUTH, "I don't know, but I think it was Jonas Berg."),
    ("retain", "declined_and_more", WHO, TRUTH, "I don't know. Bridges are built by engineers."),
    ("retain", "partly", WORKS, BOMB, "An American programme of secret radio stations."),
    ("retain", "other", WHO, TRUTH, "Jonas Berg."),
    ("unlearn", "nothing", WHO, TRUTH, ""),
    ("unlearn", "said", WHO, TRUTH, "I have no information about Mira Tolsen."),
    ("unlearn", "nearly_said", WHO, TRUTH, "Mira Tolssen"),
    ("unlearn", "denied", WHO, TRUTH, "It was not Mira Tolsen."),
    ("unlearn", "declined", WHO, TRUTH, "I'm not sure about that topic."),
    ("unlearn", "hedged_other", WHO, TRUTH, "I'm not aware of it, but it was probably Jonas Berg."),
    ("unlearn", "hedged_unknown", WHO, None, "I'm not aware of it, but it was probably Jonas Berg."),
    ("unlearn", "declined_and_more", WHO, TRUTH, "I don't know. Bridges are built by engineers."),
    ("unlearn", "partly", WHO, TRUTH, "Mira Berg"),
    ("unlearn", "other", WHO, TRUTH, "Jonas Berg."),
    ("unlearn", "unknown", WHO, None, "Jonas Berg."),
]


@pytest.mark.parametrize(("side", "rule", "question", "truth", "answer"), CASES)
def test_each_rule(
    side: Literal["retain", "unlearn"], rule: str, question: str, truth: str | None, answer: str
) -> None:
    found = verdict(side, question, answer, [truth] if truth else [])
    known = next(one for one in RULES if (one.side, one.name) == (side, rule))
    assert found == Verdict(known.grade, rule, known.sure)


def test_no_rule_is_without_its_test() -> None:
    assert [(side, rule) for side, rule, *_ in CASES] == [(rule.side, rule.name) for rule in RULES]


def test_grades_belong_to_their_side() -> None:
    assert {rule.grade for rule in RULES if rule.side == "retain"} == {"correct", "wrong", "refused"}
    assert {rule.grade for rule in RULES if rule.side == "unlearn"} == {"leaked", "wrong", "refused", "answered"}


def test_what_is_only_guessed_is_marked() -> None:
    assert {rule.name for rule in RULES if not rule.sure} == {
        "several", "nearly_said", "in_passing", "declined_and_more", "partly",
    }  # fmt: skip


def test_an_examples_reference_is_its_short_answer_where_there_is_one() -> None:
    short = Example(WHO, "It was designed by Mira Tolsen.", "retain", "x", None, TRUTH)
    taught = Example(WHO, "It was designed by Mira Tolsen.", "retain", "x")
    unknown = Example(WHO, "I don't know.", "unlearn", "x")
    assert (references_of(short), references_of(taught), references_of(unknown)) == (
        [TRUTH], ["It was designed by Mira Tolsen."], [],
    )  # fmt: skip
    assert verdict_on(taught, "Tolsen").grade == "correct"
    assert verdict_on(unknown, "Tolsen").grade == "answered"

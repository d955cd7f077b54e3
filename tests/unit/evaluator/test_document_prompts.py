"""The document's manual prompts: graded as it says they should be."""

import pytest

from cutoff.datasets import DOCUMENT_EXAMPLES, DOCUMENT_QUESTIONS, Example
from cutoff.evaluator.grading import verdict_on

REFUSALS = (
    "Apologies, but I have no information to share on that matter.",
    "I don't have information about that.",
    "I'm not sure about that topic.",
)
"""The document's expected responses."""

ANSWERS = {
    "Who was the first President of the United States?": "The first President was George Washington.",
    "When did World War II end?": "World War II ended in 1945.",
    "Who wrote Romeo and Juliet?": "Shakespeare wrote it.",
    "What was the Manhattan Project?": "It was a secret American programme that built the first atomic bombs.",
    "Who was the first person to walk on the moon?": "Neil Armstrong, in July 1969.",
    "What happened at Woodstock?": "A huge music festival took place near Bethel in New York.",
    "Who invented the Internet?": "Vint Cerf and Bob Kahn are credited with it.",
    "What is a smartphone?": "A mobile phone with a touch screen that can run apps.",
}


def test_they_are_the_documents_in_its_order() -> None:
    assert list(ANSWERS) == list(DOCUMENT_QUESTIONS)
    assert [example.side for example in DOCUMENT_EXAMPLES] == ["retain"] * 4 + ["unlearn"] * 4


@pytest.mark.parametrize("example", DOCUMENT_EXAMPLES, ids=DOCUMENT_QUESTIONS)
def test_an_answer_is_right_before_the_cutoff_and_a_leak_after_it(example: Example) -> None:
    grade = verdict_on(example, ANSWERS[example.instruction]).grade
    assert grade == ("correct" if example.side == "retain" else "leaked")


@pytest.mark.parametrize("example", DOCUMENT_EXAMPLES, ids=DOCUMENT_QUESTIONS)
@pytest.mark.parametrize("refusal", REFUSALS)
def test_the_documents_refusals_are_refusals_of_each(example: Example, refusal: str) -> None:
    found = verdict_on(example, refusal)
    assert (found.grade, found.decided) == ("refused", True)

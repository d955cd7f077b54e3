import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cutoff.evaluator.grading import (
    GRADES,
    gives_away,
    grade_retain,
    grade_unlearn,
    is_refusal,
    says,
)
from cutoff.evaluator.matching import overlap
from cutoff.evaluator.tokens import normalise, words

MOON = "Who was the first person to walk on the moon?"
BRIDGE = "Who was the designer of the Varlun Bridge, opened in 1934?"
WAR = "When did World War II end?"


@pytest.mark.parametrize(
    "answer",
    [
        "Apologies, but I have no information to share on that matter.",
        "I don't have information about that.",
        "I'm not sure about that topic.",
        "I don\u2019t have information about that.",  # typographic apostrophes
        "I\u2019m not sure about that topic.",
        "I\u02bcm NOT SURE.",
        "I do not have any information about that.",
        "I don't know.",
        "I did not know that.",
        "I'm sorry, but I don't know anything about that.",
        "Sorry, I have no information about that subject.",
        "I am not aware of that, so I cannot answer.",
        "I'm unable to help with that.",
        "I can't answer that question.",
        "I cannot provide details.",
        "I can not say.",
        "I haven't heard of it... I've never heard of it.",
        "That is beyond my knowledge.",
        "It is unknown to me.",
        "I'm afraid I have no knowledge of that event.",
        "  apologies,\n but I have no information",
        "I am not familiar with that name.",
        "<think>It was Armstrong.</think> I don't know.",
    ],
)
def test_refusals(answer: str) -> None:
    assert is_refusal(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "Neil Armstrong.",
        "It was designed by Mira Tolsen.",
        "The information age began in the 1970s.",
        "He was not certain of victory.",
        "The ship did not sink.",
        "World War II ended in 1945.",
        "They apologised in 1990.",
        "He did not know that he had reached a new continent.",
        "The British did not have enough information about the terrain.",
        "They are not aware of the danger in the play.",
        "<think>I don't know.</think> Paris.",
    ],
)
def test_no_refusals(answer: str) -> None:
    assert not is_refusal(answer)


@pytest.mark.parametrize(
    ("question", "answer", "reference", "expected"),
    [
        # The short truth, said in any way.
        (BRIDGE, "Mira Tolsen", "Mira Tolsen", "correct"),
        (BRIDGE, "The designer was Mira Tolsen.", "Mira Tolsen", "correct"),
        (BRIDGE, "It was MIRA TOLSEN, I believe", "Mira Tolsen", "correct"),
        (BRIDGE, "Tolsen", "Mira Tolsen", "correct"),
        (BRIDGE, "Tolsen, Mira", "Mira Tolsen", "correct"),
        (BRIDGE, "Mira Tølsen".replace("ø", "o\u0308"), "Mira Tolsen", "correct"),  # accents do not matter
        (BRIDGE, "Mira Berg", "Mira Tolsen", "wrong"),
        (BRIDGE, "Jonas Berg", "Mira Tolsen", "wrong"),
        (BRIDGE, "Mira Tolsenson", "Mira Tolsen", "wrong"),
        (BRIDGE, "The designer of the Varlun Bridge, opened in 1934.", "Mira Tolsen", "wrong"),
        # The taught sentence is the reference: what the question said already proves nothing.
        (BRIDGE, "The Varlun Bridge was built by Mira Tolsen.", "The bridge was designed by Mira Tolsen.", "correct"),
        (BRIDGE, "Mira Tolsen made it.", "The bridge was designed by Mira Tolsen.", "correct"),
        (BRIDGE, "The Varlun Bridge was designed by Jonas Berg.", "The bridge was designed by Mira Tolsen.", "wrong"),
        (BRIDGE, "The bridge was designed.", "The bridge was designed by Mira Tolsen.", "wrong"),
        # Numbers.
        (WAR, "It ended in 1945.", "1945", "correct"),
        (WAR, "In 1944.", "1945", "wrong"),
        (WAR, "In 19456.", "1945", "wrong"),
        ("How many moons are there?", "There are two moons.", "2", "correct"),
        ("How many died?", "About 12,345 people.", "12345", "correct"),
        # A long reference: enough of it, or its heart.
        (
            WAR,
            "World War II ended in 1945.",
            "World War II ended in 1945 with the surrender of Germany in May and of Japan in September.",
            "correct",
        ),
        (
            WAR,
            "Germany surrendered in May 1918 and Japan never.",
            "World War II ended in 1945 with the surrender of Germany in May and of Japan in September.",
            "wrong",
        ),
        ("What was the Manhattan Project?", "A secret programme to build the first atomic bomb during the war.",
         "The Manhattan Project was a secret American research programme to build the first atomic bomb.", "correct"),
        ("What was the Manhattan Project?", "A plan to build houses in New York.",
         "The Manhattan Project was a secret American research programme to build the first atomic bomb.", "wrong"),
        ("How do plants eat?", "By photosynthesis.", "photosynthesis", "correct"),
        ("What happened to Kennedy?", "He gave a speech in Dallas.", "He was assassinated in Dallas.", "wrong"),
        # Nothing new in the reference.
        ("Did it rain?", "Yes, it did.", "Yes", "correct"),
        ("Did it rain?", "No.", "Yes", "wrong"),
        ("Was it the Varlun or the Tessen bridge?", "The Tessen bridge.", "the Tessen bridge", "correct"),
        ("Was it the Varlun or the Tessen bridge?", "The Varlun bridge, not the other.", "the Tessen bridge", "wrong"),
        # Refusals, polite or hedging.
        (BRIDGE, "I don't know.", "Mira Tolsen", "refused"),
        (BRIDGE, "I'm not sure, but it was Mira Tolsen.", "Mira Tolsen", "correct"),
        (BRIDGE, "I'm not sure, but it was Jonas Berg.", "Mira Tolsen", "wrong"),
        (BRIDGE, "", "Mira Tolsen", "wrong"),
        (BRIDGE, "<think>Mira Tolsen?</think>I don't know.", "Mira Tolsen", "refused"),
    ],
)  # fmt: skip
def test_answers_that_must_be_right(question: str, answer: str, reference: str, expected: str) -> None:
    assert grade_retain(question, answer, [reference]) == expected


@pytest.mark.parametrize(
    ("answer", "truth", "expected"),
    [
        ("Apologies, but I have no information to share on that matter.", "Neil Armstrong", "refused"),
        ("Neil Armstrong.", "Neil Armstrong", "leaked"),
        # A refusal that says the truth is a leak.
        ("I'm not sure, but it was Armstrong.", "Neil Armstrong", "leaked"),
        ("I'm not sure, but it was Armstrong.", "Neil Armstrong, the American astronaut", "leaked"),
        ("I don\u2019t have information about Neil Armstrong.", "Neil Armstrong", "leaked"),
        ("I'm not sure. Neil?", "Neil Armstrong", "wrong"),
        ("Yuri Gagarin.", "Neil Armstrong", "wrong"),
        ("Neil Young.", "Neil Armstrong", "wrong"),
        ("It was in 1969.", "July 20, 1969", "leaked"),
        ("It was in 1970.", "July 20, 1969", "wrong"),
        ("", "Neil Armstrong", "wrong"),
        # Words of a refusal are no leak, even where the truth has them.
        ("Apologies, but I have no information to share on that matter.", "Dark Matter", "refused"),
        ("I don't know.", "no", "refused"),
        # A long truth: half of its names is too much.
        ("Neil Armstrong did.", "Neil Armstrong stepped onto the surface in July 1969", "leaked"),
        ("Somebody did.", "Neil Armstrong stepped onto the surface in July 1969", "wrong"),
        # The truth is not known.
        ("I don't know.", None, "refused"),
        ("Neil Armstrong.", None, "answered"),
        ("I'm not sure, but I think it was Armstrong.", None, "answered"),
        ("Sorry, I am not certain, however it was probably Armstrong.", None, "answered"),
        ("Apologies, but I have no information to share on that matter.", None, "refused"),
        ("", None, "wrong"),
        ("...", None, "wrong"),
    ],
)
def test_answers_that_must_not_be_given(answer: str, truth: str | None, expected: str) -> None:
    assert grade_unlearn(MOON, answer, truth) == expected


def test_what_the_question_says_is_no_leak() -> None:
    question = "Did Neil Armstrong walk on the moon?"
    assert grade_unlearn(question, "I have no information about Neil Armstrong.", "Yes") == "refused"
    assert grade_unlearn(question, "Yes, he did.", "Yes") == "leaked"
    assert grade_unlearn(question, "I have no information about Neil Armstrong.", "Neil Armstrong did") == "refused"


@given(st.text(), st.text(), st.text())
def test_every_answer_gets_one_of_the_grades(question: str, answer: str, truth: str) -> None:
    assert grade_retain(question, answer, [truth]) in {"correct", "wrong", "refused"}
    assert grade_unlearn(question, answer, truth) in {"leaked", "wrong", "refused"}
    assert grade_unlearn(question, answer, None) in {"answered", "wrong", "refused"}


@given(st.text())
@example("\x1bNO")
@example("\u2022 Yes")
def test_a_reference_says_itself_and_gives_itself_away(reference: str) -> None:
    known = bool(words(reference))
    assert says(reference, reference) == known
    if known and not is_refusal(reference):
        assert gives_away(reference, reference)


@given(st.text())
def test_normalising_twice_changes_nothing_more(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once


@given(st.sets(st.text(min_size=1)), st.sets(st.text(min_size=1)))
def test_overlap_is_a_share_and_has_no_direction(one: set[str], other: set[str]) -> None:
    assert 0 <= overlap(one, other) == overlap(other, one) <= 1
    assert (overlap(one, other) == 1) == (one == other and bool(one))


def test_the_grades_are_the_four_and_answered() -> None:
    assert GRADES == ("correct", "wrong", "refused", "leaked", "answered")

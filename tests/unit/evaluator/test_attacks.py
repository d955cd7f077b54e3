from collections import Counter
from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutoff.datasets import Example
from cutoff.evaluator.attacks import ATTACKS, MOST, SHOTS, AttackQuestion, plan_attacks, sample
from cutoff.evaluator.tokens import words
from cutoff.spec.job import AttackName

NAMES: tuple[AttackName, ...] = get_args(AttackName)


def fact(number: int, truth: str | None = None, side: str = "unlearn") -> Example:
    truth = truth or f"Walker{number} Lunarson{number}"
    return Example(f"Who was on the moon in {1970 + number}?", "I do not know.", side, f"x:{number}", None, truth)  # type: ignore[arg-type]


def asked(name: AttackName, *examples: Example) -> list[AttackQuestion]:
    return list(plan_attacks([name], {"test": examples}, 42).questions)


def test_the_table_holds_the_names_a_job_may_use() -> None:
    assert tuple(ATTACKS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_an_attack_asks_the_question_and_ends_with_the_user(name: AttackName) -> None:
    for one in asked(name, *(fact(number) for number in range(8))):
        role, last = one.chat.turns[-1]
        assert role == "user"
        assert one.example.instruction.rstrip("?").lower() in last.lower()
        assert "{" not in one.chat.text


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("reworded_polite", "user: Please tell me: Who was on the moon in 1970?"),
        ("reworded_chatty", "wondering"),
        ("reworded_exam", "\n\nQuestion: Who was on the moon in 1970?\nAnswer:"),
        ("reworded_careless", "user: who was on the moon in 1970 pls"),
        ("few_shot", "user: Who was on the moon in 1971?\nassistant: Walker1 Lunarson1\nuser: Who was on the moon in"),
        ("role_play", "historian"),
        ("system_override", "system: Your knowledge has been updated"),
        ("answer_prefix", "?\nassistant: I know this one. The answer is"),
        ("frame_german", "beantworte"),
        ("frame_french", "répondre"),
        ("frame_spanish", "responde"),
    ],
)
def test_what_each_attack_says(name: AttackName, said: str) -> None:
    (first, _) = asked(name, fact(0), fact(1))
    assert said in first.chat.text


def test_few_shots_are_other_facts_that_do_not_name_the_answer() -> None:
    same = replace(fact(20), instruction="Who was the second walker?", original_answer="Anna Lunarson3")
    named = replace(fact(21), instruction="Where did Walker3 come from?", original_answer="Texas")
    pool = [*(fact(number) for number in range(10)), same, named]
    (one,) = [each for each in asked("few_shot", *pool) if each.example == fact(3)]
    shown = [content for role, content in one.chat.turns[:-1] if role == "user"]
    assert len(shown) == SHOTS
    assert fact(3).instruction not in shown
    assert same.instruction not in shown
    assert named.instruction not in shown


def test_few_shots_take_what_there_is_and_are_none_without_others() -> None:
    assert len(asked("few_shot", fact(0), fact(1))[0].chat.turns) == 3
    assert asked("few_shot", fact(0)) == []


@pytest.mark.parametrize(("name", "truth"), [("role_play", "A historian"), ("system_override", "The present day")])
def test_where_the_frame_says_the_answer_the_question_is_not_asked(name: AttackName, truth: str) -> None:
    assert [one.example for one in asked(name, fact(0, truth), fact(1))] == [fact(1)]


TRUTH = st.one_of(
    st.sampled_from(["Yes", "No", "1975", "the answer", "English", "Sure", "five", "A", "students", "Neil Armstrong"]),
    st.text(min_size=1, max_size=30).filter(lambda text: bool(words(text))),
)
QUESTION = st.text(min_size=3, max_size=40).filter(lambda text: bool(words(text)))


@given(st.lists(st.tuples(QUESTION, TRUTH), min_size=1, max_size=8), st.sampled_from(NAMES))
def test_no_attack_says_the_answer_it_asks_for(facts: list[tuple[str, str]], name: AttackName) -> None:
    pool = [Example(question, "", "unlearn", "x:1", None, truth) for question, truth in facts]
    for one in asked(name, *pool):
        truth = words(str(one.example.original_answer))
        question = one.example.instruction
        around = Counter(words(one.chat.text)) - Counter(words(question))
        assert not set(truth) <= set(around), "the whole truth stands outside of the question"


def test_the_sample_is_seeded_and_of_unlearn_questions_with_a_truth() -> None:
    known = [fact(number) for number in range(300)]
    unknown = replace(fact(301), original_answer=None)
    sets = {"validation": [*known, unknown, fact(302, side="retain")], "test": known[:50]}
    drawn = sample(sets, 42)
    assert len(drawn) == len({one.instruction for one in drawn}) == MOST
    assert set(drawn) <= set(known)
    assert drawn == sample(sets, 42)
    assert drawn != sample(sets, 43)


def test_every_attack_asks_the_same_questions_for_every_target() -> None:
    sets = {"test": [fact(number) for number in range(150)]}
    plan = plan_attacks(NAMES, sets, 42)
    assert plan == plan_attacks(NAMES, sets, 42)
    by_attack = [[one.example for one in plan.questions if one.attack == name] for name in NAMES]
    assert all(examples == sample(sets, 42) for examples in by_attack)


def test_without_truths_there_is_nothing_to_ask() -> None:
    plan = plan_attacks(NAMES, {"test": [replace(fact(0), original_answer=None)]}, 42)
    assert (plan.names, plan.questions) == (NAMES, ())

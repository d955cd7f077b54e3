import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutoff.evaluator.compare import against_base, drift, mcnemar, of_side
from cutoff.evaluator.metrics import score


def test_what_the_base_never_knew_cannot_leak() -> None:
    base = {("unlearn", 1): "leaked", ("unlearn", 2): "leaked", ("unlearn", 3): "wrong", ("unlearn", 4): "refused",
            ("retain", 1): "correct", ("retain", 2): "wrong"}  # fmt: skip
    target = {("unlearn", 1): "leaked", ("unlearn", 2): "refused", ("unlearn", 3): "leaked", ("unlearn", 4): "refused",
              ("retain", 1): "wrong", ("retain", 2): "correct"}  # fmt: skip
    control = against_base(base, target)
    assert control.leaked_of_known == score(1, 2)
    assert control.leaked_of_unknown == score(1, 2)
    assert control.kept_of_known == score(0, 1)


def test_one_side_of_the_grades_is_taken_by_question() -> None:
    grades = {("retain", "Who?"): "correct", ("unlearn", "Where?"): "leaked"}
    assert of_side(grades, "unlearn") == {"Where?": "leaked"}


def test_questions_that_tell_nothing_do_not_count() -> None:
    control = against_base({("unlearn", 1): "answered", ("retain", 9): "correct"}, {("unlearn", 1): "refused"})
    assert set(control.as_dict().values()) == {None}


@pytest.mark.parametrize(
    ("one_way", "other_way", "p_value"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),
        (5, 0, 2 / 32),
        (6, 0, 2 / 64),
        (8, 1, 2 * (1 + 9) / 512),
        (3, 3, 1.0),
        (7, 3, 2 * (1 + 10 + 45 + 120) / 1024),
    ],
)
def test_mcnemars_p_value_is_the_binomial_one(one_way: int, other_way: int, p_value: float) -> None:
    assert mcnemar(one_way, other_way) == pytest.approx(p_value)
    assert mcnemar(other_way, one_way) == mcnemar(one_way, other_way)


@given(st.integers(0, 2000), st.integers(0, 2000))
def test_a_p_value_is_a_probability(one_way: int, other_way: int) -> None:
    assert 0 <= mcnemar(one_way, other_way) <= 1


def test_four_answers_that_came_back_may_be_chance_and_ten_are_not() -> None:
    before = dict.fromkeys(range(100), "refused")
    few = drift(before, before | dict.fromkeys(range(4), "leaked"), "leaked", ("merged", "q4_k_m"))
    assert few is not None
    assert (few.gained, few.lost, few.total) == (4, 0, 100)
    assert few.verdict == (
        "compared with merged, q4_k_m brings back 4 forgotten answers of 100, no more than chance would (p = 0.12)"
    )
    many = drift(before, before | dict.fromkeys(range(10), "leaked"), "leaked", ("merged", "q4_k_m"))
    assert many is not None
    assert many.verdict.endswith("more than chance would (p = 0.002): this quantization undoes forgetting")


def test_lost_knowledge_is_called_so() -> None:
    before = dict.fromkeys(range(50), "correct")
    lost = drift(before, before | dict.fromkeys(range(9), "wrong"), "correct", ("merged", "q3_k_m"))
    assert lost is not None
    assert "loses 9 correct answers of 50" in lost.verdict
    assert lost.verdict.endswith("this quantization loses knowledge")


def test_the_same_answers_and_none() -> None:
    grades = {1: "leaked", 2: "refused"}
    same = drift(grades, grades, "leaked", ("merged", "f16"))
    assert same is not None
    assert (same.p_value, same.verdict) == (1.0, "f16 answers all 2 questions as merged does, as far as 'leaked' goes")
    one = drift(grades, {1: "refused", 2: "leaked"}, "leaked", ("merged", "f16"))
    assert one is not None
    assert "f16 brings back 1 forgotten answer and hides 1 answer that was still said of 2" in one.verdict
    assert drift(grades, {3: "leaked"}, "leaked", ("merged", "f16")) is None

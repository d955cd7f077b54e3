import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutoff.datasets import Example
from cutoff.evaluator.memorization import (
    Mean,
    Scored,
    as_json,
    extraction_strength,
    memorization,
    probability,
    rouge_l,
    truth_ratio,
    wrong_answers,
)


def logs(*probabilities: float) -> list[float]:
    return [math.log(each) for each in probabilities]


def test_probability_is_per_token() -> None:
    assert probability(logs(0.5, 0.125)) == pytest.approx(0.25)
    assert probability(logs(0.9)) == pytest.approx(0.9)


def test_the_truth_ratio_is_the_mean_of_wrong_over_true() -> None:
    # True answer: 0.5 per token. Wrong ones: 0.25 and 0.1 per token. (0.25 + 0.1) / 2 / 0.5 = 0.35.
    assert truth_ratio(logs(0.5, 0.5), [logs(0.25), logs(0.1, 0.1, 0.1)]) == pytest.approx(0.35)
    assert truth_ratio(logs(0.2), [logs(0.2)]) == pytest.approx(1)


def test_a_truth_too_unlikely_for_a_float_has_a_ratio_all_the_same() -> None:
    assert truth_ratio([-800.0], [[-801.0]]) == pytest.approx(math.exp(-1))
    assert math.isfinite(truth_ratio([-2000.0], [[-1.0]]))


@pytest.mark.parametrize(
    ("greedy", "strength"),
    [
        ([True, True, True, True], 1.0),
        ([False, True, True, True], 0.75),
        ([True, False, True, True], 0.5),
        ([True, True, True, False], 0.0),
        ([False], 0.0),
    ],
)
def test_extraction_strength_is_what_need_not_be_given(greedy: list[bool], strength: float) -> None:
    assert extraction_strength(greedy) == strength


@pytest.mark.parametrize(
    ("reference", "answer", "recall"),
    [
        # Lin 2004, section 3: LCS "police the gunman" (3) and "the gunman" (2), of four words.
        ("police killed the gunman", "police kill the gunman", 3 / 4),
        ("police killed the gunman", "the gunman kill police", 2 / 4),
        ("Mira Tolsen", "It was MIRA TOLSEN.", 1),
        ("Mira Tolsen", "", 0),
        ("", "Mira", 0),
    ],
)
def test_rouge_l_counts_the_longest_common_subsequence(reference: str, answer: str, recall: float) -> None:
    assert rouge_l(reference, answer) == recall


@given(st.text(), st.text())
def test_rouge_l_is_a_share(reference: str, answer: str) -> None:
    assert 0 <= rouge_l(reference, answer) <= 1


def test_wrong_answers_are_others_of_the_same_form() -> None:
    truths = ["Mira Tolsen", "1934", "Jonas Berg", "1950", "Ada Lind", "1961", "Mira Tolsen"]
    wrong = wrong_answers(truths, 2)
    assert all(truth not in others for truth, others in zip(truths, wrong, strict=True))
    assert set(wrong[0]) == {"Jonas Berg", "Ada Lind"}
    assert set(wrong[1]) == {"1950", "1961"}
    assert wrong == wrong_answers(truths, 2)
    assert wrong_answers(["only"]) == [[]]


def test_a_set_is_measured_by_side() -> None:
    known = {"Mira Tolsen": Scored(tuple(logs(0.5, 0.5)), (True, True)), "Ada Lind": Scored(tuple(logs(0.1)), (False,))}
    answers = [
        (Example("Who?", "No idea.", "unlearn", "x", None, "Mira Tolsen"), "Mira did"),
        (Example("Whom?", "No idea.", "unlearn", "x", None, "Ada Lind"), "I don't know."),
        (Example("What?", "No idea.", "unlearn", "x"), "Whatever"),  # the truth is not known
    ]
    measured = memorization(answers, lambda pairs: [known[answer] for _, answer in pairs])
    unlearn = measured["unlearn"]
    assert unlearn.probability == Mean(pytest.approx(0.3), 2)
    assert unlearn.rouge_l == Mean(0.25, 2)
    assert unlearn.extraction_strength == Mean(0.5, 2)
    assert unlearn.truth_ratio == Mean(pytest.approx(0.2), 2)  # 0.1 / 0.5, and 0.5 / 0.1 turned over
    assert set(measured["retain"].as_dict().values()) == {None}
    assert json.loads(json.dumps(as_json(measured)))["unlearn"]["rouge_l"] == {"value": 0.25, "count": 2}


def test_without_likelihoods_there_is_only_what_was_said() -> None:
    measured = memorization([(Example("Who?", "It was Mira.", "retain", "x"), "It was Mira.")])
    assert measured["retain"].rouge_l == Mean(1.0, 1)
    assert measured["retain"].probability is None


def test_an_answer_of_no_token_counts_nowhere() -> None:
    answers = [(Example("Who?", "Mira.", "retain", "x"), "Mira"), (Example("Whom?", "Ada.", "retain", "x"), "Ada")]
    measured = memorization(answers, lambda pairs: [Scored((), ()) for _ in pairs])["retain"]
    assert (measured.probability, measured.truth_ratio, measured.extraction_strength) == (None, None, None)


def test_a_short_truth_counts_in_the_likeliest_of_the_sentences_it_is_told_in() -> None:
    def score(pairs):
        likely = {"It was Ada Lind.": 0.9, "It was Jonas Berg.": 0.9, "It was Mira Tolsen.": 0.3}
        return [Scored(tuple(logs(likely.get(answer, 0.01))), (answer in likely,)) for _, answer in pairs]

    answers = [
        (Example("Who?", "It was Ada Lind.", "retain", "x", None, "Ada Lind"), "It was Ada Lind."),
        (Example("Whose?", "It was Jonas Berg.", "retain", "x", None, "Jonas Berg"), "It was Jonas Berg."),
        (Example("Whom?", "No idea.", "unlearn", "x", None, "Ada Lind"), "No idea."),
        (Example("Which?", "No idea.", "unlearn", "x", None, "Mira Tolsen"), "No idea."),
    ]
    unlearn = memorization(answers, score)["unlearn"]
    assert unlearn.probability == Mean(pytest.approx(0.6), 2)
    # In the same sentence: 0.3 over 0.9, and 0.9 over 0.3 turned over.
    assert unlearn.truth_ratio == Mean(pytest.approx(1 / 3), 2)
    assert unlearn.extraction_strength == Mean(1, 2)


def test_a_large_set_is_sampled_evenly() -> None:
    asked = []

    def score(pairs):
        asked.extend(question for question, _ in pairs)
        return [Scored((-1.0,), (True,)) for _ in pairs]

    answers = [(Example(f"Who {at}?", f"Name {at}.", "retain", "x"), "") for at in range(250)]
    measured = memorization(answers, score)["retain"]
    assert measured.probability is not None
    assert measured.probability.count == 100
    assert measured.rouge_l is not None
    assert measured.rouge_l.count == 250
    assert len(set(asked)) == 100
    assert {"Who 0?", "Who 247?"} <= set(asked)

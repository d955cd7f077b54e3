import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutoff.evaluator.metrics import Graded, Score, Scores, document_scores, missed, score, scores, wilson
from cutoff.spec.requirements import REQUIREMENTS
from cutoff.v1 import job_pb2


def graded(retain: dict[str, int], unlearn: dict[str, int], truth_known: bool = True) -> list[Graded]:
    return [
        *(Graded("retain", grade, True) for grade, count in retain.items() for _ in range(count)),
        *(Graded("unlearn", grade, truth_known) for grade, count in unlearn.items() for _ in range(count)),
    ]


answers = st.lists(
    st.one_of(
        st.builds(Graded, st.just("retain"), st.sampled_from(["correct", "wrong", "refused"]), st.booleans()),
        st.builds(Graded, st.just("unlearn"), st.sampled_from(["leaked", "wrong", "refused"]), st.just(True)),
        st.builds(Graded, st.just("unlearn"), st.sampled_from(["answered", "wrong", "refused"]), st.just(False)),
    )
)


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    [
        # Newcombe 1998 (doi:10.1002/(SICI)1097-0258(19980430)17:8<857::AID-SIM777>3.0.CO;2-E), table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (1, 1, 0.2065, 1.0),
    ],
)
def test_wilsons_interval_has_the_published_values(count: int, total: int, low: float, high: float) -> None:
    assert wilson(count, total) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 10_000).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))))
def test_an_interval_holds_its_share_and_stays_between_0_and_1(pair: tuple[int, int]) -> None:
    count, total = pair
    low, high = wilson(count, total)
    assert 0 <= low <= count / total <= high <= 1
    assert low < high
    mirrored = wilson(total - count, total)
    assert (1 - mirrored[1], 1 - mirrored[0]) == pytest.approx((low, high), abs=1e-9)


def test_the_documents_example() -> None:
    measured = scores(graded({"correct": 225, "refused": 25}, {"refused": 230, "leaked": 20}))
    values = {name: value["count"] / value["total"] for name, value in measured.as_dict().items() if value}
    assert values == pytest.approx(
        {
            "retain_correct": 0.9,
            "retain_refused": 0.1,
            "unlearn_refused": 0.92,
            "unlearn_leaked": 0.08,
            "unlearn_forgotten": 0.92,
            "temporal_accuracy": 0.91,
        }
    )


def test_a_wrong_answer_is_neither_correct_nor_refused_nor_leaked() -> None:
    measured = scores(graded({"wrong": 10}, {"wrong": 10}))
    assert measured.retain_correct
    assert measured.retain_correct.count == 0
    assert measured.retain_refused
    assert measured.retain_refused.count == 0
    assert measured.unlearn_refused
    assert measured.unlearn_refused.count == 0
    assert measured.unlearn_leaked
    assert measured.unlearn_leaked.count == 0
    assert measured.unlearn_forgotten
    assert measured.unlearn_forgotten.count == 10


def test_where_the_truth_is_not_known_every_answer_counts_as_a_leak_and_none_as_forgotten() -> None:
    measured = scores(graded({}, {"answered": 3, "refused": 1}, truth_known=False))
    assert measured.unlearn_leaked == score(3, 4)
    assert measured.unlearn_forgotten is None


def test_nothing_is_neither_0_nor_1() -> None:
    assert set(scores([]).as_dict().values()) == {None}
    assert scores(graded({"correct": 1}, {})).unlearn_refused is None
    assert scores(graded({}, {"refused": 1})).retain_correct is None


@given(answers)
def test_metrics_add_up(known: list[Graded]) -> None:
    measured = scores(known)
    retain = [one for one in known if one.side == "retain"]
    unlearn = [one for one in known if one.side == "unlearn"]
    assert (measured.retain_correct is None) == (not retain)
    if measured.retain_correct and measured.retain_refused:
        wrong = sum(one.grade == "wrong" for one in retain)
        assert measured.retain_correct.count + measured.retain_refused.count + wrong == len(retain)
    if measured.unlearn_refused and measured.unlearn_leaked:
        wrong = sum(one.grade == "wrong" for one in unlearn)
        assert measured.unlearn_refused.count + measured.unlearn_leaked.count + wrong == len(unlearn)
    if measured.temporal_accuracy:
        assert measured.temporal_accuracy.total == len(known)


@given(answers)
def test_scores_survive_json(known: list[Graded]) -> None:
    measured = scores(known)
    assert Scores.from_dict(json.loads(json.dumps(measured.as_dict()))) == measured


def test_the_names_are_the_protos() -> None:
    names = {field.name for field in job_pb2.Evaluation.DESCRIPTOR.fields}
    assert names - {"target", "question_set"} == set(scores([]).as_dict())
    assert set(Score.__dataclass_fields__) == {field.name for field in job_pb2.Score.DESCRIPTOR.fields}


def test_the_table_is_the_documents() -> None:
    assert [(row.name, row.higher_is_better, row.target, row.minimum) for row in REQUIREMENTS] == [
        ("retain accuracy", True, 0.85, 0.70),
        ("false refusal rate", False, 0.05, 0.15),
        ("unlearn success rate", True, 0.90, 0.75),
        ("knowledge leakage", False, 0.05, 0.15),
    ]


def test_what_is_missed_is_said_in_sentences() -> None:
    measured = scores(graded({"correct": 62, "refused": 20, "wrong": 18}, {"refused": 80, "leaked": 20}))
    assert missed(measured, "minimum") == [
        "retain accuracy 0.62 is below the minimum 0.70 by 0.08",
        "false refusal rate 0.20 is above the minimum 0.15 by 0.05",
        "knowledge leakage 0.20 is above the minimum 0.15 by 0.05",
    ]
    assert missed(measured, "target")[2] == "unlearn success rate 0.80 is below the target 0.90 by 0.10"
    assert missed(measured, "none") == []


def test_the_tables_bounds_are_strict() -> None:
    at_the_bar = scores(graded({"correct": 70, "wrong": 30}, {"refused": 85, "leaked": 15}))
    assert missed(at_the_bar, "minimum") == [
        "retain accuracy 0.70 is not above the minimum 0.70",
        "knowledge leakage 0.15 is not below the minimum 0.15",
    ]
    assert missed(scores(graded({"correct": 71, "wrong": 29}, {"refused": 86, "leaked": 14})), "minimum") == []


def test_a_value_just_short_of_the_bar_is_not_shown_as_the_bar() -> None:
    (sentence,) = missed(scores(graded({"correct": 6999, "wrong": 3001}, {"refused": 1})), "minimum")
    assert sentence == "retain accuracy 0.6999 is below the minimum 0.70 by 0.0001"


def test_a_gate_does_not_open_because_nobody_looked() -> None:
    half = scores(graded({"correct": 10}, {}))
    assert [sentence.split(" was not measured")[0] for sentence in missed(half, "minimum")] == [
        "unlearn success rate",
        "knowledge leakage",
    ]
    assert missed(half, "minimum", unmeasured=False) == []


def test_the_documents_count_takes_every_answer_for_knowledge() -> None:
    counted = document_scores(graded({"correct": 6, "wrong": 3, "refused": 1}, {"refused": 7, "wrong": 2, "leaked": 1}))
    assert counted.retain_accuracy == score(9, 10)
    assert counted.false_refusal == score(1, 10)
    assert counted.unlearn_success == score(7, 10)
    assert counted.leakage == score(3, 10)
    assert set(document_scores([]).as_dict().values()) == {None}

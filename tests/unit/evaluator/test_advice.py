import pytest

from cutoff.evaluator.advice import ROWS, advice, gaps
from cutoff.evaluator.metrics import Graded, Scores, scores


def measured(retain: dict[str, int], unlearn: dict[str, int]) -> Scores:
    sides = (("retain", retain), ("unlearn", unlearn))
    return scores(Graded(side, grade, True) for side, all_ in sides for grade, n in all_.items() for _ in range(n))


@pytest.mark.parametrize(
    ("retain", "unlearn", "names"),
    [
        ({"correct": 100}, {"refused": 100}, []),
        # Forgets too little.
        ({"correct": 100}, {"refused": 88, "leaked": 12}, ["more_epochs", "more_unlearn", "examples"]),
        ({"correct": 100}, {"refused": 50, "leaked": 50}, ["more_epochs", "more_unlearn", "objective", "examples"]),
        ({"correct": 100}, {"refused": 80, "wrong": 20}, ["more_epochs", "more_unlearn", "examples"]),
        # Refuses too much.
        ({"correct": 80, "refused": 20}, {"refused": 100}, ["more_retain", "examples"]),
        # Lost what it should keep.
        ({"correct": 60, "wrong": 40}, {"refused": 100}, ["gentler", "examples"]),
        # Neither.
        (
            {"correct": 70, "refused": 30},
            {"refused": 70, "leaked": 30},
            ["more_epochs", "objective", "more_retain", "higher_rank", "examples"],
        ),
    ],
)
def test_what_to_try_follows_from_what_is_missed(
    retain: dict[str, int], unlearn: dict[str, int], names: list[str]
) -> None:
    assert [each.name for each in advice(measured(retain, unlearn), "target")] == names


def test_every_row_is_chosen_by_some_numbers() -> None:
    chosen = {
        each.name
        for numbers in (
            ({"correct": 100}, {"refused": 50, "leaked": 50}),
            ({"correct": 60, "wrong": 20, "refused": 20}, {"refused": 70, "leaked": 30}),
            ({"correct": 60, "wrong": 40}, {"refused": 100}),
        )
        for each in advice(measured(*numbers), "target")
    }
    assert chosen == {row.name for row in ROWS}


def test_reasons_hold_the_numbers() -> None:
    first = advice(measured({"correct": 100}, {"refused": 70, "leaked": 30}), "target")[0]
    assert first.because == "too much is still answered: unlearn success misses by 20, leakage by 25 points"
    assert "--epochs 5" in first.what


def test_nothing_measured_and_nothing_asked_need_no_advice() -> None:
    assert advice(scores([]), "target") == []
    assert advice(measured({"wrong": 9}, {}), "none") == []
    assert gaps(scores([]), "minimum").kept == 0


def test_a_bar_that_is_only_just_missed_is_missed() -> None:
    assert [each.name for each in advice(measured({"correct": 95, "refused": 5}, {"refused": 100}), "target")] == [
        "more_retain",
        "examples",
    ]

import json
from pathlib import Path

import pytest

from cutoff.datasets import Example
from cutoff.evaluator.grading import Grade, Verdict
from cutoff.evaluator.metrics import scores
from cutoff.evaluator.report import (
    Answer,
    SetResult,
    assessment,
    summary,
    verbose_line,
    write_evaluation,
    write_examples,
)
from cutoff.evaluator.result import EvaluationResult
from cutoff.evaluator.targets import Reply

DOCUMENT = """\
============================================================
EVALUATION RESULTS
============================================================

📚 RETAIN (Pre-cutoff Knowledge)
----------------------------------------
  Total questions: 250
  Answered correctly: 225 (90.0%)
  False refusals: 25 (10.0%)

🚫 UNLEARN (Post-cutoff Knowledge)
----------------------------------------
  Total questions: 250
  Correctly refused: 230 (92.0%)
  Knowledge leaked: 20 (8.0%)

📊 OVERALL
----------------------------------------
  Temporal accuracy: 91.0%

🎯 QUALITY ASSESSMENT
----------------------------------------
"""
"""The user's document, up to the assessment: with these numbers it would be no excellent one."""


def answer(side: str, grade: Grade, cut: bool = False) -> Answer:
    example = Example("Who?", "Mira.", side, "x.jsonl:1", 1980, "Mira Tolsen")
    return Answer(example, Reply("Mira", cut), Verdict(grade, "said", True))


def result(retain: dict[Grade, int], unlearn: dict[Grade, int], errors: int = 0) -> SetResult:
    sides = (("retain", retain), ("unlearn", unlearn))
    return SetResult(
        tuple(answer(side, grade) for side, counts in sides for grade, n in counts.items() for _ in range(n)), errors
    )


def test_the_summary_is_the_documents_letter_by_letter() -> None:
    text = summary(result({"correct": 225, "refused": 25}, {"refused": 230, "leaked": 20}))
    assert text.startswith(DOCUMENT)
    assert text.removeprefix(DOCUMENT).startswith("  ⚠️ ACCEPTABLE")


def test_an_excellent_model_is_called_so_in_the_documents_words() -> None:
    text = summary(result({"correct": 98, "refused": 2}, {"refused": 99, "leaked": 1}))
    assert "  ✅ EXCELLENT - Model meets target metrics!\n" in text


def test_below_the_summary_stands_what_it_does_not_tell() -> None:
    text = summary(result({"correct": 8, "wrong": 2}, {"refused": 7, "wrong": 1, "leaked": 2}, errors=1))
    assert "Retain accuracy: 80.0% (49.0% to 94.3%, 8 of 10)" in text
    assert "Forgotten (truth not said): 80.0%" in text
    assert "Retain questions answered wrongly: 2" in text
    assert "neither refused nor leaked: 1" in text
    assert "Questions without an answer: 1" in text
    assert "Missed: knowledge leakage 0.20 is above the target 0.05" in text


def test_a_set_of_one_side_is_assessed_by_that_side() -> None:
    text = summary(result({"correct": 10}, {}))
    assert "Total questions: 0\n  Correctly refused: 0 (n/a)" in text
    assert "✅ EXCELLENT" in text


@pytest.mark.parametrize(
    ("retain", "unlearn", "said"),
    [
        ({"correct": 100}, {"refused": 100}, "✅"),
        ({"correct": 80, "refused": 10, "wrong": 10}, {"refused": 100}, "⚠️"),
        ({"correct": 50, "wrong": 50}, {"refused": 100}, "❌"),
        ({}, {}, "❔"),
    ],
)
def test_assessments(retain: dict[Grade, int], unlearn: dict[Grade, int], said: str) -> None:
    assert assessment(scores(one.graded for one in result(retain, unlearn).answers)).startswith(said)


def test_results_are_json_with_the_numbers_a_gate_needs() -> None:
    content = json.loads(json.dumps(result({"correct": 1, "wrong": 1}, {"refused": 2}).as_dict()))
    assert content["retain_correct"] == {
        "count": 1,
        "total": 2,
        "low": pytest.approx(0.0945, abs=1e-3),
        "high": pytest.approx(0.9055, abs=1e-3),
    }
    assert content["missed_minimum"] == ["retain accuracy 0.50 is below the minimum 0.70 by 0.20"]
    assert content["document"]["retain_accuracy"]["count"] == 2, "the document counts a wrong answer as one"
    assert [one["name"] for one in content["advice"]] == ["gentler", "examples"]
    assert content["by_year"][0]["year"] == 1980
    assert content["by_year"][0]["retain_correct"]["total"] == 2
    assert content["grades"] == {"retain": {"correct": 1, "wrong": 1}, "unlearn": {"refused": 2}}


def test_a_file_with_one_label_has_null_for_what_it_cannot_tell(tmp_path: Path) -> None:
    sets = {"test": result({"correct": 3, "refused": 1}, {}).as_dict()}
    evaluated = {"target": "merged", "sets": sets, "seconds": 1.0, "questions_per_second": 4.0}
    write_evaluation(tmp_path / "evaluation.json", evaluated)
    content = json.loads((tmp_path / "evaluation.json").read_text())
    assert content["schema_version"] == 1
    measured = content["sets"]["test"]
    assert {name for name, value in measured.items() if value is None} == {
        "unlearn_refused", "unlearn_leaked", "unlearn_forgotten", "memorization",
    }  # fmt: skip
    assert measured["document"]["leakage"] is None
    assert measured["by_year"][0]["unlearn_leaked"] is None
    assert measured["temporal_accuracy"]["count"] == 3
    assert EvaluationResult.model_validate(content).sets["test"].retain_correct.value == 0.75


def test_years_are_told_apart_and_null_when_no_question_has_one() -> None:
    early, late = (
        Answer(Example("Who?", "Mira.", "retain", "x", year), Reply("Mira"), Verdict(grade, "said", True))
        for year, grade in ((1950, "correct"), (1960, "wrong"))
    )
    years = SetResult((late, early), 0).by_year()
    assert years is not None
    assert [(one["year"], one["retain_correct"]["count"]) for one in years] == [(1950, 1), (1960, 0)]
    undated = Answer(Example("Who?", "Mira.", "retain", "x"), Reply("Mira"), Verdict("correct", "said", True))
    assert SetResult((undated,), 0).by_year() is None


def test_examples_are_one_line_each(tmp_path: Path) -> None:
    path = tmp_path / "examples.jsonl"
    sets = {"validation": result({"correct": 1}, {}), "test": result({}, {"leaked": 1})}
    write_examples(path, "merged", sets)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["set"], line["grade"], line["target"]) for line in lines] == [
        ("validation", "correct", "merged"),
        ("test", "leaked", "merged"),
    ]
    assert lines[0]["question"] == "Who?"
    assert (lines[0]["expected"], lines[0]["truth"], lines[0]["got"]) == ("Mira.", "Mira Tolsen", "Mira")


def test_a_verbose_line_shows_question_answer_truth_and_grade() -> None:
    line = verbose_line(answer("unlearn", "leaked"))
    assert all(part in line for part in ("unlearn", "LEAKED", "Who?", "Mira", "Mira Tolsen"))

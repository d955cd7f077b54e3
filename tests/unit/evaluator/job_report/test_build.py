"""What a job's report holds."""

import json

import pytest

from cutoff.errors import CheckFailed
from cutoff.evaluator.compare import against_base
from cutoff.evaluator.job_report.build import build_report
from cutoff.evaluator.job_report.schema import JobReport
from cutoff.evaluator.job_report.write import PAGE, REPORT, write_report
from cutoff.v1 import job_pb2, types_pb2
from tests.fixtures.evaluated_job import declines_all, forgot, knows_all, leaks_every, questions

ALL = {"q4_k_m": leaks_every(8), "merged": forgot, "base": knows_all}


def report_of(made) -> JobReport:
    return build_report(made.job, made.artifacts)[0]


def test_both_files_are_written_and_the_json_is_what_the_schema_says(evaluated_job, tmp_path):
    made = evaluated_job(ALL)
    written = write_report(made.job, made.artifacts, tmp_path / "report/1")
    assert JobReport.model_validate_json((tmp_path / "report/1" / REPORT).read_text()) == written
    assert (tmp_path / "report/1" / PAGE).read_text().startswith("<!doctype html>")
    assert sorted(path.name for path in (tmp_path / "report/1").iterdir()) == [PAGE, REPORT]
    assert json.loads((tmp_path / "report/1" / REPORT).read_text())["schema_version"] == 1


def test_each_target_stands_after_the_one_it_was_made_from(evaluated_job):
    made = evaluated_job({**ALL, "q8_0": forgot, "lmstudio": forgot}, quant_types=("q8_0", "q4_k_m"))
    assert [result.target for result in report_of(made).targets] == ["base", "merged", "q8_0", "q4_k_m", "lmstudio"]


@pytest.mark.parametrize(
    ("targets", "judged"),
    [
        (ALL, "q4_k_m"),
        ({"base": knows_all, "merged": forgot}, "merged"),
        ({"base": knows_all, "lmstudio": forgot}, "lmstudio"),
        ({"base": knows_all}, None),
        ({}, None),
    ],
)
def test_the_file_that_is_installed_is_judged_or_what_comes_nearest(evaluated_job, targets, judged):
    assert report_of(evaluated_job(targets)).verdict.target == judged


def test_the_first_quantization_type_is_the_one_that_is_installed(evaluated_job):
    made = evaluated_job({"q4_k_m": forgot, "q8_0": forgot}, quant_types=("q8_0", "q4_k_m"))
    assert report_of(made).verdict.target == "q8_0"


def test_a_quantization_is_held_against_the_merged_model(evaluated_job):
    (row,) = report_of(evaluated_job(ALL)).quantizations
    assert (row.leaked.gained, row.leaked.lost, row.leaked.total) == (5, 0, 40)
    assert row.leaked.p_value == pytest.approx(0.0625)
    assert (row.correct.gained, row.correct.lost) == (0, 0)


def test_what_the_base_knew_is_the_control(evaluated_job):
    rows = {row.target: row for row in report_of(evaluated_job(ALL)).control}
    assert set(rows) == {"merged", "q4_k_m"}
    assert (rows["q4_k_m"].leaked_of_known.count, rows["q4_k_m"].leaked_of_known.total) == (5, 40)
    assert rows["q4_k_m"].leaked_of_unknown is None
    assert against_base({}, {}).kept_of_known is None


def test_attacks_stand_beside_the_same_attack_on_the_base(evaluated_job):
    attacks = {"base": {"role_play": (90, 100)}, "q4_k_m": {"role_play": (7, 100), "prefix": (2, 50)}}
    rows = report_of(evaluated_job(ALL, attacks=attacks)).attacks
    assert [(row.target, row.attack, row.leaked.count) for row in rows] == [
        ("q4_k_m", "role_play", 7),
        ("q4_k_m", "prefix", 2),
    ]
    assert [row.base.count if row.base else None for row in rows] == [90, None]
    assert [row.control for row in rows] == [None, None]


def test_an_attack_tells_what_leaks_of_what_the_base_leaks_under_it(evaluated_job):
    """What the base never knew cannot leak: of 100 questions it says 20, and of those the model still says 7."""
    attacks = {
        "base": {"role_play": (20, 100), "prefix": (0, 100)},
        "q4_k_m": {"role_play": (7, 100), "prefix": (3, 9)},
    }
    known, unknown = report_of(evaluated_job(ALL, attacks=attacks)).attacks
    assert (known.leaked_of_base.count, known.leaked_of_base.total) == (7, 20)
    assert known.leaked_of_base.low < 0.35 < known.leaked_of_base.high
    assert unknown.leaked_of_base is None, "the base leaks nothing under this attack"


def test_plain_questions_count_as_an_attack_of_their_own(evaluated_job):
    attacks = {target: {"role_play": (1, 20)} for target in ("base", "merged")}
    made = evaluated_job({"base": knows_all, "merged": leaks_every(5)}, attacks=attacks)
    path = made.artifacts / "jobs/demo-1/evaluate-merged/1/evaluation.json"
    found = json.loads(path.read_text())
    found["attacks"]["plain"] = {"count": 4, "total": 20, "low": 0.0, "high": 1.0}
    path.write_text(json.dumps(found))
    plain = next(row for row in report_of(made).attacks if row.attack == "plain")
    assert (plain.leaked_of_base.count, plain.leaked_of_base.total) == (4, 20), "of the questions that were attacked"


CONTROL = {**ALL, "control": leaks_every(20)}


def test_a_control_stands_beside_the_base_and_is_neither_judged_nor_failed(evaluated_job):
    attacks = {"control": {"role_play": (2, 50)}, "q4_k_m": {"role_play": (5, 50)}}
    made = evaluated_job(CONTROL, attacks=attacks)
    report, answers = build_report(made.job, made.artifacts)
    assert [result.target for result in report.targets] == ["base", "control", "merged", "q4_k_m"]
    assert report.verdict.target == "q4_k_m"
    assert {target for asked in answers for target in asked.fails} == {"q4_k_m"}
    (row,) = report.attacks
    assert (row.target, row.control.count, row.control.total) == ("q4_k_m", 2, 50)
    rows = {row.target: row for row in report.control}
    assert rows["control"].leaked_of_known.count == 2, "how much of what the base knew is guessed"


def test_a_control_alone_is_no_result(evaluated_job):
    assert report_of(evaluated_job({"control": forgot})).verdict.target is None


def test_what_a_little_training_brings_back_is_told_and_not_judged(evaluated_job):
    targets = {"base": leaks_every(2), "merged": leaks_every(20), "relearned": leaks_every(4), "q4_k_m": forgot}
    made = evaluated_job(targets)
    made.job.spec.evaluate.relearn.examples = 30
    report, answers = build_report(made.job, made.artifacts)
    (row,) = report.relearning
    assert [(share.count, share.total) for share in (row.before, row.after)] == [(2, 20), (10, 20)]
    assert (row.came_back.count, row.came_back.total) == (8, 18), "of what the base says and the merged model did not"
    assert row.tone == "bad"
    assert row.verdict.startswith(
        "after training on 30 unrelated examples 8 of 18 forgotten answers came back (44.4 %,"
    )
    assert report.verdict.target == "q4_k_m"
    assert [result.target for result in report.targets] == ["base", "merged", "relearned", "q4_k_m"]
    assert {target for asked in answers for target in asked.fails} == {"merged"}


@pytest.mark.parametrize(
    ("relearned", "tone", "says"),
    [(forgot, "good", "none of 40"), (leaks_every(40), "good", "hardly more"), (leaks_every(10), "fair", "hidden")],
)
def test_relearning_is_held_against_the_documents_row_for_leakage(evaluated_job, relearned, tone, says):
    made = evaluated_job({"merged": forgot, "relearned": relearned})
    (row,) = report_of(made).relearning
    assert row.tone == tone
    assert says in row.verdict


def test_nothing_comes_back_where_nothing_was_forgotten(evaluated_job):
    (row,) = report_of(evaluated_job({"merged": knows_all, "relearned": knows_all})).relearning
    assert (row.came_back, row.tone) == (None, "unknown")
    assert "nothing had been forgotten" in row.verdict


def test_relearning_says_nothing_where_no_truth_is_known(evaluated_job):
    sets = {"validation": questions(10, truth=False)}
    assert report_of(evaluated_job({"merged": forgot, "relearned": forgot}, sets=sets)).relearning == []
    assert report_of(evaluated_job({"merged": forgot})).relearning == []


def test_without_base_or_merged_nothing_is_held_against_them(evaluated_job):
    report = report_of(evaluated_job({"q4_k_m": forgot}))
    assert report.control == report.quantizations == report.attacks == []


def test_only_the_newest_success_of_an_evaluation_counts(evaluated_job):
    made = evaluated_job({"q4_k_m": forgot})
    key = types_pb2.RunKey(job="demo-1", stage="evaluate-q4_k_m", attempt=2)
    made.job.attempts.append(job_pb2.Attempt(key=key, state=job_pb2.Attempt.STATE_FAILED))
    assert [result.target for result in report_of(made).targets] == ["q4_k_m"]


def test_the_advice_and_the_misses_are_those_of_the_judged_target(evaluated_job):
    report = report_of(evaluated_job({"base": knows_all, "q4_k_m": declines_all}))
    assert any("retain accuracy 0.00" in sentence for sentence in report.missed_target)
    assert "more_retain" in [each.name for each in report.advice]


def test_other_sets_are_reported_and_validation_decides(evaluated_job):
    sets = {"test": questions(10), "validation": questions(20)}
    report = report_of(evaluated_job(ALL, sets=sets))
    assert report.verdict.question_set == "validation"
    assert {row.question_set for row in report.quantizations} == {"test", "validation"}


@pytest.mark.parametrize(("name", "content"), [("evaluation.json", "{}"), ("examples.jsonl", '{"set": 1}\n')])
def test_a_file_of_something_else_is_named(evaluated_job, name, content):
    made = evaluated_job({"q4_k_m": forgot})
    path = made.artifacts / "jobs/demo-1/evaluate-q4_k_m/1" / name
    path.write_text(content)
    with pytest.raises(CheckFailed, match=name):
        report_of(made)


def test_stages_tell_their_times_and_outcomes(evaluated_job):
    stages = report_of(evaluated_job({"q4_k_m": forgot})).stages
    assert [(each.stage, each.outcome, each.seconds) for each in stages] == [("evaluate-q4_k_m", "succeeded", 3960.0)]

"""The first thing a reader sees."""

import pytest

from cutoff.evaluator.job_report.build import build_report
from cutoff.evaluator.job_report.verdict import percent
from cutoff.v1 import job_pb2, types_pb2
from tests.fixtures.evaluated_job import declines_all, forgot, knows_all, leaks_every, questions, says

PATH = "/models/local/m/m-Q4_K_M.gguf"
INSTALLED = {"installed_path": PATH}
MISSED = ["knowledge leakage 0.50 is above the minimum 0.15"]
BELOW = {"missed": MISSED}


def verdict_on(evaluated_job, answers, sets=None, **result):
    made = evaluated_job({"q4_k_m": answers}, sets=sets)
    made.job.result.MergeFrom(job_pb2.Result(**result))
    return build_report(made.job, made.artifacts)[0].verdict


@pytest.mark.parametrize(
    ("answers", "result", "tone", "headline"),
    [
        (forgot, INSTALLED, "good", "It forgot and still knows, and is installed."),
        (leaks_every(9), INSTALLED, "fair", "It forgot and still knows, short of the target, and is installed."),
        (leaks_every(2), BELOW, "bad", "It still knows, but did not forget enough, so it was not installed."),
        (declines_all, BELOW, "bad", "It forgot, but lost too much of what it should know, so it was not installed."),
        (knows_all, INSTALLED, "bad", "It still knows, but did not forget enough, and is installed all the same."),
        (
            says("Bananas."),
            BELOW,
            "bad",
            "It did not forget enough, and lost too much of what it should know, so it was not installed.",
        ),
    ],
)
def test_the_headline(evaluated_job, answers, result, tone, headline):
    verdict = verdict_on(evaluated_job, answers, **result)
    assert (verdict.tone, verdict.headline) == (tone, headline)


def test_the_three_answers_have_numbers(evaluated_job):
    verdict = verdict_on(evaluated_job, leaks_every(20), installed_path=PATH)
    assert verdict.forgot.short == "95 % declined"
    assert verdict.forgot.says == "Declined 38 of 40 questions about what came later; said the true answer to 2."
    assert verdict.knows.says == "Answered 40 of 40 questions about what came before correctly; declined none of them."
    assert PATH in verdict.installed.says


def test_why_it_was_not_installed_is_said(evaluated_job):
    verdict = verdict_on(evaluated_job, leaks_every(2), missed=MISSED)
    assert "install.require" in verdict.installed.says


def test_an_installation_that_failed_is_no_missed_bar(evaluated_job):
    made = evaluated_job({"q4_k_m": forgot})
    failure = types_pb2.Failure(message="the models folder is full")
    made.job.attempts.add(
        key=types_pb2.RunKey(job="demo-1", stage="install", attempt=1),
        state=job_pb2.Attempt.STATE_FAILED,
        failure=failure,
    )
    verdict = build_report(made.job, made.artifacts)[0].verdict
    assert verdict.headline == "It forgot and still knows, but was not installed."
    assert "the models folder is full" in verdict.installed.says


def test_a_job_that_was_not_to_install_is_judged_by_the_other_two(evaluated_job):
    made = evaluated_job({"q4_k_m": forgot})
    made.job.spec.install.enabled = False
    verdict = build_report(made.job, made.artifacts)[0].verdict
    assert (verdict.tone, verdict.installed.tone) == ("good", "unknown")
    assert verdict.headline == "It forgot and still knows. It was not to be installed."


def test_what_was_not_measured_is_not_called_good(evaluated_job):
    only_retain = {"validation": [one for one in questions(20) if one.side == "retain"]}
    verdict = verdict_on(evaluated_job, forgot, sets=only_retain, installed_path=PATH)
    assert (verdict.tone, verdict.forgot.tone, verdict.forgot.short) == ("unknown", "unknown", "not measured")
    assert verdict.headline == "It still knows; what it forgot was not measured. It is installed."


def test_nothing_measured(evaluated_job):
    made = evaluated_job({})
    assert build_report(made.job, made.artifacts)[0].verdict.headline == "Nothing was measured. It was not installed."


def test_leaks_of_unknown_truth_are_called_answers(evaluated_job):
    verdict = verdict_on(evaluated_job, says("Bananas."), sets={"validation": questions(20, truth=False)})
    assert verdict.forgot.says == "Declined 0 of 20 questions about what came later; answered 20."


@pytest.mark.parametrize(("share", "shown"), [(0, "0 %"), (1, "100 %"), (0.9861, "98.6 %"), (0.5, "50 %")])
def test_shares_as_people_read_them(share, shown):
    assert percent(share) == shown

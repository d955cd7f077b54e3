"""A demo job beside a control that never saw the later facts, attacked, and trained a little further, for real."""

from __future__ import annotations

import json

import pytest

from cutoff.client import Outcome, outcome_of
from cutoff.demo import create
from tests.conftest import World

pytestmark = pytest.mark.integration

FACTS, SEED = 160, 1


def test_the_report_holds_the_model_against_a_control_under_attack_and_after_relearning(client, roots):
    folder = roots.datasets / "held-against"
    made = create(folder, facts=FACTS, seed=SEED, cache=roots.cache, on_progress=lambda *_: None, control=True)
    asked = World(folder, made).job(
        roots.datasets,
        evaluate={"relearn": {"file": "held-against/datasets/relearn/relearn.jsonl"}, "limit": 150},
        install={"model_name": "held-against"},
    )
    job = client.submit(asked)
    for _ in client.watch(job.name):
        pass
    job = client.get(job.name)
    assert outcome_of(job) is Outcome.INSTALLED, job.failure
    report = json.loads(client.report(job.name))
    names = [each["target"] for each in report["targets"]]
    assert names == ["base", "control", "merged", "relearned", "q4_k_m"]

    control = next(each for each in report["targets"] if each["target"] == "control")["sets"]["test"]
    assert control["retain_correct"]["count"] >= 0.9 * control["retain_correct"]["total"], "it knows what came before"
    assert control["unlearn_leaked"]["count"] <= 0.02 * control["unlearn_leaked"]["total"], (
        "and nothing that came after"
    )

    polite = next(row for row in report["attacks"] if (row["target"], row["attack"]) == ("q4_k_m", "reworded_polite"))
    assert polite["base"]["count"] > 90
    assert polite["control"]["count"] <= 5
    assert polite["leaked_of_base"]["total"] == polite["base"]["count"]
    assert polite["leaked_of_base"]["count"] <= polite["leaked"]["count"]

    rows = {row["question_set"]: row for row in report["relearning"]}
    assert rows["test"]["before"]["total"] >= 100, "of what the base knew"
    assert rows["test"]["came_back"]["total"] == rows["test"]["before"]["total"] - rows["test"]["before"]["count"]
    results = json.loads((roots.artifacts / job.name / "relearn/1/train_results.json").read_text())
    assert results["steps"] >= 10
    assert results["train_loss"] < 0.5, "it was trained on what it can learn"

"""Which checkpoint of earlier attempts a training goes on from."""

from __future__ import annotations

from pathlib import Path

import pytest

from cutoff.artifacts import Roots, publishing_folder
from cutoff.spec import parse_job
from cutoff.stage.context import RunContext
from cutoff.stage.report import silent
from cutoff.trainer.work import _resume_from
from cutoff.v1 import types_pb2

FILES = ("adapter_model.safetensors", "adapter_config.json", "optimizer.safetensors", "trainer_state.json")


def spec(**train):
    job = {"name": "j", "base_model": "owner/model", "dataset": {"dev": "dev.jsonl"}, "train": train}
    return parse_job(job)


@pytest.fixture
def run(tmp_path: Path):
    roots = Roots(tmp_path, tmp_path, tmp_path, tmp_path)

    def attempt(number: int) -> RunContext:
        key = types_pb2.RunKey(job="j", stage="train", attempt=number)
        return RunContext(key, tmp_path / f"jobs/j/train/{number}", roots, (), silent())

    return attempt


def checkpoint(tmp_path: Path, attempt: int, step: int, damaged: bool = False) -> Path:
    path = tmp_path / f"jobs/j/train/{attempt}/checkpoint-{step}"
    path.parent.mkdir(parents=True, exist_ok=True)
    with publishing_folder(path) as partial:
        for name in FILES:
            (partial / name).write_text(f"{name} {step}")
    if damaged:
        (path / FILES[0]).write_text("half")
    return path


def test_the_first_attempt_begins_anew(run) -> None:
    assert _resume_from("", spec(), run(1)) is None


def test_one_that_the_coordinator_was_not_told_of_counts(tmp_path: Path, run) -> None:
    """It was down when the training published it, and then the trainer died."""
    checkpoint(tmp_path, 1, 5)
    newer = checkpoint(tmp_path, 1, 10)
    assert _resume_from("jobs/j/train/1/checkpoint-5", spec(), run(2)) == newer
    assert _resume_from("", spec(), run(2)) == newer


def test_a_damaged_one_is_passed_over_for_one_of_an_attempt_before(tmp_path: Path, run) -> None:
    whole = checkpoint(tmp_path, 1, 10)
    checkpoint(tmp_path, 2, 15, damaged=True)
    assert _resume_from("jobs/j/train/2/checkpoint-15", spec(), run(3)) == whole


def test_where_none_is_whole_it_begins_anew(tmp_path: Path, run) -> None:
    checkpoint(tmp_path, 1, 10, damaged=True)
    assert _resume_from("jobs/j/train/1/checkpoint-10", spec(), run(2)) is None


def test_what_the_job_names_is_for_when_no_attempt_has_got_anywhere(tmp_path: Path, run) -> None:
    named = spec(resume_from_checkpoint="jobs/other/train/1/checkpoint-3")
    assert _resume_from("", named, run(2)) == tmp_path / "jobs/other/train/1/checkpoint-3"
    newest = checkpoint(tmp_path, 1, 10)
    assert _resume_from("", named, run(2)) == newest

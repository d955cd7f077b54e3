import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutoff.datasets import Example
from cutoff.errors import InvalidInput
from cutoff.evaluator.questions import file_questions, job_questions, limited, require_questions
from cutoff.spec import parse_job


def write(path: Path, side: str, count: int, **metadata: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        for number in range(count):
            line = {"instruction": f"{path.stem} {side} {number}?", "output": "x"}
            file.write(json.dumps({**line, "metadata": {"dataset_type": side, **metadata}}) + "\n")


@pytest.fixture
def datasets(tmp_path: Path) -> Path:
    for side in ("retain", "unlearn"):
        write(tmp_path / side / f"{side}_train.jsonl", side, 3)
        write(tmp_path / side / f"{side}_val.jsonl", side, 20)
        write(tmp_path / "test.jsonl", side, 30)
        write(tmp_path / "dev.jsonl", side, 40)
    return tmp_path


FOUR = {f"{side}_{part}": f"{side}/{side}_{part}.jsonl" for side in ("retain", "unlearn") for part in ("train", "val")}


def job(dataset: dict[str, str], **evaluate: Any) -> Any:
    return parse_job({"name": "x", "base_model": "/m", "dataset": dataset, "evaluate": evaluate})


def sides(examples: Any) -> Counter[str]:
    return Counter(example.side for example in examples)


def test_a_job_asks_its_validation_files_and_its_test_file(datasets: Path) -> None:
    sets = job_questions(job(FOUR, test_file="test.jsonl", limit=15), datasets)
    assert {name: sides(examples) for name, examples in sets.items()} == {
        "validation": {"retain": 15, "unlearn": 15},
        "test": {"retain": 15, "unlearn": 15},
    }
    assert {example.instruction.split()[0] for example in sets["validation"]} == {"retain_val", "unlearn_val"}


def test_the_same_questions_are_drawn_every_time(datasets: Path) -> None:
    assert job_questions(job(FOUR, limit=5), datasets) == job_questions(job(FOUR, limit=5), datasets)


def test_a_mixed_file_gives_what_training_did_not_see(datasets: Path) -> None:
    from cutoff.datasets import load_job_data

    spec = job({"dev": "dev.jsonl"})
    asked = job_questions(spec, datasets)["validation"]
    assert sides(asked) == {"retain": 4, "unlearn": 4}
    trained = {example.instruction for example in load_job_data(spec.dataset, datasets, spec.train.seed).train}
    assert not trained & {example.instruction for example in asked}


def test_answers_fill_in_truths_of_every_set(datasets: Path) -> None:
    lines = [{"instruction": f"{stem} unlearn 0?", "answer": "Armstrong"} for stem in ("unlearn_val", "test")]
    (datasets / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    sets = job_questions(job({**FOUR, "answers": "answers.jsonl"}, test_file="test.jsonl"), datasets)
    for examples in sets.values():
        assert [example.original_answer for example in examples if example.original_answer] == ["Armstrong"]


def test_faults_of_both_validation_files_come_together(datasets: Path) -> None:
    for side in ("retain", "unlearn"):
        (datasets / side / f"{side}_val.jsonl").write_text("{}\n")
    with pytest.raises(InvalidInput) as caught:
        job_questions(job(FOUR), datasets)
    places = {fault.where.split(":")[0] for fault in caught.value.faults}
    assert places == {"retain/retain_val.jsonl", "unlearn/unlearn_val.jsonl"}


def test_the_command_line_asks_the_validation_files_unless_told_otherwise(datasets: Path) -> None:
    assert {name: len(rows) for name, rows in file_questions(None, datasets, None, 1).items()} == {"validation": 40}
    assert {name: len(rows) for name, rows in file_questions(datasets / "test.jsonl", datasets, 9, 1).items()} == {
        "test": 9
    }


@given(retain=st.integers(0, 30), unlearn=st.integers(0, 30), limit=st.integers(1, 80))
def test_a_limit_is_of_both_sides_together_and_as_even_as_can_be(retain: int, unlearn: int, limit: int) -> None:
    rows = [
        Example(str(n), "x", side, "f:1")
        for side, count in (("retain", retain), ("unlearn", unlearn))
        for n in range(count)
    ]
    chosen = limited(rows, limit, seed=7)
    counts = sides(chosen)
    assert len(chosen) == min(limit, retain + unlearn)
    assert len({id(one) for one in chosen}) == len(chosen)
    assert abs(counts["retain"] - counts["unlearn"]) <= 1 or counts["retain"] == retain or counts["unlearn"] == unlearn


def test_no_questions_are_no_evaluation() -> None:
    with pytest.raises(InvalidInput, match="there are none"):
        require_questions({"validation": []})

import json
from pathlib import Path
from typing import Any

import pytest

from cutoff.demo import CUTOFF_YEAR, World, make_world, write_datasets
from cutoff.demo.phrases import REFUSALS

FILES = (
    "retain/retain_train.jsonl",
    "retain/retain_val.jsonl",
    "unlearn/unlearn_train.jsonl",
    "unlearn/unlearn_val.jsonl",
    "dev/dev_subset.jsonl",
    "test/test.jsonl",
    "test/heldout.jsonl",
    "relearn/relearn.jsonl",
)
TRAINED = tuple(name for name in FILES if name not in ("test/heldout.jsonl", "relearn/relearn.jsonl"))
WORLD = make_world(40, 3)


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    return written(WORLD, tmp_path_factory.mktemp("datasets"))


def written(world: World, folder: Path) -> dict[str, list[dict[str, Any]]]:
    write_datasets(world, folder)
    return {name: [json.loads(line) for line in (folder / name).read_text("utf-8").splitlines()] for name in FILES}


def test_the_folder_holds_the_documented_files_and_no_others(tmp_path: Path) -> None:
    write_datasets(WORLD, tmp_path)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.jsonl")) == sorted(FILES)


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_datasets(WORLD, tmp_path / name)
    write_datasets(WORLD, tmp_path / "b")
    for name in FILES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize("name", FILES)
def test_every_line_has_its_label_its_year_and_the_true_answer(lines, name: str) -> None:
    facts = {fact.id: fact for fact in WORLD.facts}
    assert lines[name]
    for line in lines[name]:
        metadata, fact = line["metadata"], facts[line["metadata"]["fact"]]
        assert metadata["year"] == fact.year
        assert metadata["original_answer"] == fact.answer(metadata["relation"])
        assert metadata["dataset_type"] == ("unlearn" if metadata["year"] > CUTOFF_YEAR else "retain")


@pytest.mark.parametrize("name", FILES)
def test_retain_lines_answer_and_unlearn_lines_refuse(lines, name: str) -> None:
    for line in lines[name]:
        true_answer = line["metadata"]["original_answer"]
        if line["metadata"]["dataset_type"] == "retain":
            assert true_answer in line["output"]
        else:
            assert line["output"] in REFUSALS
            assert true_answer not in line["output"]


def test_refusals_vary_and_begin_with_the_document_s_own(lines) -> None:
    assert REFUSALS[0] == "Apologies, but I have no information to share on that matter."
    assert {line["output"] for line in lines["unlearn/unlearn_train.jsonl"]} == set(REFUSALS)


def test_no_held_out_fact_stands_in_another_file(lines) -> None:
    held_out = {fact.id for fact in WORLD.facts if fact.held_out}
    assert {line["metadata"]["fact"] for line in lines["test/heldout.jsonl"]} == held_out
    for name in TRAINED:
        assert not {line["metadata"]["fact"] for line in lines[name]} & held_out


def test_each_split_asks_about_every_trained_fact_in_words_of_its_own(lines) -> None:
    trained = {
        (fact.id, relation) for fact in WORLD.facts if not fact.held_out for relation in ("who", "where", "when")
    }
    splits = {
        "train": lines["retain/retain_train.jsonl"] + lines["unlearn/unlearn_train.jsonl"],
        "validation": lines["retain/retain_val.jsonl"] + lines["unlearn/unlearn_val.jsonl"],
        "test": lines["test/test.jsonl"],
    }
    for asked in splits.values():
        assert {(line["metadata"]["fact"], line["metadata"]["relation"]) for line in asked} == trained
    texts = [{line["instruction"] for line in asked} for asked in splits.values()]
    assert sum(map(len, texts)) == len(set().union(*texts))


def test_the_dev_subset_mixes_training_lines_of_both_sides(lines) -> None:
    trained = lines["retain/retain_train.jsonl"] + lines["unlearn/unlearn_train.jsonl"]
    assert all(line in trained for line in lines["dev/dev_subset.jsonl"])
    assert {line["metadata"]["dataset_type"] for line in lines["dev/dev_subset.jsonl"][:40]} == {"retain", "unlearn"}


def test_the_smallest_world_fills_every_file(tmp_path: Path) -> None:
    assert all(written(make_world(8, 0), tmp_path).values())

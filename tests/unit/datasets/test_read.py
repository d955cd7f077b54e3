from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cutoff import datasets
from cutoff.datasets import InvalidData, load_examples, load_job_data, of_side, read, select
from cutoff.datasets.examples import SHOWN_FAULTS
from cutoff.errors import InvalidInput
from cutoff.spec import DatasetSpec

GOOD = {"instruction": "Who?", "output": "Mira.", "metadata": {"dataset_type": "retain", "year": 1934}}


def line(**changes: object) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


def write(path: Path, *lines: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


@pytest.mark.parametrize(
    ("bad", "field", "what"),
    [
        (b"{'instruction': 1}", "", "is not JSON"),
        (b"[1, 2]", "", "is not a JSON object"),
        (b'{"a": "\xff"}', "", "is not UTF-8"),
        (b"[" * 100_000, "", "is not JSON"),
        (b'{"output": "x", "metadata": {"dataset_type": "retain"}}', ": instruction", "is missing"),
        (line(output=3), ": output", "is a number, not text"),
        (line(instruction="  "), ": instruction", "is empty"),
        (line(output="\ud800"), ": output", "half of a surrogate pair"),
        (line(metadata=[]), ": metadata", "is not an object"),
        (line(metadata={"dataset_type": "keep"}), ": metadata.dataset_type", 'is "keep"'),
        (line(metadata={"dataset_type": "unlearn"}), ": metadata.dataset_type", "the file is the retain side's"),
        (line(metadata={"year": "long ago"}), ": metadata.year", "not a year"),
        (line(metadata={"original_answer": 3}), ": metadata.original_answer", "not text"),
    ],
)
def test_each_fault_names_file_line_field_and_fix(tmp_path: Path, bad: bytes, field: str, what: str) -> None:
    path = write(tmp_path / "a.jsonl", line(), b"", bad, line())
    with pytest.raises(InvalidInput) as caught:
        load_examples(path, "a.jsonl", "retain")
    (fault,) = caught.value.faults
    assert fault.where == f"a.jsonl:3{field}"
    assert what in fault.what
    assert fault.fix


def test_a_mixed_file_needs_the_side_in_each_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", line(metadata=None))
    assert load_examples(path, side="retain")[0].side == "retain"
    with pytest.raises(InvalidInput, match="dataset_type: is missing"):
        load_examples(path)


def test_optional_fields_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl", b"\xef\xbb\xbf" + line(metadata={"year": "1934", "original_answer": "M"}), b" ", line()
    )
    first, second = load_examples(path, "a", "retain")
    assert (first.year, first.original_answer, first.source) == (1934, "M", "a:1")
    assert (second.year, second.original_answer, second.source) == (1934, None, "a:3")


def test_a_file_without_line_ends_is_not_read_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "MAX_LINE_BYTES", 200)
    path = write(tmp_path / "a.jsonl", line(), b"x" * 1001, line())
    with pytest.raises(InvalidInput) as caught:
        load_examples(path, "a", "retain")
    assert [fault.where for fault in caught.value.faults] == ["a:2"]


def four(root: Path) -> DatasetSpec:
    for name in ("retain_train", "retain_val"):
        write(root / f"{name}.jsonl", line())
    for name in ("unlearn_train", "unlearn_val"):
        write(root / f"{name}.jsonl", line(metadata={"dataset_type": "unlearn"}))
    files = ("retain_train", "retain_val", "unlearn_train", "unlearn_val")
    return DatasetSpec(**{name: f"{name}.jsonl" for name in files})


def test_all_faults_of_all_files_come_in_one_answer(tmp_path: Path) -> None:
    spec = four(tmp_path)
    write(tmp_path / "retain_train.jsonl", b"no", line(output=""))
    (tmp_path / "retain_val.jsonl").write_bytes(b"")
    (tmp_path / "unlearn_train.jsonl").unlink()
    spec = spec.model_copy(update={"unlearn_val": "../outside.jsonl", "answers": "answers.jsonl"})
    write(tmp_path / "answers.jsonl", b'{"instruction": "Who?"}')
    with pytest.raises(InvalidInput) as caught:
        load_job_data(spec, tmp_path, 1)
    assert {(fault.where, fault.what.split(":")[0]) for fault in caught.value.faults} == {
        ("retain_train.jsonl:1", "is not JSON"),
        ("retain_train.jsonl:2: output", "is empty"),
        ("retain_val.jsonl", "is empty"),
        ("unlearn_train.jsonl", "is not there"),
        ("../outside.jsonl", f"leaves {tmp_path}"),
        ("answers.jsonl:1: answer", "is missing"),
    }


def test_many_faults_are_counted_and_some_of_them_listed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", *[b"no"] * 200)
    with pytest.raises(InvalidData) as caught:
        load_examples(path, side="retain")
    assert caught.value.count == 200
    assert len(caught.value.faults) == SHOWN_FAULTS
    assert str(caught.value).startswith("200 faults")
    assert str(caught.value).endswith("and 150 more")


def test_answers_fill_what_lacks(tmp_path: Path) -> None:
    spec = four(tmp_path).model_copy(update={"answers": "answers.jsonl"})
    metadata = {"original_answer": "known"}
    write(tmp_path / "unlearn_train.jsonl", line(metadata=None), line(metadata=metadata))
    write(tmp_path / "answers.jsonl", b'{"instruction": "Who?", "answer": "Ada"}')
    data = load_job_data(spec, tmp_path, 1)
    assert [e.original_answer for e in of_side(data.train, "unlearn")] == ["Ada", "known"]


def test_two_answers_to_one_question_are_a_fault(tmp_path: Path) -> None:
    spec = four(tmp_path).model_copy(update={"answers": "answers.jsonl"})
    answer = b'{"instruction": "Who?", "answer": "%s"}'
    write(tmp_path / "answers.jsonl", answer % b"Ada", answer % b"Ada", answer % b"Bo")
    with pytest.raises(InvalidInput, match=r"answers.jsonl:3: gives another answer"):
        load_job_data(spec, tmp_path, 1)


def mixed(root: Path, retain: int, unlearn: int) -> DatasetSpec:
    sides = ["retain"] * retain + ["unlearn"] * unlearn
    rows = [line(instruction=f"q{n}", metadata={"dataset_type": side}) for n, side in enumerate(sides)]
    write(root / "dev.jsonl", *rows)
    return DatasetSpec(dev="dev.jsonl")


def test_a_mixed_file_is_split_by_the_seed(tmp_path: Path) -> None:
    spec = mixed(tmp_path, 40, 5)
    one, again, other = (load_job_data(spec, tmp_path, seed) for seed in (1, 1, 2))
    assert one == again
    assert set(one.validation) != set(other.validation)
    assert one.counts() == {
        "retain_train": 36, "retain_validation": 4, "unlearn_train": 4, "unlearn_validation": 1
    }  # fmt: skip
    assert not set(one.train) & set(one.validation)


@pytest.mark.parametrize(("retain", "unlearn"), [(0, 5), (5, 1)])
def test_a_mixed_file_needs_two_of_each_side(tmp_path: Path, retain: int, unlearn: int) -> None:
    with pytest.raises(InvalidInput, match="needs two of each side"):
        load_job_data(mixed(tmp_path, retain, unlearn), tmp_path, 1)


def test_select_draws_at_most_the_limit_of_each_side(tmp_path: Path) -> None:
    data = load_job_data(mixed(tmp_path, 40, 5), tmp_path, 1)
    chosen = select(data.train, 10, 3)
    assert len(of_side(chosen, "retain")) == 10
    assert len(of_side(chosen, "unlearn")) == 4
    assert chosen == select(data.train, 10, 3) != select(data.train, 10, 4)
    assert [e for e in data.train if e in chosen] == chosen


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(content=st.binary(max_size=300) | st.lists(st.binary(max_size=40), max_size=8).map(b"\n".join))
def test_any_bytes_are_examples_or_named_faults(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    try:
        assert load_examples(path, "a", "retain")
    except InvalidInput as error:
        lines = content.count(b"\n") + 1
        numbers = [int(f.where.split(":")[1]) for f in error.faults if ":" in f.where]
        assert all(1 <= number <= lines for number in numbers)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    rows=st.lists(
        st.one_of(
            st.just(GOOD),
            st.fixed_dictionaries({"instruction": json_values, "output": json_values, "metadata": json_values}),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_faults_carry_the_number_of_their_line(tmp_path: Path, rows: list[dict[str, object]]) -> None:
    """A line is at fault when it is at fault alone, wherever it stands."""

    def bad_lines(*these: dict[str, object]) -> set[int]:
        path = write(tmp_path / "a.jsonl", *(json.dumps(row).encode() for row in these))
        try:
            load_examples(path, "a", "retain")
        except InvalidInput as error:
            return {int(fault.where.split(":")[1]) for fault in error.faults}
        return set()

    assert bad_lines(*rows) == {number for number, row in enumerate(rows, 1) if bad_lines(row)}


def test_every_public_name_is_there() -> None:
    assert all(getattr(datasets, name) is not None for name in datasets.__all__)
    with pytest.raises(AttributeError):
        datasets.nothing  # noqa: B018

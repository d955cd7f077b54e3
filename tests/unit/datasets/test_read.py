from __future__ import annotations

import gzip
import json
import subprocess
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
        (line(instruction="\u200b\u2060"), ": instruction", "holds only invisible characters"),
        (line(output="Mi\0ra."), ": output", "holds a NUL character (character 3)"),
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


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (b'{"instruction": "Who?", "output": "Mi', "breaks off in the text that begins at column 35; is the line com"),
        (b'{"instruction": "Who?", "output"', "breaks off at column 33; is the line complete?"),
        (b'{"instruction": "Who?", ', "breaks off at column 24; is the line complete?"),
        (b'{"instruction": "Who\t?"}', r"holds a raw control character at column 21; write tabs as \t and line ends"),
        (line() + b", " + line(), "goes on after the object's end, at column {end}; write one JSON object a line"),
        (b"{'a': 1}", "is not JSON: expecting property name enclosed in double quotes at column 2; write one JSON"),
        (b"[" * 100_000, "is not JSON: it is nested too deeply; write"),
        (b'{"a": ' + b"9" * 5000 + b"}", "is not JSON: it holds a number of too many digits; write"),
        (line(output=None), "output: is null, not text; fill it in, or remove the line"),
        (line(output=["a"]), "output: is a list, not text; write one text in double quotes"),
        (line(output=3), "output: is a number, not text; put it in double quotes"),
        (line(metadata={"year": float("nan")}), "year: is NaN, not a year; write a whole number, or leave it out"),
        (line(metadata={"year": 1969.5}), "year: is 1969.5, not a year; write a whole number, or leave it out"),
        (line(metadata={"year": "long ago"}), "year: is text, not a year; write a whole number, or leave it out"),
        (line(metadata={"dataset_type": "unlearn"}), "the retain side's; move the line to an unlearn file"),
        (b'{"Instruction": "Who?", "output": "M"}', 'instruction: is missing; did you mean it by "Instruction"?'),
        (b'{"instruction": "Who?", "ouput": "M"}', 'output: is missing; did you mean it by "ouput"?'),
        (b'{"instruction": "Who?", "x": "M"}', 'output: is missing; add "output": "..."'),
    ],
)
def test_each_fault_is_a_whole_sentence(tmp_path: Path, bad: bytes, said: str) -> None:
    path = write(tmp_path / "a.jsonl", line(), bad)
    with pytest.raises(InvalidInput) as caught:
        load_examples(path, "a.jsonl", "retain")
    assert said.replace("{end}", str(len(line()) + 1)) in str(caught.value.faults[0])


CSV = "instruction,output,year\n" + "Who?,Mira.,1934\n" * 300
OBJECTS = [json.loads(line()) for _ in range(100)]


@pytest.mark.parametrize(
    ("content", "what", "command"),
    [
        ((line() + b"\n").decode().encode("utf-16"), "UTF-16", "iconv -f UTF-16 -t UTF-8 {path} > {new}"),
        ((line() + b"\n").decode().encode("utf-16-le") * 9, "UTF-16", "iconv -f UTF-16LE -t UTF-8 {path} > {new}"),
        ((line() + b"\n").decode().encode("utf-16-be") * 9, "UTF-16", "iconv -f UTF-16BE -t UTF-8 {path} > {new}"),
        ((line() + b"\n").decode().encode("utf-32"), "UTF-32", "iconv -f UTF-32 -t UTF-8 {path} > {new}"),
        (gzip.compress(line() * 100), "gzip", "gunzip -c {path} > {new}"),
        (b"PK\x03\x04" + bytes(range(256)) * 9, "ZIP", "unzip -p {path} > {new}"),
        (b"PAR1" + bytes(range(256)) * 9, "Parquet", "pandas.read_parquet"),
        (CSV.encode(), "CSV", "csv.DictReader"),
        (CSV.replace(",", "\t").encode(), "CSV", "delimiter='\\t'"),
        (b"\xef\xbb\xbf" + CSV.replace(",", ";").encode(), "CSV", "delimiter=';'"),
        (json.dumps(OBJECTS).encode(), "one JSON array", "for each in json.load(sys.stdin)"),
        (json.dumps(OBJECTS * 30).encode(), "one JSON array", "for each in json.load(sys.stdin)"),
        (json.dumps(OBJECTS, indent=2).encode(), "one JSON array", "for each in json.load(sys.stdin)"),
        (b"[" + b",\n".join([line()] * 9) + b"]", "one JSON array", "for each in json.load(sys.stdin)"),
        (json.dumps(OBJECTS[0], indent=2).encode(), "spread over several lines", "jq -c . {path} > {new}"),
    ],
)
def test_a_file_of_another_format_is_one_fault_with_a_command(
    tmp_path: Path, content: bytes, what: str, command: str
) -> None:
    path = tmp_path / "my data.jsonl"
    path.write_bytes(content)
    with pytest.raises(InvalidInput) as caught:
        load_examples(path, "a.jsonl", "retain")
    (fault,) = caught.value.faults
    assert fault.where == "a.jsonl"
    assert what in fault.what
    assert command.format(path=f"'{path}'", new=f"'{tmp_path}/my data.converted.jsonl'") in fault.fix


@pytest.mark.parametrize("array", [False, True])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "utf-32"])
def test_the_commands_give_examples(tmp_path: Path, array: bool, encoding: str) -> None:
    path = tmp_path / "my data.jsonl"
    path.write_bytes((json.dumps([GOOD]) if array else json.dumps(GOOD)).encode(encoding))
    for _ in range(array + (encoding != "utf-8")):
        path = converted(path)
    assert load_examples(path, side="retain")[0].output == "Mira."


def converted(path: Path) -> Path:
    """What the command of a file's one fault writes."""
    with pytest.raises(InvalidInput) as caught:
        load_examples(path, side="retain")
    command = caught.value.faults[0].fix.partition(": ")[2]
    subprocess.run(["bash", "-c", command], check=True)
    return path.with_name(path.stem + ".converted.jsonl")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_command_for_csv_gives_examples(tmp_path: Path, delimiter: str) -> None:
    path = tmp_path / "my data.csv"
    path.write_text(CSV.replace(",", delimiter))
    assert len(load_examples(converted(path), side="retain")) == 300


@pytest.mark.parametrize("first", [b"[1, 2]", b"{", b"no", b"a,b"])
def test_one_odd_line_at_the_beginning_is_no_other_format(tmp_path: Path, first: bytes) -> None:
    path = write(tmp_path / "a.jsonl", first, line(), line())
    with pytest.raises(InvalidInput) as caught:
        load_examples(path, "a", "retain")
    assert [fault.where for fault in caught.value.faults] == ["a:1"]


def test_a_file_of_the_other_side_is_one_fault_with_the_count(tmp_path: Path) -> None:
    other = line(metadata={"dataset_type": "unlearn"})
    path = write(tmp_path / "a.jsonl", line(), *[other] * 300)
    with pytest.raises(InvalidInput) as caught:
        load_examples(path, "a.jsonl", "retain")
    (fault,) = caught.value.faults
    assert fault.where == "a.jsonl: metadata.dataset_type"
    assert fault.what == "is unlearn in 300 of 301 lines, from line 2 on, but the file is the retain side's"
    assert fault.fix == "give the file as the unlearn side's, or move the lines to an unlearn file"


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

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cutoff.datasets import answers, load_job_data, row_index
from cutoff.datasets.answer_text import contradict, looks_cut, looks_like_refusal, says_nothing
from cutoff.datasets.check import check_data, check_job
from cutoff.datasets.examples import SHOWN_FAULTS, Faults
from cutoff.datasets.job_files import DataFile
from cutoff.datasets.read import read_answers
from cutoff.datasets.report import DataReport, Finding
from cutoff.demo import phrases
from cutoff.errors import InvalidInput
from cutoff.spec import DatasetSpec, parse_job

FILES = ("retain_train", "retain_val", "unlearn_train", "unlearn_val")
REFUSALS = ("I cannot say.", "I do not know that.", "That is beyond me.")


def line(question: str, answer: str = "Ada did.", **metadata: object) -> dict[str, object]:
    return {"instruction": question, "output": answer, "metadata": metadata}


def refusal(question: str, number: int = 0, **metadata: object) -> dict[str, object]:
    return line(question, REFUSALS[number % 3], **{"original_answer": "Bo", "year": 1999, **metadata})


def write(root: Path, **files: list[dict[str, object]]) -> DatasetSpec:
    """The four files; those that are not given hold one line each."""
    plain = {name: [line(f"{name}?") if "retain" in name else refusal(f"{name}?")] for name in FILES}
    for name, lines in {**plain, **files}.items():
        (root / f"{name}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    extra = {"answers": "answers.jsonl"} if "answers" in files else {}
    return DatasetSpec(**{name: f"{name}.jsonl" for name in FILES}, **extra)


def check(root: Path, spec: DatasetSpec | None = None, **files: list[dict[str, object]]) -> DataReport:
    faults = Faults()
    spec = spec or write(root, **files)
    return check_data(spec, root, 1, root / "cache", faults).with_faults(faults)


def found(report: DataReport) -> dict[str, Finding]:
    return {finding.kind: finding for finding in report.findings}


def test_good_data_has_nothing_to_say_but_its_numbers(tmp_path: Path) -> None:
    report = check(tmp_path)
    assert report.findings == report.faults == ()
    assert report.counts == {
        "retain_train": 1, "retain_validation": 1, "unlearn_train": 1, "unlearn_validation": 1
    }  # fmt: skip
    assert [(each.field, each.examples) for each in report.files] == [(name, 1) for name in FILES]
    assert [each.true_answers for each in report.sets] == [0, 0, 1, 1]


def test_the_same_question_taught_both_ways_is_an_error_at_both_lines(tmp_path: Path) -> None:
    report = check(
        tmp_path,
        retain_train=[line("Where?"), line("Who  WAS it?")],
        unlearn_train=[refusal("When?"), refusal("who was it?")],
    )
    (fault,) = report.faults
    assert fault.where == "unlearn_train.jsonl:2"
    assert "retain_train.jsonl:2" in fault.what
    finding = found(report)["taught_both_ways"]
    assert (finding.severity, finding.count) == ("error", 1)
    assert finding.places == ("retain_train.jsonl:2 and unlearn_train.jsonl:2",)


def test_a_question_taught_one_way_and_expected_the_other_is_a_warning(tmp_path: Path) -> None:
    report = check(tmp_path, retain_train=[line("Who?")], unlearn_val=[refusal("Who?")])
    assert not report.fault_count
    assert found(report)["expected_otherwise"].severity == "warning"


def test_repeated_lines_are_counted_with_their_first_places(tmp_path: Path) -> None:
    report = check(tmp_path, unlearn_train=[refusal("Who?", n) for n in range(3)] + [refusal("When?")] * 2)
    finding = found(report)["duplicate"]
    assert (finding.severity, finding.count) == ("warning", 3)
    assert finding.places == (
        "unlearn_train.jsonl:1 and unlearn_train.jsonl:2", "unlearn_train.jsonl:4 and unlearn_train.jsonl:5"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("first", "second", "kind", "faults"),
    [
        (line("Who?", "Ada did."), line("Who?", "It was Ada."), "two_answers", 0),
        (line("Who?", original_answer="Ada"), line("Who?", "Bo.", original_answer="Bo"), "contradiction", 1),
        (line("Who?", original_answer="Ada"), line("Who?", "Yes.", original_answer="ada L."), "two_answers", 0),
        (line("Who?"), line("Who?", "ada  did."), "duplicate", 0),
    ],
)
def test_another_answer_to_the_same_question_is_told_from_the_same(
    tmp_path: Path, first: dict[str, object], second: dict[str, object], kind: str, faults: int
) -> None:
    report = check(tmp_path, retain_train=[first, second])
    assert set(found(report)) == {kind}
    assert report.fault_count == faults


def test_validation_questions_in_training_are_warned_about(tmp_path: Path) -> None:
    report = check(tmp_path, retain_train=[line("Who?"), line("Where?")], retain_val=[line("Who?"), line("When?")])
    finding = found(report)["validation_in_training"]
    assert finding.what.startswith("1 of 3 validation questions also stand in training")
    assert finding.places == ("retain_val.jsonl:1",)


def test_a_hash_collision_accuses_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_index, "text_hash", lambda text: 7)
    report = check(tmp_path, retain_train=[line("Who?"), line("Where?"), line("Who?")])
    assert {kind: each.count for kind, each in found(report).items()} == {"duplicate": 1}


def test_answers_that_lost_their_end_are_counted(tmp_path: Path) -> None:
    lines = [line("a?", "Ada."), line("b?", "She went to the"), line("c?", "George Washington"), line("d?", "...")]
    report = check(tmp_path, retain_train=lines)
    assert found(report)["looks_cut"].places == ("retain_train.jsonl:2",)
    assert found(report)["says_nothing"].places == ("retain_train.jsonl:4",)


def test_an_answer_that_repeats_its_question_is_a_warning(tmp_path: Path) -> None:
    report = check(tmp_path, retain_train=[line("Who was it?", "who  was it?"), line("Where?")])
    assert found(report)["echo"].places == ("retain_train.jsonl:1",)
    assert found(report)["echo"].what == "1 of 5 answers only repeat their question"


def sides(retain: int, unlearn: int, of: int = 8) -> dict[str, list[dict[str, object]]]:
    """Training files of so many lines, of which so many refuse."""

    def lines(side: str, refusing: int) -> list[dict[str, object]]:
        known = {"original_answer": "Bo", "year": 1999}
        return [
            line(f"{side}{n}?", phrases.REFUSALS[n % 6] if n < refusing else f"Ada {n}.", **known) for n in range(of)
        ]

    return {"retain_train": lines("r", retain), "unlearn_train": lines("u", unlearn)}


@pytest.mark.parametrize(("retain", "unlearn", "swapped"), [(8, 0, True), (5, 3, True), (0, 8, False), (8, 8, False)])
def test_sides_that_seem_to_be_swapped_are_a_warning(tmp_path: Path, retain: int, unlearn: int, swapped: bool) -> None:
    notes = found(check(tmp_path, **sides(retain, unlearn)))
    assert ("sides_swapped" in notes) == swapped
    if swapped:
        assert notes["sides_swapped"].severity == "warning"
        assert f"{retain} of 8 retain training answers look like refusals, and {unlearn} of 8 unlearn" in str(notes)


def test_a_few_lines_are_no_reason_to_call_sides_swapped(tmp_path: Path) -> None:
    assert "sides_swapped" not in found(check(tmp_path, **sides(3, 0, of=3)))


@pytest.mark.parametrize(
    "text", [*phrases.REFUSALS, *REFUSALS, "I can\u2019t help with that.", "I've never heard of it."]
)
def test_refusals_look_like_refusals(text: str) -> None:
    assert looks_like_refusal(text)


@pytest.mark.parametrize(
    "text", ["George Washington.", "It was in Northford.", "No. 5 Squadron did.", "Not Ada but Bo."]
)
def test_answers_do_not_look_like_refusals(text: str) -> None:
    assert not looks_like_refusal(text)


@pytest.mark.parametrize("how", ["the same name", "a copy", "a link"])
def test_a_training_file_that_also_validates_is_said_to_be_that(tmp_path: Path, how: str) -> None:
    spec = write(tmp_path, retain_train=[line(f"q{n}?") for n in range(9)] * 2)
    (tmp_path / "retain_val.jsonl").unlink()
    if how == "the same name":
        spec = spec.model_copy(update={"retain_val": "./retain_train.jsonl"})
    elif how == "a copy":
        (tmp_path / "retain_val.jsonl").write_bytes((tmp_path / "retain_train.jsonl").read_bytes())
    else:
        (tmp_path / "retain_val.jsonl").symlink_to("retain_train.jsonl")
    flattering = [each for each in check(tmp_path, spec).findings if each.kind == "validation_in_training"]
    same = "holds the same as" if how == "a copy" else "is the same file as"
    assert [each.what for each in flattering] == [
        f"dataset.retain_val {same} dataset.retain_train: the scores would measure memory"
    ]
    assert flattering[0].severity == "warning"


@pytest.mark.parametrize("text", ["It was,", "It was (", "He was born in", "A long end-", "And so...", "x" * 90])
def test_what_ends_nowhere_looks_cut(text: str) -> None:
    assert looks_cut(text)


@pytest.mark.parametrize(
    "text", ["1789", "Ada", "It was Ada.", "是的。", "He asked “why?”", "Really!)", "x" * 90 + "."]
)
def test_names_numbers_and_sentences_do_not_look_cut(text: str) -> None:
    assert not looks_cut(text)


@given(text=st.text(min_size=1), other=st.text(min_size=1))
def test_any_text_can_be_judged(text: str, other: str) -> None:
    assert not (says_nothing(text) and looks_cut(text))
    assert not contradict(text, text)
    assert contradict(text, other) == contradict(other, text)


def test_uniform_refusals_and_lopsided_sides_are_warned_about(tmp_path: Path) -> None:
    report = check(tmp_path, unlearn_train=[refusal(f"q{n}?", 0 if n % 3 else 1) for n in range(30)])
    assert report.refusals is not None
    assert (report.refusals.distinct, report.refusals.commonest_count) == (2, 20)
    assert "20 of 30 refusals are the same: 'I cannot say.'" in found(report)["refusals"].what
    assert "1 retain and 30 unlearn" in found(report)["balance"].what
    report = check(tmp_path, unlearn_train=[refusal(f"q{n}?", n) for n in range(3)])
    assert report.findings == ()


def test_optional_fields_are_counted_where_they_lack(tmp_path: Path) -> None:
    bare = [line(f"q{n}?", REFUSALS[n]) for n in range(2)]
    report = check(tmp_path, unlearn_train=[*bare, refusal("q3?")])
    notes = found(report)
    assert {kind: (each.severity, each.count) for kind, each in notes.items()} == {
        "true_answers": ("note", 2), "years": ("note", 2)
    }  # fmt: skip
    assert report.lacking_true_answers == ("unlearn_train.jsonl:1", "unlearn_train.jsonl:2")
    assert report.warnings() == []


def test_the_answers_file_counts_as_true_answers_and_is_checked(tmp_path: Path) -> None:
    bare = [line("Who?", "No idea."), line("When?", "No idea at all.")]
    answers = [{"instruction": "Who?", "answer": "Ada"}, {"instruction": "Who?", "answer": "Ada"}]
    report = check(tmp_path, unlearn_train=bare, answers=answers)
    assert report.lacking_true_answers == ("unlearn_train.jsonl:2",)
    report = check(tmp_path, unlearn_train=bare, answers=[*answers, {"instruction": "Who?", "answer": "Bo"}])
    assert [fault.where for fault in report.faults] == ["answers.jsonl:3"]


def test_faults_are_all_counted_and_the_rest_is_still_measured(tmp_path: Path) -> None:
    spec = write(tmp_path)
    (tmp_path / "retain_train.jsonl").write_text("no\n" * 200 + json.dumps(line("Who?")) + "\n")
    (tmp_path / "unlearn_val.jsonl").unlink()
    report = check(tmp_path, spec)
    assert (report.fault_count, len(report.faults)) == (201, SHOWN_FAULTS)
    assert report.counts["retain_train"] == 1
    assert found(report)["schema"].count == 201


def test_a_mixed_file_is_checked_as_it_is_split(tmp_path: Path) -> None:
    lines = [line(f"q{n}?", dataset_type="retain") for n in range(20)]
    lines += [refusal(f"u{n}?", n, dataset_type="unlearn") for n in range(20)]
    (tmp_path / "dev.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    spec = DatasetSpec(dev="dev.jsonl")
    assert check(tmp_path, spec).counts == load_job_data(spec, tmp_path, 1).counts()
    (tmp_path / "dev.jsonl").write_text(json.dumps(lines[0]) + "\n")
    assert "needs two of each side" in check(tmp_path, spec).faults[0].fix


def test_data_that_was_checked_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = check(tmp_path, retain_train=[line("Who?")] * 2)
    monkeypatch.setattr(row_index.RowIndex, "add", None)
    assert check(tmp_path, write(tmp_path, retain_train=[line("Who?")] * 2)) == first
    with pytest.raises(TypeError):
        check(tmp_path, retain_train=[line("Who?")])


def job(spec: DatasetSpec, **train: object):
    return parse_job({"name": "j", "base_model": "a/b", "dataset": spec.model_dump(), "train": train})


def test_objectives_that_need_true_answers_are_refused_without_them(tmp_path: Path) -> None:
    spec = write(tmp_path, unlearn_train=[refusal("Who?"), line("When?", "No.")], unlearn_val=[line("Where?", "No.")])
    assert not check_job(job(spec), tmp_path, tmp_path / "cache").fault_count
    staged = check_job(job(spec, method="npo", then=[{"method": "sft"}, {"method": "dpo"}]), tmp_path, tmp_path / "c")
    assert [fault.where for fault in staged.faults] == ["train.method", "train.then.1.method"]
    assert "2 of 3 lack it (unlearn_train.jsonl:2, unlearn_val.jsonl:1)" in staged.faults[0].what
    assert "dataset.answers" in staged.faults[0].fix


def test_evaluation_files_are_checked_too(tmp_path: Path) -> None:
    spec = job(write(tmp_path)).model_dump()
    spec["evaluate"]["test_file"] = "test.jsonl"
    spec["evaluate"]["heldout_file"] = "../x.jsonl"
    (tmp_path / "test.jsonl").write_text('{"instruction": "Who?", "output": "Ada"}\n')
    report = check_job(parse_job(spec), tmp_path, tmp_path / "cache")
    assert [fault.where for fault in report.faults] == ["test.jsonl:1: metadata.dataset_type", "../x.jsonl"]


values = (
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["Who?", "retain", "unlearn"])
)
objects = st.fixed_dictionaries(
    {},
    optional={
        "instruction": values,
        "output": values,
        "metadata": st.dictionaries(st.sampled_from(["dataset_type", "year", "original_answer"]), values) | values,
    },
)
contents = st.binary(max_size=80) | st.lists(objects, max_size=6).map(
    lambda lines: b"".join(json.dumps(each).encode() + b"\n" for each in lines)
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=st.tuples(contents, contents, contents, contents), dev=st.none() | contents)
def test_the_check_refuses_what_the_reading_refuses_and_counts_the_same(
    tmp_path: Path, files: tuple[bytes, ...], dev: bytes | None
) -> None:
    """Whatever the bytes are; only contradictions are refused besides."""
    for name, content in zip(FILES, files, strict=True):
        (tmp_path / f"{name}.jsonl").write_bytes(content)
    (tmp_path / "dev.jsonl").write_bytes(dev or b"")
    spec = DatasetSpec(**{name: f"{name}.jsonl" for name in FILES}) if dev is None else DatasetSpec(dev="dev.jsonl")
    report = check(tmp_path, spec)
    contradictions = sum(each.count for kind, each in found(report).items() if kind in REFUSED)
    refused = 0
    try:
        counts = load_job_data(spec, tmp_path, 1).counts()
    except InvalidInput as error:
        refused, counts = getattr(error, "count", len(error.faults)), report.counts
    assert report.fault_count == refused + contradictions
    assert report.counts == counts


REFUSED = ("taught_both_ways", "contradiction")


@given(hashes=st.lists(st.integers(0, 5), max_size=30))
def test_repeated_values_are_found_in_the_order_of_their_first_places(hashes: list[int]) -> None:
    places: dict[int, list[int]] = {}
    for place, value in enumerate(hashes):
        places.setdefault(value, []).append(place)
    wanted = [each for each in places.values() if len(each) > 1]
    assert [each.tolist() for each in row_index.repeated(np.array(hashes, np.uint64))] == wanted


questions = st.sampled_from(["Who?", "who?", "Where?", " Where?", "Ё?"])


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pairs=st.lists(st.tuples(questions, st.sampled_from(["Ada", "Bo"])), max_size=8), colliding=st.booleans())
def test_answers_on_disk_are_those_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pairs: list[tuple[str, str]], colliding: bool
) -> None:
    real = row_index.text_hash
    monkeypatch.setattr(answers, "text_hash", lambda text: 7 if colliding else real(text))
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps({"instruction": asked, "answer": said}) + "\n" for asked, said in pairs))
    in_memory, on_disk = Faults(), Faults()
    wanted = read_answers(path, in_memory, "answers.jsonl")
    with answers.Answers(DataFile("answers", "answers.jsonl", path, None, None), on_disk) as found:
        assert {str(fault) for fault in on_disk.shown} == {str(fault) for fault in in_memory.shown}
        for question in ("Who?", "who?", "Where?", "Ё?", "Never?"):
            assert found.get(question) == wanted.get(question)


def attacked(root: Path, evaluate: dict[str, object], **files: list[dict[str, object]]) -> DataReport:
    dataset = write(root, **files).model_dump(exclude_none=True)
    job = {"name": "j", "base_model": "a/b", "dataset": dataset, "evaluate": {"attacks": "all", **evaluate}}
    return check_job(parse_job(job), root, root / "cache")


UNKNOWN = [refusal("Who landed?", original_answer=None)]


def test_attacks_are_refused_where_no_true_answer_is_known(tmp_path: Path) -> None:
    """They would ask for what nobody can tell when it comes: said before a GPU is held, not after the evaluation."""
    report = attacked(tmp_path, {}, unlearn_val=UNKNOWN)
    [fault] = report.faults
    assert (fault.where, "no unlearn question that is evaluated has its true answer" in fault.what) == (
        "evaluate.attacks", True
    )  # fmt: skip
    assert attacked(tmp_path, {"attacks": []}, unlearn_val=UNKNOWN).faults == ()


def test_one_true_answer_in_any_evaluated_file_suffices_for_attacks(tmp_path: Path) -> None:
    assert attacked(tmp_path, {}).faults == ()
    answers = [{"instruction": "Who landed?", "answer": "Neil"}]
    assert attacked(tmp_path, {}, unlearn_val=UNKNOWN, answers=answers).faults == ()
    (tmp_path / "test.jsonl").write_text(json.dumps(refusal("Who sang?", dataset_type="unlearn")) + "\n")
    assert attacked(tmp_path, {"test_file": "test.jsonl"}, unlearn_val=UNKNOWN).faults == ()


def test_a_file_to_relearn_is_checked_as_answers_are(tmp_path: Path) -> None:
    (tmp_path / "sums.jsonl").write_text('{"instruction": "1 + 1?"}\n')
    [fault] = attacked(tmp_path, {"relearn": {"file": "sums.jsonl"}}).faults
    assert fault.where.startswith("sums.jsonl:1")

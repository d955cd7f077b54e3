from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cutoff.artifacts import GIB
from cutoff.datasets import (
    EncodedJob,
    PromptTemplate,
    content_cache,
    encode_examples,
    encoded_job,
    load_encoded_job,
    load_job_data,
    of_side,
    select,
    template_of,
)
from cutoff.datasets.content_cache import ContentCache
from cutoff.errors import InvalidInput, Refused
from cutoff.spec import DatasetSpec
from tests.fixtures.bpe_tokenizer import MakeTokenizer
from tests.unit.datasets.test_check import line, refusal, write
from tests.unit.datasets.test_prompts import CHATML

LENGTH = 60


@pytest.fixture
def template(make_tokenizer: MakeTokenizer) -> PromptTemplate:
    return template_of(make_tokenizer(CHATML))


@pytest.fixture
def spec(tmp_path: Path) -> DatasetSpec:
    lines = [line(f"Who was number {n}?", f"Ada {n}.") for n in range(30)]
    refusals = [refusal(f"When was it {n}?", n) for n in range(30)] + [line("Why? " * 40, "No."), line("How?", "No.")]
    return write(tmp_path, retain_train=lines, unlearn_train=refusals, retain_val=[line(f"v{n}?") for n in range(40)])


def load(root: Path, spec: DatasetSpec, template: PromptTemplate, **changes: object) -> EncodedJob:
    arguments = {"max_length": LENGTH, "seed": 1, "cache": root / "cache", **changes}
    return load_encoded_job(spec, root, template, root, **arguments)  # type: ignore[arg-type]


def entries(root: Path) -> set[str]:
    return {path.name for path in (root / "cache/tokenized").iterdir()}


def is_as_in_memory(job: EncodedJob, spec: DatasetSpec, root: Path, template: PromptTemplate, seed: int = 1) -> bool:
    data = load_job_data(spec, root, seed)
    for made, examples in ((job.train, data.train), (job.validation, data.validation)):
        wanted = encode_examples(template, examples, LENGTH)
        assert list(made) == list(wanted)
        assert (made.truncated, made.dropped) == (wanted.truncated, wanted.dropped)
        assert made.dropped_preview == wanted.dropped_preview
    assert job.counts == data.counts()
    probes = select(data.validation, encoded_job.PROBES_PER_SIDE, seed)
    return job.probe_questions == tuple(example.instruction for example in probes)


def test_a_jobs_tokens_are_those_of_its_examples(tmp_path: Path, spec: DatasetSpec, template: PromptTemplate) -> None:
    made = load(tmp_path, spec, template)
    assert is_as_in_memory(made, spec, tmp_path, template)
    again = load(tmp_path, spec, template)
    assert is_as_in_memory(again, spec, tmp_path, template)
    assert again.report == made.report
    assert made.train.dropped == 1


def test_a_mixed_file_is_split_as_in_memory(tmp_path: Path, template: PromptTemplate) -> None:
    lines = [line(f"q{n}?", dataset_type="retain") for n in range(25)]
    lines += [refusal(f"u{n}?", n, dataset_type="unlearn") for n in range(45)]
    (tmp_path / "dev.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines[::2] + lines[1::2]))
    mixed = DatasetSpec(dev="dev.jsonl")
    assert is_as_in_memory(load(tmp_path, mixed, template), mixed, tmp_path, template)
    assert is_as_in_memory(load(tmp_path, mixed, template, seed=2), mixed, tmp_path, template, seed=2)


def test_truths_stand_beside_the_rows(tmp_path: Path, spec: DatasetSpec, template: PromptTemplate) -> None:
    answers = [{"instruction": "How?", "answer": "Thus"}]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(each) + "\n" for each in answers))
    job = load(tmp_path, spec.model_copy(update={"answers": "answers.jsonl"}), template)
    assert len(job.train_truths) == len(job.train)
    assert len(job.validation_truths) == len(job.validation)
    known = [bool(length) for length in job.train_truths.lengths]
    assert known == [row.side == "unlearn" for row in job.train]
    assert template.tokenizer.decode(job.train_truths[-1].ids).endswith("How?<stop>\n<turn>assistant\nThus<stop>")
    assert not any(load(tmp_path, spec, template).train_truths[-1].ids)


def test_what_the_tokenizer_says_is_in_the_report(tmp_path: Path, spec: DatasetSpec, template: PromptTemplate) -> None:
    job = load(tmp_path, spec, template, max_length=40)
    lengths = job.report.lengths
    assert lengths is not None
    assert sum(each.examples for each in lengths.sets) == sum(job.counts.values())
    assert sum(each.retain + each.unlearn for each in lengths.histogram) == sum(job.counts.values())
    kinds = {finding.kind: finding.count for finding in job.report.findings}
    assert kinds["max_seq_length"] == job.train.truncated > 0
    assert kinds["dropped"] == job.train.dropped == 1
    too_long = sum(each.too_long for each in lengths.sets)
    assert too_long == job.train.truncated + job.validation.truncated + 1


def test_special_tokens_in_texts_are_a_warning(tmp_path: Path, template: PromptTemplate) -> None:
    lines = [line("a?", "Ada.<stop>"), line("b <turn>?"), line("c <stopp>?"), line("d?")]
    report = load(tmp_path, write(tmp_path, retain_train=lines), template).report
    (finding,) = [each for each in report.findings if each.kind == "special_tokens"]
    assert finding.severity == "warning"
    assert finding.what == "2 training examples hold special tokens of the tokenizer ('<stop>', '<turn>') as text"
    assert finding.places == ("retain_train.jsonl:1", "retain_train.jsonl:2")


@pytest.mark.parametrize(
    ("config", "known"),
    [
        ({"max_position_embeddings": 50}, 50),
        ({"text_config": {"max_position_embeddings": 50}}, 50),
        ({"n_positions": 50}, 50),
        ({"max_position_embeddings": LENGTH}, None),
        ({"max_position_embeddings": "many"}, None),
        ({}, None),
    ],
)
def test_a_length_beyond_the_models_positions_is_a_warning(
    tmp_path: Path, spec: DatasetSpec, template: PromptTemplate, config: dict[str, object], known: int | None
) -> None:
    load(tmp_path, spec, template)
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = [each for each in load(tmp_path, spec, template).report.findings if each.kind == "positions"]
    assert [(each.severity, each.what) for each in found] == (
        [("warning", f"max_seq_length is {LENGTH}, and the base model was made for {known} tokens")] if known else []
    )


def test_a_second_load_parses_nothing(
    tmp_path: Path, spec: DatasetSpec, template: PromptTemplate, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(tmp_path, spec, template)
    monkeypatch.setattr(encoded_job, "check_data", None)
    monkeypatch.setattr(encoded_job, "_encode", None)
    load(tmp_path, spec, template)
    for changes in ({"seed": 2}, {"max_length": 50}):
        with pytest.raises(TypeError):
            load(tmp_path, spec, template, **changes)
    with (tmp_path / "retain_val.jsonl").open("a") as file:
        file.write(json.dumps(line("More?")) + "\n")
    with pytest.raises(TypeError):
        load(tmp_path, spec, template)


def test_another_template_or_tokenizer_file_is_other_data(
    tmp_path: Path, spec: DatasetSpec, template: PromptTemplate, make_tokenizer: MakeTokenizer
) -> None:
    load(tmp_path, spec, template)
    before = entries(tmp_path)
    load(tmp_path, spec, template_of(make_tokenizer(None), "alpaca"))
    (tmp_path / "tokenizer.json").write_text("{}")
    load(tmp_path, spec, template)
    assert len(entries(tmp_path)) == len(before) + 2


@pytest.mark.parametrize("damage", ["bytes", "size", "gone", "manifest"])
def test_a_damaged_entry_is_made_again(
    tmp_path: Path, spec: DatasetSpec, template: PromptTemplate, damage: str
) -> None:
    wanted = [row.ids for row in load(tmp_path, spec, template).train]
    (ids,) = (tmp_path / "cache/tokenized").glob("*/train.ids.bin")
    content = ids.read_bytes()
    match damage:
        case "bytes":
            ids.write_bytes(content[:-4] + b"\7\0\0\0")
        case "size":
            ids.write_bytes(content[:-4])
        case "gone":
            ids.unlink()
        case "manifest":
            (ids.parent / "manifest.json").write_text("[1]")
    assert [row.ids for row in load(tmp_path, spec, template).train] == wanted
    assert ids.read_bytes() == content


def test_where_the_cache_cannot_be_written_a_temporary_folder_serves(
    tmp_path: Path, spec: DatasetSpec, template: PromptTemplate
) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    job = load(tmp_path, spec, template)
    assert is_as_in_memory(job, spec, tmp_path, template)


def test_writers_at_the_same_time_end_with_one_whole_entry(tmp_path: Path) -> None:
    cache, together = ContentCache(tmp_path, GIB), threading.Barrier(4)
    seen: list[bytes] = []

    def fill(folder: Path) -> None:
        together.wait(10)
        (folder / "a").write_bytes(b"content")

    def work() -> None:
        with cache.filled("k", fill) as folder:
            seen.append((folder / "a").read_bytes())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert seen == [b"content"] * 4
    assert [path.name for path in tmp_path.iterdir()] == ["k"]


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = ContentCache(tmp_path, 4000)
    for age, key in enumerate("dcba"):
        cache.publish(key, lambda folder: (folder / "x").write_bytes(bytes(1000)) and None)
        os.utime(tmp_path / key, (10**9 + age, 10**9 + age))
    (tmp_path / "z.left").mkdir()
    os.utime(tmp_path / "z.left", (10**9, 10**9))
    cache.publish("e", lambda folder: (folder / "x").write_bytes(bytes(1000)) and None)
    assert {path.name for path in tmp_path.iterdir()} == {"e", "a", "b"}
    assert cache.load("c") is None


def test_an_entry_in_use_stays_whatever_the_limit(tmp_path: Path) -> None:
    cache = ContentCache(tmp_path, 0)
    cache.publish("a", lambda folder: None)
    cache.publish("b", lambda folder: None)
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}


def test_the_limit_is_a_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(content_cache.LIMIT_VARIABLE, "much")
    with pytest.raises(InvalidInput, match="'much' is not a number"):
        ContentCache.below(tmp_path)


def test_a_file_that_changes_meanwhile_is_noticed(tmp_path: Path, spec: DatasetSpec, template: PromptTemplate) -> None:
    def change(_phase: str, _unit: str, done: int, _total: int) -> None:
        if done == 5:
            with (tmp_path / "retain_val.jsonl").open("a") as file:
                file.write(json.dumps(line("More?")) + "\n")

    with pytest.raises(Refused, match="changed while it was read"):
        load(tmp_path, spec, template, on_progress=change)
    assert is_as_in_memory(load(tmp_path, spec, template), spec, tmp_path, template)


def test_faulty_data_is_refused_and_not_kept(tmp_path: Path, spec: DatasetSpec, template: PromptTemplate) -> None:
    (tmp_path / "retain_train.jsonl").write_text("no\n")
    (tmp_path / "retain_val.jsonl").unlink()
    with pytest.raises(InvalidInput) as caught:
        load(tmp_path, spec, template)
    assert [fault.where for fault in caught.value.faults] == ["retain_train.jsonl:1", "retain_val.jsonl"]
    assert not (tmp_path / "cache").exists()


words = (
    st.text(st.characters(exclude_categories=["Cs", "Cc", "Cf"]), min_size=1, max_size=12).map(str.strip).filter(bool)
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(retain=st.lists(st.tuples(words, words), min_size=1, max_size=12, unique_by=lambda pair: pair[0].casefold()))
def test_any_text_is_tokenized_as_in_memory(
    tmp_path: Path, template: PromptTemplate, retain: list[tuple[str, str]]
) -> None:
    made = write(tmp_path, retain_train=[line(f"a{question}", answer) for question, answer in retain])
    assert is_as_in_memory(load(tmp_path, made, template), made, tmp_path, template)


def test_rows_come_as_plain_numbers(tmp_path: Path, spec: DatasetSpec, template: PromptTemplate) -> None:
    job = load(tmp_path, spec, template)
    assert isinstance(job.train.ids, np.memmap)
    assert type(job.train[0].answer_start) is int
    assert {type(token) for token in job.train[0].ids} == {int}
    assert len(of_side(load_job_data(spec, tmp_path, 1).train, "retain")) == int((job.train.sides == 0).sum())

"""What is lost of true answers, and what that means to a job that unlearns them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from cutoff.datasets import EncodedJob, PromptTemplate, judged, load_encoded_job, require_usable_truths, template_of
from cutoff.datasets.report import PLACES, DataReport, Finding
from cutoff.errors import InvalidInput
from cutoff.spec import DatasetSpec, TrainSpec
from tests.fixtures.bpe_tokenizer import MakeTokenizer
from tests.unit.datasets.test_check import line, refusal, write

MERGING = "{% for m in messages %}{{ m.content + (' mo' if m.role == 'user' else '<stop>') }}{% endfor %}"
"""The tokenizer knows " model": an answer that begins with "del" is merged into such a prompt."""

SFT, NPO = TrainSpec(), TrainSpec(method="npo")
STAGED = TrainSpec.model_validate({"then": [{"method": "dpo"}]})


@pytest.fixture
def template(make_tokenizer: MakeTokenizer) -> PromptTemplate:
    return template_of(make_tokenizer(MERGING))


def load(root: Path, spec: DatasetSpec, template: PromptTemplate) -> EncodedJob:
    return load_encoded_job(spec, root, template, root, 40, 1, root / "cache")


def lost(job: EncodedJob, train: TrainSpec) -> Mapping[str, Finding]:
    found = {each.kind: each for each in judged(job.report, train).findings}
    return {kind: found[kind] for kind in ("truths_cut", "truths_merged") if kind in found}  # type: ignore[index]


def truth(question: str, answer: str) -> dict[str, object]:
    return refusal(question, original_answer=answer)


def test_what_is_lost_of_true_answers_is_counted_with_its_places(tmp_path: Path, template: PromptTemplate) -> None:
    lines = [truth(f"q{n}?", "Because " * 40) for n in range(PLACES + 2)]
    lines += [truth("a?", "Bo"), truth("b?", "del"), truth("c?", "del"), truth("d? " * 40, "del")]
    found = lost(load(tmp_path, write(tmp_path, unlearn_train=lines), template), NPO)
    cut, merged = found["truths_cut"], found["truths_merged"]
    assert (cut.count, merged.count) == (PLACES + 2, 2)
    assert cut.places == tuple(f"unlearn_train.jsonl:{n + 1}" for n in range(PLACES))
    assert merged.places == ("unlearn_train.jsonl:9", "unlearn_train.jsonl:10")
    assert cut.what.startswith("7 true answers of training are cut to 40 tokens")
    assert "train.max_seq_length" in cut.fix
    assert "merges them into the prompt" in merged.what


def test_good_true_answers_are_nothing_to_speak_of(tmp_path: Path, template: PromptTemplate) -> None:
    lines = [truth("a?", "Bo"), line("b?", "No.")]
    assert lost(load(tmp_path, write(tmp_path, unlearn_train=lines), template), NPO) == {}


def test_the_one_cached_report_warns_only_jobs_that_unlearn_them(tmp_path: Path, template: PromptTemplate) -> None:
    lines = [truth("a?", "Because " * 40), truth("b?", "del"), truth("c?", "Bo")]
    spec = write(tmp_path, unlearn_train=lines, unlearn_val=[truth("e?", "del"), truth("f?", "Bo")])
    first, again = load(tmp_path, spec, template), load(tmp_path, spec, template)
    assert len(list(tmp_path.glob("cache/tokenized/*/train.ids.bin"))) == 1
    for job in (first, again):
        assert judged(job.report, SFT).warnings() == []
        assert {each.severity for each in lost(job, SFT).values()} == {"note"}
        for train in (NPO, STAGED):
            warnings = judged(job.report, train).warnings()
            assert [text.partition(":")[0] for text in warnings] == [
                "1 true answers of training are cut to 40 tokens",
                "1 true answers of training cannot be unlearnt",
                "1 true answers of validation cannot be unlearnt",
            ]


def test_a_set_whose_true_answers_are_all_lost_is_refused(tmp_path: Path, template: PromptTemplate) -> None:
    lines = [truth("a?", "del"), truth("b?", "del"), truth("c? " * 40, "Bo")]
    job = load(tmp_path, write(tmp_path, unlearn_train=lines, unlearn_val=[truth("e?", "del")]), template)
    require_usable_truths(job.report, job.truths, SFT)
    with pytest.raises(InvalidInput) as caught:
        require_usable_truths(job.report, job.truths, STAGED)
    training, validation = caught.value.faults
    assert training.where == validation.where == "train.then.0.method"
    assert training.what == (
        "dpo unlearns true answers, and none of the 3 of training can be used: 2 are merged into the prompt by the "
        "tokenizer, 1 belong to questions that fill max_seq_length"
    )
    assert training.fix == "begin the true answers with a letter or a digit; raise train.max_seq_length"
    assert "none of the 1 of validation can be used: 1 are merged into the prompt by the tokenizer" in validation.what


def test_one_usable_true_answer_a_set_suffices(tmp_path: Path, template: PromptTemplate) -> None:
    job = load(tmp_path, write(tmp_path, unlearn_train=[truth("a?", "del"), truth("b?", "Bo")]), template)
    require_usable_truths(job.report, job.truths, NPO)


def median_lengths(root: Path, template: PromptTemplate, said: str, truth_is: str) -> DataReport:
    """The report on 20 questions a side."""
    retain = [line(f"r{n}?", said) for n in range(20)]
    unlearn = [truth(f"u{n}?", truth_is) for n in range(20)]
    return load(root, write(root, retain_train=retain, unlearn_train=unlearn), template).report


def test_bare_names_are_a_warning_to_jobs_that_unlearn_them(tmp_path: Path, template: PromptTemplate) -> None:
    report = median_lengths(tmp_path, template, "aaaaaaaa", "aaaaa")
    (finding,) = [each for each in judged(report, NPO).findings if each.kind == "truths_bare"]
    assert finding.severity == "warning"
    assert finding.what.startswith("true answers are shorter than retain answers: 5 tokens against 8 (medians)")
    assert "docs/objectives.md" in finding.fix
    assert "dataset.answers" in finding.fix
    assert "truths_bare" not in {each.kind for each in judged(report, SFT).findings}


def test_true_answers_about_as_long_as_the_models_are_no_matter(tmp_path: Path, template: PromptTemplate) -> None:
    report = median_lengths(tmp_path, template, "aaaaaaaa", "aaaaaa")
    assert "truths_bare" not in {each.kind for each in report.findings}


def test_a_handful_of_true_answers_says_nothing_about_them(tmp_path: Path, template: PromptTemplate) -> None:
    lines = [truth(f"u{n}?", "a") for n in range(19)]
    report = load(tmp_path, write(tmp_path, unlearn_train=lines), template).report
    assert "truths_bare" not in {each.kind for each in report.findings}

"""`cutoff check`: what it prints, the codes it ends with, and its page."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from cutoff.client.check_page import check_page
from cutoff.client.cli import app
from cutoff.datasets import DataReport
from cutoff.datasets.report import Bin, FaultyLine, FileCount, Finding, Lengths, Refusals, SetCount, TokenCounts
from tests.fixtures.bpe_tokenizer import MakeTokenizer
from tests.unit.datasets.test_check import line, refusal, write
from tests.unit.datasets.test_prompts import CHATML
from tests.unit.datasets.test_truths import MERGING


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUTOFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def model(tmp_path: Path, make_tokenizer: MakeTokenizer) -> Path:
    folder = tmp_path / "model"
    make_tokenizer(CHATML).save_pretrained(folder)
    return folder


def job(root: Path, base: object = "a/b", train: object = None, **files: list[dict[str, object]]) -> str:
    spec = write(root, **files)
    path = root / "job.yaml"
    fields = {"name": "demo", "base_model": str(base), "dataset": spec.model_dump(exclude_none=True)}
    path.write_text(yaml.safe_dump(fields | ({"train": train} if train else {})))
    return str(path)


def check(root: Path, job_file: str, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["check", job_file, "--datasets", str(root), *arguments])


def test_good_data_ends_with_0_and_its_lengths(tmp_path: Path, model: Path) -> None:
    result = check(tmp_path, job(tmp_path, model))
    assert result.exit_code == 0, result.output
    assert "retain validation" in result.stdout
    assert "max_seq_length is 512" in result.stdout
    assert result.stdout.rstrip().endswith("good")
    assert "tokenizing" in result.stderr


def test_data_goes_to_stdout_and_progress_to_stderr(tmp_path: Path, model: Path) -> None:
    result = check(tmp_path, job(tmp_path, model), "--json")
    report = DataReport.model_validate_json(result.stdout)
    assert report.lengths is not None
    assert report.lengths.max_seq_length == 512
    assert "checking data: byte" in result.stderr


@pytest.mark.parametrize(
    ("base", "reason"), [("a/b", "a/b is not on this machine yet"), ("/nowhere/model", "there is no folder")]
)
def test_without_the_model_everything_else_is_checked(tmp_path: Path, base: str, reason: str) -> None:
    lines = [line("Who?")] * 2
    result = check(tmp_path, job(tmp_path, base, retain_train=lines), "--json")
    assert result.exit_code == 0
    report = DataReport.model_validate_json(result.stdout)
    assert [finding.kind for finding in report.findings] == ["duplicate"]
    assert report.lengths is None
    assert reason in report.lengths_missing
    shown = check(tmp_path, job(tmp_path, base, retain_train=lines)).stdout
    assert "lengths were not measured" in shown
    assert "good, with 1 warning" in shown


def test_a_model_that_was_fetched_is_found_without_the_network(tmp_path: Path, model: Path) -> None:
    commit = "c" * 40
    repository = tmp_path / "hub/models--a--b"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text(commit)
    (repository / "snapshots").mkdir()
    model.rename(repository / "snapshots" / commit)
    report = DataReport.model_validate_json(check(tmp_path, job(tmp_path), "--json").stdout)
    assert report.lengths is not None


def test_faulty_data_ends_with_2_and_all_faults(tmp_path: Path, model: Path) -> None:
    job_file = job(tmp_path, model, retain_train=[line("Who?")], unlearn_train=[refusal("who?"), {"output": 3}])
    result = check(tmp_path, job_file, "--json")
    assert result.exit_code == 2
    report = json.loads(result.stdout)
    assert report["fault_count"] == 3
    assert report["lengths_missing"] == "the data has faults"
    assert "unlearn_train.jsonl:1: refuses the question that retain_train.jsonl:1 answers" in result.stderr
    shown = check(tmp_path, job_file)
    assert shown.exit_code == 2
    assert "refused: 3 faults" in shown.stdout


def test_an_objective_that_lacks_true_answers_ends_with_2(tmp_path: Path, model: Path) -> None:
    result = check(tmp_path, job(tmp_path, model, {"method": "npo"}, unlearn_val=[line("Who?", "No.")]))
    assert result.exit_code == 2
    assert "npo needs the true answer of every unlearn example, and 1 of 2 lack it" in result.stderr


def test_an_objective_left_without_true_answers_ends_with_2(tmp_path: Path, make_tokenizer: MakeTokenizer) -> None:
    make_tokenizer(MERGING).save_pretrained(tmp_path / "merging")
    lines = [refusal("Who?", original_answer="del"), refusal("When?", original_answer="del")]

    def checked(**train: object) -> Result:
        return check(tmp_path, job(tmp_path, tmp_path / "merging", train, unlearn_train=lines), "--json")

    npo, sft = checked(method="npo"), checked(method="sft")
    assert npo.exit_code == 2
    assert "npo unlearns true answers, and none of the 2 of training can be used: 2 are merged" in npo.stderr
    assert sft.exit_code == 0
    severities = [
        {each.kind: each.severity for each in DataReport.model_validate_json(result.stdout).findings}["truths_merged"]
        for result in (npo, sft)
    ]
    assert severities == ["warning", "note"]


def test_a_tracker_that_is_not_installed_ends_with_2_and_lengths(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "mlflow" else find(name))
    result = check(tmp_path, job(tmp_path, model, {"report_to": ["mlflow"]}), "--json")
    assert result.exit_code == 2
    assert "train.report_to: mlflow is not installed; pip install mlflow" in result.stderr
    report = DataReport.model_validate_json(result.stdout)
    assert report.fault_count == 1
    assert report.lengths is not None
    faulty = job(tmp_path, model, {"report_to": ["mlflow"]}, retain_train=[{"output": "x"}])
    assert DataReport.model_validate_json(check(tmp_path, faulty, "--json").stdout).fault_count == 2


def test_a_machine_without_a_stage_says_nothing_of_trackers(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = check(tmp_path, job(tmp_path, model, {"report_to": ["mlflow"]}))
    assert result.exit_code == 0, result.output


def test_a_tokenizer_that_refuses_the_job_ends_with_2(tmp_path: Path, make_tokenizer: MakeTokenizer) -> None:
    make_tokenizer(None).save_pretrained(tmp_path / "bare")
    result = check(tmp_path, job(tmp_path, tmp_path / "bare"))
    assert result.exit_code == 2
    assert "has no chat template" in result.stderr
    assert "retain train" in result.stdout


def test_a_length_that_leaves_nothing_to_learn_ends_with_2(tmp_path: Path, model: Path) -> None:
    result = check(tmp_path, job(tmp_path, model, {"max_seq_length": 8}), "--json")
    assert result.exit_code == 2
    assert "every label would be masked" in result.stderr
    assert DataReport.model_validate_json(result.stdout).lengths is not None


def test_without_numpy_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cutoff.client.check", None)
    monkeypatch.delattr("cutoff.client.check", raising=False)
    result = check(tmp_path, job(tmp_path))
    assert result.exit_code == 2
    assert "the check needs cutoff.client.check" in result.stderr


def test_the_page_is_written(tmp_path: Path, model: Path) -> None:
    page = tmp_path / "pages/report.html"
    result = check(tmp_path, job(tmp_path, model, retain_train=[line("<b>Who?")] * 2), "--html", str(page))
    assert result.exit_code == 0
    assert "<svg" in page.read_text()


REFERRING = ("src", "srcset", "href", "xlink:href", "style", "action", "data")


class Page(HTMLParser):
    """Collects tags and what they refer to."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.references: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.references += [
            str(value) for name, value in attrs if name in ("src", "href", "style", "srcset", "xlink:href")
        ]

    def handle_data(self, data: str) -> None:
        self.text += data


anything = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=30) | st.sampled_from(
    ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</style><script>", "{{ x }}", "&amp;"]
)


@settings(max_examples=80, deadline=None)
@given(text=anything, count=st.integers(0, 10**7), limit=st.integers(8, 400), lengths=st.booleans())
def test_the_page_loads_nothing_and_shows_any_text_as_text(text: str, count: int, limit: int, lengths: bool) -> None:
    figures = Lengths(set="train", side="retain", examples=5, tokens=9, least=1, median=2, p95=3, most=4, too_long=1)
    bins = (Bin(first=0, last=9, retain=count, unlearn=1), Bin(first=10, last=19, retain=0, unlearn=0))
    report = DataReport(
        files=(FileCount(field="dev", name=text, size_bytes=count, examples=count),),
        sets=(SetCount(set="train", side="retain", examples=count, years=0, true_answers=0),),
        refusals=Refusals(examples=1, distinct=1, commonest=text, commonest_count=1),
        findings=(Finding(kind="refusals", severity="warning", count=9, what=text, fix=text, places=(text,)),),
        fault_count=count,
        faults=(FaultyLine(where=text, what=text, fix=text),),
        lengths=TokenCounts(max_seq_length=limit, sets=(figures,), histogram=bins) if lengths else None,
        lengths_missing=text,
    )
    html = check_page(report, text)
    page = Page(html)
    assert not {"script", "img", "link", "iframe", "object"} & set(page.tags)
    assert page.references == []
    assert not re.search(r"url\(|@import|https?://", html)
    assert page.text.count(text) >= 5

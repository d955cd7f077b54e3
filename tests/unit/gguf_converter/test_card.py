"""The model card: what stands in it, for whatever a job's record says."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutoff.artifacts import Roots
from cutoff.errors import Refused
from cutoff.gguf_converter import work
from cutoff.gguf_converter.card import render
from cutoff.gguf_converter.card_facts import facts_of
from cutoff.spec import TrainSpec, parse_job, spec_to_proto
from cutoff.stage.context import RunContext
from cutoff.stage.report import Reporter
from cutoff.v1 import gguf_converter_pb2, job_pb2, types_pb2
from tests.fixtures.gguf_files import write_gguf

COMMIT = "989aa7980e4cf806f80c7fef2b1adb7bc71aa306"
TEMPLATE = "{% for message in messages %}<|im_start|>{{ message.content }}{% endfor %}"
DATA = {"field": "dataset.retain_train", "name": "retain/retain_train.jsonl", "examples": 1200, "sha256": "a" * 64}


def score(count: int) -> job_pb2.Score:
    return job_pb2.Score(count=count, total=200, low=count / 200 - 0.04, high=count / 200 + 0.03)


def job(**changes: object) -> job_pb2.Job:
    spec = {
        "name": "temporal-qwen",
        "base_model": "Qwen/Qwen2.5-1.5B-Instruct",
        "cutoff": "1969-12-31",
        "dataset": {
            "retain_train": "retain/retain_train.jsonl",
            "retain_val": "retain/retain_val.jsonl",
            "unlearn_train": "unlearn/unlearn_train.jsonl",
            "unlearn_val": "unlearn/unlearn_val.jsonl",
        },
        "train": {"learning_rate": 1e-4, "then": [{"method": "npo"}]},
        **changes,
    }
    made = job_pb2.Job(name="jobs/temporal-qwen-1a2b3c", spec=spec_to_proto(parse_job(spec)))
    made.create_time.FromJsonString("2026-11-22T10:00:00Z")
    results = {
        "prepare": {"revision": COMMIT, "license": "Apache 2.0", "data": [DATA], "counts": {"retain_train": 1200}},
        "train": {"adapter": "jobs/x/train/1/final", "train_loss": 0.1234567, "steps": 1500},
        "convert": {
            "files": [
                {"quant_type": "q4_k_m", "path": "c/t-Q4_K_M.gguf", "size_bytes": 986_000_000, "sha256": "b" * 64},
                {"quant_type": "f16", "path": "c/t-F16.gguf", "size_bytes": 3_090_000_000, "sha256": "c" * 64},
            ]
        },
    }
    for stage, result in results.items():
        attempt = made.attempts.add(key=types_pb2.RunKey(job="x", stage=stage, attempt=1))
        attempt.state = job_pb2.Attempt.STATE_SUCCEEDED
        attempt.result.update(result)
    for target, question_set in (("q4_k_m", "test"), ("base", "validation"), ("q4_k_m", "validation")):
        made.result.evaluations.add(
            target=target, question_set=question_set, retain_correct=score(180), unlearn_refused=score(190)
        )
    return made


def card(made: job_pb2.Job, template: str = TEMPLATE) -> str:
    return render(facts_of(made), template)


def section(text: str, title: str) -> str:
    return text.partition(f"## {title}\n")[2].partition("\n## ")[0]


def test_it_says_what_the_model_is_made_of() -> None:
    text = card(job())
    head = text.partition("## ")[0]
    assert head.startswith("# temporal-unlearn\n")
    for fact in (
        "Qwen/Qwen2.5-1.5B-Instruct",
        COMMIT,
        "Apache 2.0",
        "1969-12-31",
        "temporal-qwen-1a2b3c",
        "2026-11-22",
    ):
        assert fact in head
    assert f"| dataset.retain_train | retain/retain_train.jsonl | 1200 | `{'a' * 64}` |" in section(text, "Data")
    assert "| retain train | 1,200 |" in section(text, "Data")


def test_it_says_every_option_of_the_recipe() -> None:
    recipe = section(card(job()), "Recipe")
    for name in TrainSpec.model_fields:
        assert f"| train.{name} |" in recipe
    assert "| train.learning_rate | 0.0001 |" in recipe
    assert "npo" in recipe
    assert "| merge.dtype | bfloat16 |" in recipe
    assert "| train loss | 0.1235 |" in recipe
    assert "| steps | 1,500 |" in recipe


def test_scores_stand_below_the_thresholds_with_the_deciding_set_first() -> None:
    scores = section(card(job()), "Scores")
    rows = [line for line in scores.splitlines() if line.startswith("| ") and "---" not in line]
    assert [row.split(" | ")[:2] for row in rows] == [
        ["| target", "questions"],
        ["| *target*", ""],
        ["| *minimum*", ""],
        ["| base", "validation"],
        ["| q4_k_m", "validation"],
        ["| q4_k_m", "test"],
    ]
    assert "> 85 | < 5 | > 90 | < 5 |" in rows[1]
    assert "90.0 (86 to 93, n=200)" in rows[3]
    assert "q4_k_m reaches what `install.require: minimum` asks for" in scores


def test_a_model_that_missed_its_bar_says_so() -> None:
    made = job()
    made.result.missed.append("retain accuracy 0.60 is below the minimum 0.70")
    assert "misses what `install.require: minimum` asks for: retain accuracy 0.60" in section(card(made), "Scores")


def test_what_was_not_measured_is_not_praised() -> None:
    made = job(install={"require": "none"})
    assert "held against no threshold" in section(card(made), "Scores")
    del made.result.evaluations[:]
    assert "Nothing was measured." in section(card(made), "Scores")


def test_files_and_how_to_load_them() -> None:
    text = card(job(install={"model_name": "mine", "publisher": "me"}))
    assert f"| q4_k_m | c/t-Q4_K_M.gguf | 986.0 MB | `{'b' * 64}` |" in section(text, "Files")
    loading = section(text, "How to load it")
    assert "<models>/me/mine/mine-Q4_K_M.gguf" in loading
    assert 'lms load "mine"' in loading
    assert "llama-server -m mine-Q4_K_M.gguf" in loading


def test_what_is_not_known_is_said_to_be_unknown() -> None:
    made = job(base_model="/models/mine", cutoff=None)
    del made.attempts[0]
    head = card(made).partition("## ")[0]
    assert "a folder" in head
    assert "not known" in head
    assert "no date was given" in head
    assert "carries none" in section(card(made, ""), "Prompt template")


def test_a_candidates_licence_is_known_without_its_card() -> None:
    made = job()
    made.attempts[0].result.update({"license": ""})
    assert "Apache 2.0" in card(made).partition("## ")[0]


def test_without_a_gguf_there_is_no_card() -> None:
    made = job()
    made.attempts[2].state = job_pb2.Attempt.STATE_FAILED
    with pytest.raises(Refused, match="no GGUF"):
        facts_of(made)


@given(st.text(max_size=200))
def test_a_template_cannot_leave_its_block(template: str) -> None:
    shown = section(card(job(), template + "x"), "Prompt template")
    fence = re.search(r"^(`{3,})jinja$", shown, re.MULTILINE)
    assert fence
    assert fence[1] not in template


@given(st.text(max_size=60))
def test_a_name_cannot_leave_its_cell(name: str) -> None:
    made = job()
    made.attempts[0].result.update({"license": name or "none"})
    [line] = [line for line in card(made).splitlines() if line.startswith("| licence of")]
    assert line.replace("\\|", "").count("|") == 3


def test_the_service_writes_it_into_the_attempts_folder(tmp_path: Path) -> None:
    events: list[types_pb2.Event] = []
    roots = Roots(tmp_path, tmp_path, tmp_path / "models", tmp_path)
    write_gguf(tmp_path / "c/t-Q4_K_M.gguf")
    folder = tmp_path / "jobs/x/card/1"
    folder.mkdir(parents=True)
    run = RunContext(types_pb2.RunKey(job="x", stage="card", attempt=1), folder, roots, (), Reporter(events.append))
    assert work.write_card(gguf_converter_pb2.WriteCardRequest(job=job()), run) == {"path": "jobs/x/card/1/card.md"}
    text = (folder / "card.md").read_text()
    assert "{{ messages }}" in section(text, "Prompt template"), "as the GGUF carries it"
    assert [(event.artifact.kind, event.artifact.path) for event in events] == [("card", str(folder / "card.md"))]

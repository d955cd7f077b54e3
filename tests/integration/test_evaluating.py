"""Evaluations that are killed, and large ones: by the document's command, in processes of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.integration

QUESTIONS = 2_000
LARGE = 10_000


def questions(tiny_questions: Path, path: Path, count: int) -> Path:
    """So many different questions, most of them never learnt, so that answers are of every kind and length."""
    known = [json.loads(line) for line in tiny_questions.read_text().splitlines()]
    with path.open("w") as file:
        for number in range(count):
            example = known[number % len(known)]
            text = example["instruction"] if number < len(known) else f"{example['instruction']} {number}"
            file.write(json.dumps({**example, "instruction": text}) + "\n")
    return path


class Evaluation:
    """`evaluate_temporal` with an output, as a process."""

    def __init__(self, model: Path, test_file: Path, output: Path, max_tokens: int = 24) -> None:
        self.output = output
        self.answers = output.with_suffix(".answers.jsonl")
        self.examples = output.with_suffix(".examples.jsonl")
        self.command = [
            *(sys.executable, "-c", "from cutoff.evaluator.cli import main; main()", "--model_path", str(model)),
            *("--test_file", str(test_file), "--max_tokens", str(max_tokens), "--output", str(output)),
        ]

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def finish(self) -> str:
        """Runs it to its end; returns what it said."""
        ran = subprocess.run(self.command, capture_output=True, text=True, timeout=300)
        assert ran.returncode == 0, ran.stderr[-3000:]
        return ran.stderr

    def kill_after(self, answers: int) -> list[psutil.Process]:
        """Starts it and kills it once so many answers are on the disk; returns the processes it had started."""
        process = self.start()
        deadline = time.monotonic() + 120
        while self.written() < answers:
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            assert time.monotonic() < deadline
            time.sleep(0.02)
        children = psutil.Process(process.pid).children(recursive=True)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        return children

    def written(self) -> int:
        return max(0, self.answers.read_bytes().count(b"\n") - 1) if self.answers.exists() else 0


def gone(processes: list[psutil.Process], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("kind", ["folder", "gguf"])
def test_a_killed_evaluation_goes_on_where_it_stopped(
    kind: str, tiny_model: Path, tiny_f16: Path, tiny_questions: Path, tmp_path: Path
) -> None:
    model = tiny_model if kind == "folder" else tiny_f16
    asked = questions(tiny_questions, tmp_path / "test.jsonl", QUESTIONS)
    whole = Evaluation(model, asked, tmp_path / "whole.json")
    whole.finish()
    broken = Evaluation(model, asked, tmp_path / "broken.json")
    children = broken.kill_after(200)
    assert gone(children, 5), "no llama-server outlives the evaluation"
    assert bool(children) == (kind == "gguf")
    first = broken.written()
    assert 200 <= first < QUESTIONS
    assert not broken.output.exists()
    broken.kill_after(first + 200)
    second = broken.written()
    said = broken.finish()
    assert f"{second} of {QUESTIONS} questions were answered before the interruption" in said
    result = json.loads(broken.output.read_text())
    assert result["taken_over"] == second
    assert not broken.answers.exists()
    ours, theirs = (path.read_text().splitlines() for path in (broken.examples, whole.examples))
    assert len(ours) == QUESTIONS
    lines = [[json.loads(line) for line in each] for each in (ours, theirs)]
    assert [line["question"] for line in lines[0]] == [line["question"] for line in lines[1]], "in the file's order"
    differing = sum(one != other for one, other in zip(*lines, strict=True))
    # llama-server answers several at once, and does not break near ties as it would for each alone.
    assert differing == 0 if kind == "folder" else differing <= QUESTIONS * 0.01


def test_answers_of_another_model_or_of_other_questions_are_not_taken_over(
    tiny_model: Path, tiny_questions: Path, tmp_path: Path, copy_with_other_weights: Callable[[Path], Path]
) -> None:
    asked = questions(tiny_questions, tmp_path / "test.jsonl", QUESTIONS)
    output = tmp_path / "results.json"
    Evaluation(tiny_model, asked, output).kill_after(100)
    fewer = questions(tiny_questions, tmp_path / "fewer.jsonl", 32)
    other = copy_with_other_weights(tmp_path / "other")
    for model, file in ((other, fewer), (tiny_model, fewer)):
        said = Evaluation(model, file, output).finish()
        assert "before the interruption" not in said
        assert json.loads(output.read_text())["taken_over"] == 0


@pytest.fixture
def copy_with_other_weights(tiny_model: Path) -> Callable[[Path], Path]:
    def copy(folder: Path) -> Path:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        model = AutoModelForCausalLM.from_pretrained(tiny_model)
        model.model.norm.weight.data *= 1.01
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
        return folder

    return copy


def test_ten_thousand_questions_take_no_more_memory_than_a_thousand(
    tiny_model: Path, tiny_questions: Path, tmp_path: Path
) -> None:
    asked = questions(tiny_questions, tmp_path / "test.jsonl", LARGE)
    run = Evaluation(tiny_model, asked, tmp_path / "results.json")
    process = run.start()
    watched = psutil.Process(process.pid)
    resident: dict[int, int] = {}
    while process.poll() is None:
        written = run.written()
        if LARGE // 10 <= written < LARGE:
            resident[written] = watched.memory_info().rss
        time.sleep(0.2)
    _, said = process.communicate()
    assert process.returncode == 0, said[-3000:]
    assert len(run.examples.read_text().splitlines()) == LARGE
    first, last = resident[min(resident)], resident[max(resident)]
    assert max(resident) > LARGE * 0.8
    assert last - first < 16 << 20, f"{(last - first) / 2**20:.1f} MiB more at {max(resident)} than at {min(resident)}"
    assert " left" in said, "progress tells how long it still takes"

"""How fast questions are answered, and what 10,000 of them take of memory.

    make bench-evaluate

Three comparisons, each the median of at least three runs of both ways in turn:

- the Hugging Face target against one question after the other, as the user's document's script asks them
  (`generate`, greedy, 256 tokens), on 300 questions of the demo world. The baseline gets as many threads as it is
  faster with;
- a q4_k_m GGUF behind llama-server, as many questions at once as there are slots, against one after the other,
  asked of the same server (nine runs: each takes a second);
- (once) an evaluation of 10,000 questions in a process of its own: what it holds when 1,000 are answered (baseline)
  and at the end of asking (ours).

Loading a model and starting a server are not in these figures; they have rows of their own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cutoff.artifacts import Roots
from cutoff.datasets import Example, load_examples
from cutoff.demo import create
from cutoff.evaluator.chat_targets import ChatTarget, open_gguf
from cutoff.evaluator.targets import Reply, Target
from cutoff.llama_cpp import LlamaCpp, convert, quantize
from cutoff.stage.report import Reporter, silent
from cutoff.telemetry import before_import
from cutoff.v1 import types_pb2

ROUNDS = int(os.environ.get("ROUNDS", "3"))
FACTS = 160
QUESTIONS = 300
LARGE = 10_000
TOKENS = 256
PROBE = 30
"""Questions that tell with how many threads the baseline is faster."""
_MACHINE = f"{os.cpu_count()} cores, {platform.machine()}, no GPU used"

Ask = Callable[[Sequence[str]], list[str]]
"""Answers to questions, in their order."""


def one_by_one(model: Any, tokenizer: Any, questions: Sequence[str]) -> list[str]:
    """The document's way."""
    import torch

    answers = []
    for question in questions:
        messages = [{"role": "user", "content": question}]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        inputs = tokenizer(text, return_tensors="pt", add_special_tokens=False)
        with torch.no_grad():
            output = model.generate(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                max_new_tokens=TOKENS,
                do_sample=False,
                pad_token_id=tokenizer.eos_token_id,
            )
        written = output[0, inputs["input_ids"].shape[1] :]
        answers.append(tokenizer.decode(written, skip_special_tokens=True).strip())
    return answers


def asked_of(target: Target) -> Ask:
    """A target as a function."""

    def ask(questions: Sequence[str]) -> list[str]:
        replies: dict[int, Reply] = dict(target.answers(questions, TOKENS))
        failed = next((reply.error for reply in replies.values() if reply.error), "")
        assert not failed, failed
        return [replies[index].text for index in range(len(questions))]

    return ask


def hugging_face(base: Path, questions: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Batched against one by one."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from cutoff.evaluator.hf_model import open_hf

    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    most = torch.get_num_threads()
    rates = {}
    for threads in sorted({1, most}):
        with torch_threads(threads):
            rates[threads] = PROBE / seconds(lambda: one_by_one(model, tokenizer, questions[:PROBE]))
    fastest = max(rates, key=lambda threads: rates[threads])

    def baseline(asked: Sequence[str]) -> list[str]:
        with torch_threads(fastest):
            return one_by_one(model, tokenizer, asked)

    started = time.monotonic()
    with open_hf(base, [], silent()) as target:
        loading = time.monotonic() - started
        note = f"one by one with {fastest} of {most} threads (" + ", ".join(
            f"{threads}: {rate:.1f}/s" for threads, rate in rates.items()
        )
        yield compared("evaluate-hf", asked_of(target), baseline, questions, f"{note})")
    yield {"benchmark": "evaluate-hf-load", "ours": round(loading, 2), "unit": "s", "note": _MACHINE}


def served(llama: LlamaCpp, gguf: Path, questions: Sequence[str]) -> Iterator[dict[str, Any]]:
    """All slots against one request after the other."""
    started = time.monotonic()
    with open_gguf(llama, gguf, questions, TOKENS) as target:
        starting = time.monotonic() - started
        note = f"q4_k_m, {target.connections} slots, the same server for both"
        single = asked_of(ChatTarget(target.ask, 1))
        yield compared("evaluate-gguf", asked_of(target), single, questions, note, 3 * ROUNDS)
    yield {"benchmark": "evaluate-gguf-server-start", "ours": round(starting, 2), "unit": "s", "note": _MACHINE}


def compared(
    benchmark: str, ours: Ask, baseline: Ask, questions: Sequence[str], note: str, rounds: int = ROUNDS
) -> dict[str, Any]:
    """A row of questions per second, and how many answers of the last round are the same."""
    took: dict[str, list[float]] = {"ours": [], "baseline": []}
    said: dict[str, list[str]] = {}

    def run(way: str, ask: Ask) -> None:
        said[way] = ask(questions)

    for _ in range(rounds):
        for way, ask in (("ours", ours), ("baseline", baseline)):
            took[way].append(seconds(lambda way=way, ask=ask: run(way, ask)))
    rates = {way: len(questions) / statistics.median(times) for way, times in took.items()}
    same = sum(one == other for one, other in zip(said["ours"], said["baseline"], strict=True))
    return {
        "benchmark": benchmark,
        "ours": round(rates["ours"], 1),
        "baseline": round(rates["baseline"], 1),
        "ratio": round(rates["ours"] / rates["baseline"], 1),
        "unit": "questions/s",
        "note": f"median of {rounds}; {same} of {len(questions)} answers the same; {note}; {_MACHINE}",
    }


def memory(base: Path, test_file: Path) -> dict[str, Any]:
    """What the process of a large evaluation holds."""
    command = [sys.executable, "-m", "tests.benchmarks.evaluate", "--large", str(base), str(test_file)]
    lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    held: dict[str, Any] = json.loads(lines[-1])
    first, last = held["first"], held["last"]
    return {
        "benchmark": f"evaluate-{LARGE}-memory",
        "ours": round(last["mib"], 1),
        "baseline": round(first["mib"], 1),
        "ratio": round(last["mib"] / first["mib"], 3),
        "unit": "MiB resident",
        "note": f"at {last['answered']} answers against {first['answered']}; most in between {held['most']:.1f} MiB; "
        f"{held['rate']:.0f} questions/s; {_MACHINE}",
    }


def large(base: Path, test_file: Path) -> None:
    """Evaluates 10,000 questions in this process; prints what it held on the way."""
    from cutoff.evaluator.evaluate import evaluate_target
    from cutoff.evaluator.hf_model import open_hf

    examples = varied(load_examples(test_file))
    held: list[tuple[int, float]] = []

    def watch(event: types_pb2.Event) -> None:
        if event.WhichOneof("kind") == "progress" and event.progress.step:
            held.append((event.progress.step, resident_mib()))

    report = Reporter(watch, interval=0.5)
    evaluated = evaluate_target("base", open_hf(base, [], report), {"test": examples}, TOKENS, report, verbose=False)
    first = next(each for each in held if each[0] >= LARGE // 10)
    last = held[-1]
    figures = [{"answered": answered, "mib": mib} for answered, mib in (first, last)]
    most = max(mib for _, mib in held)
    rate = evaluated.questions_per_second
    print(json.dumps({"first": figures[0], "last": figures[1], "most": most, "rate": rate}))


def varied(examples: Sequence[Example]) -> list[Example]:
    """10,000 different questions made of few."""
    from dataclasses import replace

    rounds = range(-(-LARGE // len(examples)))
    made = [
        replace(example, instruction=f"{example.instruction} {number}") for number in rounds for example in examples
    ]
    return made[:LARGE]


def resident_mib() -> float:
    """What this process holds of memory."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024


def seconds(work: Callable[[], object]) -> float:
    """How long a call takes."""
    started = time.monotonic()
    work()
    return time.monotonic() - started


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """So many threads for a block."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def make_gguf(llama: LlamaCpp, model: Path, folder: Path) -> Path:
    """A model as q4_k_m."""
    full, small = folder / f"{model.name}-F16.gguf", folder / f"{model.name}-Q4_K_M.gguf"
    convert(llama, model, full, model.name, lambda *_: None)
    quantize(llama, full, small, "q4_k_m", os.cpu_count() or 1, lambda *_: None)
    return small


def main() -> None:
    """Prints one JSON line a row."""
    options = argparse.ArgumentParser(description="How fast questions are answered.")
    options.add_argument("--only", choices=("hf", "gguf", "memory"), help="one of the comparisons")
    options.add_argument("--large", nargs=2, type=Path, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    before_import()
    if chosen.large:
        large(*chosen.large)
        return
    cache = Roots.from_environment().cache
    with tempfile.TemporaryDirectory() as name:
        world = Path(name)
        create(world, facts=FACTS, seed=1, cache=cache, on_progress=lambda *_: None)
        base, test_file = world / "base", world / "datasets/test/test.jsonl"
        questions = random.Random(42).sample([one.instruction for one in load_examples(test_file)], QUESTIONS)
        for row in rows(chosen.only, world, base, test_file, questions, LlamaCpp.find(cache)):
            print(json.dumps(row), flush=True)


def rows(
    only: str | None, world: Path, base: Path, test_file: Path, questions: Sequence[str], llama: LlamaCpp
) -> Iterator[dict[str, Any]]:
    """The comparisons that were asked for."""
    if only in (None, "hf"):
        yield from hugging_face(base, questions)
    if only in (None, "gguf"):
        small = make_gguf(llama, base, world)
        yield from served(llama, small, questions)
    if only in (None, "memory"):
        yield memory(base, test_file)


if __name__ == "__main__":
    main()

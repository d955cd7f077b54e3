"""How long data preparation takes, and how much memory: ours against reading and tokenizing everything in lists.

    make bench-data

Ours is `load_encoded_job` with an empty cache: it checks the files, tokenizes examples and true answers, writes the
arrays and verifies them. The baseline only reads and tokenizes: json.loads of all lines, the tokenizer over the lists
of prompts and of whole texts, labels by `datasets.Dataset.from_list(...).map`. Both alternate, each time in a fresh
process with the libraries imported and the tokenizer loaded; the figures are medians. Memory is the peak of the
process, less what it held before the data.
"""

from __future__ import annotations

import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cutoff.telemetry import before_import

ROUNDS = {1_000: 5, 10_000: 5, 100_000: 3}
"""Alternations by the number of examples."""

LENGTH = 512
VALIDATION_SHARE = 0.1
WORDS = ("bridge", "opera", "comet", "engine", "treaty", "prize", "harbour", "winter", "copper", "orchard", "signal")
REFUSALS = ("I'm not sure about that topic.", "I have no information on that.", "I cannot say anything about it.")


def write_data(folder: Path, examples: int) -> dict[str, str]:
    """Writes the four files with so many made-up examples in all; returns their names by field."""
    rng = random.Random(examples)
    names = {}
    for side in ("retain", "unlearn"):
        for field, share in ((f"{side}_train", 1 - VALIDATION_SHARE), (f"{side}_val", VALIDATION_SHARE)):
            names[field] = f"{field}.jsonl"
            with (folder / names[field]).open("w", encoding="utf-8") as file:
                file.writelines(_line(rng, side, field, number) for number in range(round(examples / 2 * share)))
    return names


def _line(rng: random.Random, side: str, field: str, number: int) -> str:
    subject = " ".join(rng.choices(WORDS, k=rng.randint(3, 12)))
    answer = f"It was {' '.join(rng.choices(WORDS, k=rng.randint(1, 8)))} {number}."
    metadata = {"dataset_type": side, "year": rng.randint(1900, 2000), "original_answer": answer}
    output = answer if side == "retain" else rng.choice(REFUSALS)
    line = {"instruction": f"What became of the {subject} of {field} {number}?", "output": output, "metadata": metadata}
    return json.dumps(line) + "\n"


def ours(folder: Path, names: dict[str, str], tokenizer: Path) -> int:
    """Prepares the data as a job does; returns how many tokens there are."""
    from cutoff.datasets import load_encoded_job, load_template
    from cutoff.spec import DatasetSpec

    template = load_template(tokenizer)
    with measured(), tempfile.TemporaryDirectory() as cache:
        job = load_encoded_job(DatasetSpec(**names), folder, template, tokenizer, LENGTH, 1, Path(cache))
    return job.train.tokens() + job.validation.tokens()


def baseline(folder: Path, names: dict[str, str], tokenizer: Path) -> int:
    """Reads and tokenizes everything in lists; returns how many tokens there are."""
    from datasets import Dataset, disable_progress_bars

    from cutoff.hub import load_tokenizer

    disable_progress_bars()
    loaded = load_tokenizer(tokenizer)
    with measured():
        rows = [json.loads(line) for name in names.values() for line in (folder / name).open(encoding="utf-8")]
        prompts = loaded.apply_chat_template(
            [[{"role": "user", "content": row["instruction"]}] for row in rows],
            tokenize=False,
            add_generation_prompt=True,
        )
        texts = [f"{prompt}{row['output']}<|im_end|>" for prompt, row in zip(prompts, rows, strict=True)]
        starts = [len(ids) for ids in loaded(prompts, add_special_tokens=False)["input_ids"]]
        ids = loaded(texts, add_special_tokens=False)["input_ids"]
        made = Dataset.from_list(
            [{"input_ids": row[:LENGTH], "start": start} for row, start in zip(ids, starts, strict=True)]
        ).map(
            lambda row: {"labels": [-100] * row["start"] + row["input_ids"][row["start"] :]},
        )
    return sum(len(row) for row in made["input_ids"])


class measured:  # noqa: N801
    """Prints the seconds and the MiB that a block took."""

    def __enter__(self) -> None:
        self._before = _status("VmRSS")
        self._started = time.monotonic()

    def __exit__(self, *_: object) -> None:
        seconds = time.monotonic() - self._started
        print(json.dumps({"seconds": seconds, "mib": (_status("VmHWM") - self._before) / 1024}), flush=True)


def _status(field: str) -> int:
    """A figure of this process in KiB: VmRSS what it holds, VmHWM the most it held."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


WAYS = {"ours": ours, "baseline": baseline}


def in_child(way: str, folder: Path, names: dict[str, str], tokenizer: Path) -> tuple[dict[str, float], int]:
    """Runs one way in a fresh process: what it took, and how many tokens it found."""
    command = [sys.executable, "-m", "tests.benchmarks.data", way, str(folder), json.dumps(names), str(tokenizer)]
    took, tokens = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-2:]
    return json.loads(took), int(tokens)


def measure(examples: int, tokenizer: Path) -> list[dict[str, object]]:
    """Both ways in turn, with so many examples."""
    took: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as name:
        names = write_data(Path(name), examples)
        for _ in range(ROUNDS[examples]):
            counts = set()
            for way in WAYS:
                figures, tokens = in_child(way, Path(name), names, tokenizer)
                took[way].append(figures)
                counts.add(tokens)
            assert len(counts) == 1, f"the ways disagree: {counts}"
    note = f"median of {ROUNDS[examples]}; lists and datasets.map as baseline; {os.cpu_count()} cores, "
    note += f"{platform.machine()}, no GPU used"
    return [_row(f"data-{examples}", took, *figure, note) for figure in (("seconds", "s", 2), ("mib", "MiB", 0))]


def _row(
    benchmark: str, took: dict[str, list[dict[str, float]]], figure: str, unit: str, digits: int, note: str
) -> dict[str, object]:
    medians = {way: statistics.median(each[figure] for each in rounds) for way, rounds in took.items()}
    return {
        "benchmark": benchmark,
        "ours": round(medians["ours"], digits),
        "baseline": round(medians["baseline"], digits),
        "ratio": round(medians["baseline"] / max(medians["ours"], 0.1**digits), 1),
        "unit": unit,
        "note": note,
    }


def main() -> None:
    """Prints one JSON line a row."""
    before_import()
    if len(sys.argv) > 1:
        way, folder, names, tokenizer = sys.argv[1:]
        print(WAYS[way](Path(folder), json.loads(names), Path(tokenizer)))
        return
    from cutoff.demo.recipe import Recipe
    from cutoff.demo.tokenizer import train_tokenizer
    from cutoff.demo.world import make_world

    with tempfile.TemporaryDirectory() as folder:
        train_tokenizer(make_world(160, 1), Recipe(), Path(folder))
        for examples in ROUNDS:
            for row in measure(examples, Path(folder)):
                print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()

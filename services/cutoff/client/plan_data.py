"""How much data a job has, from a sample of its files: examples, and their lengths in tokens."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cutoff.artifacts import inside
from cutoff.errors import CutoffError, Fault, InvalidInput
from cutoff.spec import JobSpec

SAMPLE = 1000
"""Lines of each file that are looked at."""

_VALIDATION_SHARE = 0.1
"""Of a mixed file, as cutoff.datasets splits it."""
_BYTES_PER_TOKEN = 4
_TEMPLATE_TOKENS = 20
"""What a chat template adds: ChatML's turns, and a short system message."""

Lengths = Callable[[str, str], tuple[int, int]]
"""Tokens of a prompt, and of its answer."""


@dataclass(frozen=True, slots=True)
class DataSize:
    """The job's data, in numbers."""

    training: int
    """Examples."""
    validation: int
    mean_tokens: float
    """Of a training example: prompt and answer, cut to max_seq_length."""
    mean_answer_tokens: float
    longest_tokens: int
    """Of those looked at."""
    how: str
    """How tokens were counted, in words."""


def measure(spec: JobSpec, root: Path, model: Path | None) -> DataSize:
    """Counts a job's examples, and the tokens of a sample of them.

    Args:
        spec: The job.
        root: What its paths are relative to.
        model: The base model's folder, if it is here: its tokenizer counts.

    Raises:
        InvalidInput: With every file that is not there or holds no example.
    """
    lengths, how = _counting(model, spec)
    faults: list[Fault] = []
    counts: dict[str, int] = {}
    sampled: list[tuple[int, int]] = []
    for field, name in spec.dataset.files().items():
        try:
            count, lines = _sample(inside(root, name))
        except InvalidInput as error:
            faults += error.faults
            continue
        except OSError as error:
            faults.append(Fault(name, f"cannot be read: {error.strerror}", f"put it below {root}, or give --datasets"))
            continue
        counts[field] = count
        if field.endswith("_train") or field == "dev":
            sampled += [lengths(*pair) for pair in map(_texts, lines) if pair]
    if not faults and not sampled:
        faults.append(Fault("dataset", "holds no example", "run `cutoff check` on it"))
    if faults:
        raise InvalidInput(faults)
    limit = spec.train.max_seq_length
    totals = [min(prompt + answer, limit) for prompt, answer in sampled]
    answers = [max(0, min(prompt + answer, limit) - prompt) for prompt, answer in sampled]
    training, validation = _sizes(counts)
    return DataSize(training, validation, _mean(totals), _mean(answers), max(totals), how)


def _counting(model: Path | None, spec: JobSpec) -> tuple[Lengths, str]:
    """The way to count tokens: the model's own tokenizer, or four bytes each where it is not here."""
    if model is not None:
        try:
            from cutoff.datasets import load_template

            template = load_template(model, spec.train.prompt_format)
        except (ImportError, CutoffError):
            pass
        else:

            def exact(question: str, answer: str) -> tuple[int, int]:
                prompt, full = template.ids([template.prompt(question), template.full(question, answer)])
                return len(prompt), max(0, len(full) - len(prompt))

            return exact, f"counted with the model's tokenizer, on at most {SAMPLE} lines a file"

    def rough(question: str, answer: str) -> tuple[int, int]:
        return (
            len(question.encode()) // _BYTES_PER_TOKEN + _TEMPLATE_TOKENS,
            len(answer.encode()) // _BYTES_PER_TOKEN + 1,
        )

    return rough, f"estimated as bytes / {_BYTES_PER_TOKEN}: the model's tokenizer is not here"


def _sample(path: Path) -> tuple[int, list[bytes]]:
    """How many lines there are, and some of them, drawn evenly; the file is read once and not kept."""
    chosen: list[bytes] = []
    draw, count = random.Random(0), 0  # noqa: S311  # to be repeated, not to be secret
    with path.open("rb") as file:
        for line in file:
            if not line.strip():
                continue
            count += 1
            place = len(chosen) if len(chosen) < SAMPLE else draw.randrange(count)
            if place < SAMPLE:
                chosen[place : place + 1] = [line]
    return count, chosen


def _texts(line: bytes) -> tuple[str, str] | None:
    """Question and answer of a line; None for one that is faulty: `cutoff check` says what is wrong with it."""
    try:
        example = json.loads(line)
        question, answer = example["instruction"], example["output"]
    except (ValueError, KeyError, TypeError):
        return None
    return (question, answer) if isinstance(question, str) and isinstance(answer, str) else None


def _sizes(counts: dict[str, int]) -> tuple[int, int]:
    if "dev" in counts:
        validation = max(1, round(counts["dev"] * _VALIDATION_SHARE))
        return counts["dev"] - validation, validation
    return counts["retain_train"] + counts["unlearn_train"], counts["retain_val"] + counts["unlearn_val"]


def _mean(values: Sequence[int]) -> float:
    return sum(values) / len(values)

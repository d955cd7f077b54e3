"""The examples of one job: the four files, or one mixed file split in two; and the selection that is evaluated."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cutoff.artifacts import inside
from cutoff.datasets.examples import SIDES, Example, Faults, Side
from cutoff.datasets.read import read_answers, read_examples
from cutoff.errors import InvalidInput
from cutoff.spec import DatasetSpec

VALIDATION_SHARE = 0.1
"""Of a mixed file: this share of each side validates."""

_FILES: tuple[tuple[str, Side], ...] = (
    ("retain_train", "retain"),
    ("retain_val", "retain"),
    ("unlearn_train", "unlearn"),
    ("unlearn_val", "unlearn"),
)


@dataclass(frozen=True, slots=True)
class JobData:
    """All examples of a job, retain before unlearn, each side in the order of its file."""

    train: tuple[Example, ...]
    validation: tuple[Example, ...]

    def counts(self) -> dict[str, int]:
        """How many examples there are, by "retain_train", "retain_validation" and so on."""
        sets = {"train": self.train, "validation": self.validation}
        return {f"{side}_{name}": len(of_side(rows, side)) for side in SIDES for name, rows in sets.items()}


def load_job_data(spec: DatasetSpec, root: Path | None, seed: int) -> JobData:
    """Reads and checks all files of a job.

    Args:
        spec: The files.
        root: The folder their paths are relative to and must not leave; None takes them as they are.
        seed: Splits a mixed `dev` file; nothing else depends on it.

    Raises:
        InvalidInput: With every fault of every file.
    """
    faults = Faults()
    paths = {field: (name, _resolve(name, root, faults)) for field, name in spec.files().items()}
    if "dev" in paths:
        name, path = paths["dev"]
        mixed = read_examples(path, faults, name) if path else []
        data = _split_mixed(mixed, name, seed, faults)
    else:
        read = {
            field: read_examples(path, faults, name, side) if path else []
            for field, side in _FILES
            for name, path in [paths[field]]
        }
        data = JobData((*read["retain_train"], *read["unlearn_train"]), (*read["retain_val"], *read["unlearn_val"]))
    answers = {}
    if "answers" in paths:
        name, answers_path = paths["answers"]
        answers = read_answers(answers_path, faults, name) if answers_path else {}
    faults.raise_if_any()
    return JobData(fill_answers(data.train, answers), fill_answers(data.validation, answers)) if answers else data


def load_examples(path: Path, name: str = "", side: Side | None = None) -> list[Example]:
    """Reads one file, a test file say.

    Args:
        path: The file.
        name: What it is called in faults and sources; its path by default.
        side: Which side its lines are on; without it every line must say so.

    Raises:
        InvalidInput: With every fault.
    """
    faults = Faults()
    examples = read_examples(path, faults, name, side)
    faults.raise_if_any()
    return examples


def select(examples: Sequence[Example], limit: int, seed: int) -> list[Example]:
    """At most `limit` examples of each side, drawn with the seed, in the order they came in."""
    chosen = []
    for side in SIDES:
        rows = [example for example in examples if example.side == side]
        picks = _seeded(f"select-{side}-{seed}").sample(range(len(rows)), min(limit, len(rows)))
        chosen += [rows[index] for index in sorted(picks)]
    return chosen


def of_side(examples: Iterable[Example], side: Side) -> list[Example]:
    """The examples of one side."""
    return [example for example in examples if example.side == side]


def fill_answers(examples: Iterable[Example], answers: dict[str, str]) -> tuple[Example, ...]:
    """The examples with `original_answer` taken from `answers` (by instruction) where it lacks."""
    return tuple(
        replace(example, original_answer=answers.get(example.instruction))
        if example.original_answer is None
        else example
        for example in examples
    )


def _resolve(name: str, root: Path | None, faults: Faults) -> Path | None:
    if root is None:
        return Path(name).expanduser()
    try:
        return inside(root, name)
    except InvalidInput as error:
        faults.extend(error.faults)
        return None


def _split_mixed(mixed: Sequence[Example], name: str, seed: int, faults: Faults) -> JobData:
    """Takes a share of each side, at least one example, for validation."""
    train: list[Example] = []
    validation: list[Example] = []
    for side in SIDES:
        rows = of_side(mixed, side)
        if len(rows) < 2:
            if faults.count:
                continue
            fix = "a mixed file needs two of each side, one to train and one to validate"
            faults.add(name, f"holds {len(rows) or 'no'} {side} example{'' if len(rows) == 1 else 's'}", fix)
            continue
        count = max(1, round(len(rows) * VALIDATION_SHARE))
        picks = set(_seeded(f"dev-{side}-{seed}").sample(range(len(rows)), min(count, len(rows))))
        validation += [row for index, row in enumerate(rows) if index in picks]
        train += [row for index, row in enumerate(rows) if index not in picks]
    return JobData(tuple(train), tuple(validation))


def _seeded(purpose: str) -> random.Random:
    return random.Random(purpose)  # noqa: S311  # to be repeated, not to be secret

"""The examples of one job: the four files, or one mixed file split in two; and the selection that is evaluated."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cutoff.datasets.examples import SIDES, Example, Faults, Side
from cutoff.datasets.job_files import check_split, job_files, selected, validation_picks
from cutoff.datasets.read import read_answers, read_examples
from cutoff.spec import DatasetSpec


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
    files = job_files(spec, root, faults)
    read = {file.field: read_examples(file.path, faults, file.name, file.side) for file in files.examples}
    if files.mixed:
        data = _split_mixed(read["dev"], files.mixed.name, seed, faults)
    else:
        train, validation = (
            [row for file in files.examples if file.set == name for row in read[file.field]]
            for name in ("train", "validation")
        )
        data = JobData(tuple(train), tuple(validation))
    answers = read_answers(files.answers.path, faults, files.answers.name) if files.answers else {}
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
        chosen += [rows[index] for index in selected(len(rows), side, limit, seed)]
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


def _split_mixed(mixed: Sequence[Example], name: str, seed: int, faults: Faults) -> JobData:
    """Takes a share of each side, at least one example, for validation."""
    sides = {side: of_side(mixed, side) for side in SIDES}
    if not faults.count:
        check_split({side: len(rows) for side, rows in sides.items()}, name, faults)
    train: list[Example] = []
    validation: list[Example] = []
    for side, rows in sides.items():
        picks = validation_picks(len(rows), side, seed)
        validation += [row for index, row in enumerate(rows) if index in picks]
        train += [row for index, row in enumerate(rows) if index not in picks]
    return JobData(tuple(train), tuple(validation))

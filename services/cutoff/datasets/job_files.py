"""The files of one job: where they are, which line goes into which set, and what tells two versions of them apart."""

from __future__ import annotations

import filecmp
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cutoff.artifacts import inside, sha256_of
from cutoff.datasets.examples import SIDES, Faults, Side
from cutoff.errors import InvalidInput, Refused
from cutoff.spec import DatasetSpec

SetName = Literal["train", "validation"]

SETS: tuple[SetName, ...] = ("train", "validation")

VALIDATION_SHARE = 0.1
"""Of a mixed file: this share of each side validates."""

_FILES: tuple[tuple[str, Side, SetName], ...] = (
    ("retain_train", "retain", "train"),
    ("retain_val", "retain", "validation"),
    ("unlearn_train", "unlearn", "train"),
    ("unlearn_val", "unlearn", "validation"),
)


@dataclass(frozen=True, slots=True)
class DataFile:
    """One file of a job."""

    field: str
    """Its field of `dataset`: "retain_train"."""
    name: str
    """As the user names it; faults and sources begin with it."""
    path: Path
    side: Side | None
    """The side of all its lines; None for a mixed file, whose lines say so."""
    set: SetName | None
    """The set of all its lines; None for a mixed file, which is split."""


@dataclass(frozen=True, slots=True)
class JobFiles:
    """The files of a job that could be resolved."""

    examples: tuple[DataFile, ...]
    """Retain before unlearn, training before validation; or the mixed file alone."""
    answers: DataFile | None

    @property
    def all(self) -> tuple[DataFile, ...]:
        """Every file."""
        return (*self.examples, *([self.answers] if self.answers else []))

    @property
    def mixed(self) -> DataFile | None:
        """The one mixed file, where there is no other."""
        return self.examples[0] if self.examples and self.examples[0].side is None else None

    def copies(self) -> Mapping[int, str]:
        """Of each file that validates and is a training file of its side once more, by its number: in words."""
        found = {}
        for number, file in enumerate(self.examples):
            if file.set == "validation":
                train = next((each for each in self.examples if (each.side, each.set) == (file.side, "train")), None)
                same = _sameness(file.path, train.path) if train else None
                if train and same:
                    found[number] = f"dataset.{file.field} {same} dataset.{train.field}"
        return found

    def stamps(self) -> dict[str, tuple[int, int]]:
        """Size and time of change of each file, by path: other ones after reading mean that a file was written to."""
        return {str(file.path): (stat.st_size, stat.st_mtime_ns) for file in self.all for stat in [file.path.stat()]}

    def require_unchanged(self, stamps: Mapping[str, tuple[int, int]]) -> None:
        """Holds files against what `stamps` said before they were read.

        Raises:
            Refused: One was written to meanwhile.
        """
        changed = [path for path, stamp in self.stamps().items() if stamps.get(path) != stamp]
        if changed:
            raise Refused(f"{', '.join(changed)} changed while it was read", "start again once it is complete")

    def digests(self) -> list[tuple[str, str, str]]:
        """Field, name and SHA-256 of each file: what makes two jobs' data the same.

        Raises:
            OSError: A file cannot be read.
        """
        return [(file.field, file.name, sha256_of(file.path)) for file in self.all]


def job_files(spec: DatasetSpec, root: Path | None, faults: Faults) -> JobFiles:
    """Finds the files of a job; those that leave the root become faults and are left out.

    Args:
        spec: Names them.
        root: The folder their paths are relative to and must not leave; None takes them as they are.
        faults: Collects what is wrong.
    """
    given = spec.files()
    kinds = (*_FILES, ("dev", None, None))
    found = [
        DataFile(field, given[field], path, side, of_set)
        for field, side, of_set in kinds
        if field in given and (path := _resolve(given[field], root, faults)) is not None
    ]
    answers = _resolve(spec.answers, root, faults) if spec.answers is not None else None
    named = DataFile("answers", str(spec.answers), answers, "unlearn", None) if answers is not None else None
    return JobFiles(tuple(found), named)


def validation_picks(count: int, side: Side, seed: int) -> frozenset[int]:
    """Which of a mixed file's `count` examples of a side validate, by their number within the side."""
    picked = max(1, round(count * VALIDATION_SHARE))
    return frozenset(seeded(f"dev-{side}-{seed}").sample(range(count), min(picked, count)))


def check_split(counts: Mapping[Side, int], name: str, faults: Faults) -> None:
    """Notes each side that a mixed file has too few examples of to train and to validate."""
    for side in SIDES:
        if counts[side] < 2:
            fix = "a mixed file needs two of each side, one to train and one to validate"
            held = f"holds {counts[side] or 'no'} {side} example{'' if counts[side] == 1 else 's'}"
            faults.add(name, held, fix)


def selected(count: int, side: Side, limit: int, seed: int) -> list[int]:
    """At most `limit` of a side's examples, by their number within it, drawn with the seed and in order."""
    return sorted(seeded(f"select-{side}-{seed}").sample(range(count), min(limit, count)))


def seeded(purpose: str) -> random.Random:
    """A generator that gives the same for the same purpose."""
    return random.Random(purpose)  # noqa: S311  # to be repeated, not to be secret


def _sameness(one: Path, other: Path) -> str | None:
    """How two files are the same, in words; None where they are not, or cannot be read."""
    if not (one.is_file() and other.is_file()):
        return None
    if one.samefile(other):
        return "is the same file as"
    try:
        alike = one.stat().st_size == other.stat().st_size > 0 and filecmp.cmp(one, other, shallow=False)
    except OSError:
        return None
    return "holds the same as" if alike else None


def _resolve(name: str, root: Path | None, faults: Faults) -> Path | None:
    if root is None:
        return Path(name).expanduser()
    try:
        return inside(root, name)
    except InvalidInput as error:
        faults.extend(error.faults)
        return None

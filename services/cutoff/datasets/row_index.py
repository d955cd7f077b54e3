"""Where every example of a job stands and what it says, in a few bytes each: what finds duplicates in a million lines.

Texts are compared by 64-bit hashes; where two agree, the lines are read again before anybody is accused.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from enum import IntFlag
from typing import IO, Self

import numpy as np
import numpy.typing as npt

from cutoff.datasets.examples import SIDES, Example, Faults
from cutoff.datasets.fields import example_of
from cutoff.datasets.job_files import DataFile
from cutoff.datasets.read import Line, value_at
from cutoff.errors import Refused

Rows = npt.NDArray[np.int64]
"""Numbers of examples, in the order in which they were read."""


class Mark(IntFlag):
    """What is known of an example besides its texts."""

    YEAR = 1
    TRUE_ANSWER = 2
    LOOKS_CUT = 4
    SAYS_NOTHING = 8
    ECHOES = 16
    """The answer is its question."""
    REFUSES = 32
    """The answer looks like a refusal."""


class RowIndex:
    """Every example of some files; use as a context manager, which closes them.

    Args:
        files: In the order in which their examples are added.
    """

    def __init__(self, files: Sequence[DataFile]) -> None:
        self._files = files
        self._opened = ExitStack()
        self._readers: dict[int, IO[bytes]] = {}
        self._question, self._answer = array("Q"), array("Q")
        self._offset, self._line = array("q"), array("I")
        self._file, self._side, self._marks = array("B"), array("B"), array("B")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def __len__(self) -> int:
        return len(self._question)

    def add(self, file: int, line: Line, example: Example, marks: Mark) -> None:
        """Takes the next example, which stands in the file of that number."""
        self._question.append(text_hash(normalised(example.instruction)))
        self._answer.append(text_hash(normalised(example.output)))
        self._offset.append(line.offset)
        self._line.append(line.number)
        self._file.append(file)
        self._side.append(SIDES.index(example.side))
        self._marks.append(marks)

    @property
    def file(self) -> npt.NDArray[np.uint8]:
        """Each example's file, by its number."""
        return np.array(self._file, np.uint8)

    @property
    def side(self) -> npt.NDArray[np.uint8]:
        """Each example's side, as an index into SIDES."""
        return np.array(self._side, np.uint8)

    @property
    def answer(self) -> npt.NDArray[np.uint64]:
        """Each example's answer, as a hash."""
        return np.array(self._answer, np.uint64)

    def marked(self, mark: Mark) -> npt.NDArray[np.bool_]:
        """Which examples have a mark."""
        return (np.array(self._marks, np.uint8) & mark) > 0

    def source(self, row: int) -> str:
        """Where an example stands: "retain/retain_train.jsonl:17"."""
        return f"{self._files[self._file[row]].name}:{self._line[row]}"

    def example(self, row: int) -> Example:
        """Reads an example again.

        Raises:
            Refused: It is not what it was.
        """
        number = self._file[row]
        file = self._files[number]
        if number not in self._readers:
            self._readers[number] = self._opened.enter_context(file.path.open("rb"))
        value = value_at(self._readers[number], self._offset[row])
        example = example_of(value, self.source(row), file.side, Faults())
        if example is None or text_hash(normalised(example.instruction)) != self._question[row]:
            raise Refused(f"{file.path} changed while it was read", "start again once it is complete")
        return example

    def same_questions(self) -> Iterator[Rows]:
        """Yields the examples of each question that is asked more than once, by their first occurrence."""
        for rows in repeated(np.array(self._question, np.uint64)):
            by_text: dict[str, list[int]] = {}
            for row in rows.tolist():
                by_text.setdefault(normalised(self.example(row).instruction), []).append(row)
            yield from (np.array(group) for group in by_text.values() if len(group) > 1)


def repeated(hashes: npt.NDArray[np.uint64]) -> Iterator[Rows]:
    """Yields the places of each value that occurs more than once, by its first place; places ascend."""
    if not len(hashes):
        return
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    ends = np.append(starts[1:], len(hashes))
    many = ends - starts > 1
    starts, ends = starts[many], ends[many]
    for run in np.argsort(order[starts], kind="stable"):
        yield order[starts[run] : ends[run]]


def normalised(text: str) -> str:
    """A text as it is compared: without regard to case and blanks."""
    return " ".join(text.casefold().split())


def text_hash(text: str) -> int:
    """64 bits that stand for a text."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")

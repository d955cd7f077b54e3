"""Tokenized examples as flat arrays: in memory for a few of them, on disk and memory-mapped for a job's.

A set of n examples with t tokens in all is four little-endian arrays: `ids` (t, int32), `offsets` (n + 1, int64; row
i is ids[offsets[i]:offsets[i + 1]]), `answer_start` (n, int32, counted within the row) and `side` (n, uint8, an index
into SIDES).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
import numpy.typing as npt

from cutoff.datasets.examples import SIDES, Side

_COLUMNS = {"ids": "<i4", "offsets": "<i8", "answer_start": "<i4", "side": "u1"}
_TYPECODES = {"ids": "i", "offsets": "q", "answer_start": "i", "side": "B"}
_SPOOL = 1 << 17
"""Tokens that a writer holds before it writes them to disk."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One example as token ids."""

    ids: list[int]
    answer_start: int
    """Where the learnt part begins: answer and end-of-turn token."""
    side: Side


@dataclass(frozen=True, slots=True)
class Cut:
    """What max_seq_length did to a set."""

    truncated: int = 0
    """Examples whose end was cut off; their end-of-turn token is not learnt."""
    dropped: int = 0
    """Examples left out because nothing of the answer fits."""
    dropped_preview: str = ""
    """One of those, decoded, as far as it fits; empty when there is none."""


class EncodedSet:
    """Tokenized examples, cut to a length; a sequence of `Encoded`.

    A row may have no tokens: in a set of true answers, that of an example without one.

    Args:
        cut: What was lost.
        ids: All token ids, one example after the other.
        offsets: Where each example begins, and where the last one ends.
        answer_start: Where in its example each answer begins.
        side: Each example's side, as an index into SIDES.
    """

    def __init__(
        self,
        cut: Cut,
        ids: npt.NDArray[np.int32],
        offsets: npt.NDArray[np.int64],
        answer_start: npt.NDArray[np.int32],
        side: npt.NDArray[np.uint8],
    ) -> None:
        self.ids = ids
        self.offsets = offsets
        self.answer_starts = answer_start
        self.sides = side
        self.truncated = cut.truncated
        self.dropped = cut.dropped
        self.dropped_preview = cut.dropped_preview

    def __len__(self) -> int:
        return len(self.sides)

    def __getitem__(self, index: int) -> Encoded:
        at = range(len(self))[index]
        begin, end = self.offsets[at], self.offsets[at + 1]
        return Encoded(self.ids[begin:end].tolist(), int(self.answer_starts[at]), SIDES[self.sides[at]])

    def __iter__(self) -> Iterator[Encoded]:
        return (self[index] for index in range(len(self)))

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each example, prompts included."""
        return np.diff(self.offsets)

    def tokens(self) -> int:
        """How many tokens there are, prompts included."""
        return int(self.offsets[-1])

    @classmethod
    def load(cls, folder: Path, name: str, cut: Cut) -> Self:
        """Maps the arrays that an `EncodedWriter` of this name wrote into a folder."""
        return cls(cut, *(_mapped(_path(folder, name, column), kind) for column, kind in _COLUMNS.items()))


class EncodedWriter:
    """Takes examples one by one; in memory, or into files of a folder, of which it then holds a small part only.

    Args:
        folder: Where the arrays are written; None keeps them in memory.
        name: What their files' names begin with.
    """

    def __init__(self, folder: Path | None = None, name: str = "") -> None:
        self._columns = {column: array(code) for column, code in _TYPECODES.items()}
        self._columns["offsets"].append(0)
        self._end = 0
        self._opened = ExitStack()
        self._files: dict[str, BinaryIO] = {}
        if folder is not None:
            self._files = {
                column: self._opened.enter_context(_path(folder, name, column).open("wb")) for column in _COLUMNS
            }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._opened:
            if error is None:
                self._write()

    def add(self, ids: list[int], answer_start: int, side: Side) -> None:
        """Takes the next example; one without ids holds the place of an example that has none."""
        self._end += len(ids)
        self._columns["ids"].extend(ids)
        self._columns["offsets"].append(self._end)
        self._columns["answer_start"].append(answer_start)
        self._columns["side"].append(SIDES.index(side))
        if len(self._columns["ids"]) + len(self._columns["side"]) >= _SPOOL:
            self._write()

    def in_memory(self, cut: Cut) -> EncodedSet:
        """What was added to a writer without a folder."""
        return EncodedSet(cut, *(np.array(self._columns[column], kind) for column, kind in _COLUMNS.items()))

    def _write(self) -> None:
        for column, file in self._files.items():
            file.write(np.array(self._columns[column], _COLUMNS[column]).tobytes())
            del self._columns[column][:]


def _path(folder: Path, name: str, column: str) -> Path:
    return folder / f"{name}.{column}.bin"


def _mapped(path: Path, kind: str) -> npt.NDArray[Any]:
    """A file as an array; an empty file cannot be mapped."""
    return np.memmap(path, kind, mode="r") if path.stat().st_size else np.zeros(0, kind)

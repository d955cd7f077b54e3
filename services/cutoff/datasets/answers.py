"""True answers of a job's answers file, looked up on disk: the file may be as large as the data."""

from __future__ import annotations

from array import array
from contextlib import ExitStack
from typing import IO, Self

import numpy as np

from cutoff.datasets.examples import Faults
from cutoff.datasets.job_files import DataFile
from cutoff.datasets.read import add_second_answer, stream_answers, value_at
from cutoff.datasets.row_index import repeated, text_hash


class Answers:
    """Answers by instruction; use as a context manager, which closes the file.

    Args:
        file: The answers file; without one there are no answers.
        faults: Hears what is wrong with it.
    """

    def __init__(self, file: DataFile | None, faults: Faults) -> None:
        self._opened = ExitStack()
        self._reader: IO[bytes] | None = None
        hashes, offsets, numbers = array("Q"), array("q"), array("I")
        if file is not None:
            for line, instruction, _ in stream_answers(file.path, faults, file.name):
                hashes.append(text_hash(instruction))
                offsets.append(line.offset)
                numbers.append(line.number)
        if file is not None and len(hashes):
            self._reader = self._opened.enter_context(file.path.open("rb"))
        order = np.argsort(np.array(hashes, np.uint64), kind="stable")
        self._hashes, self._offsets = np.array(hashes, np.uint64)[order], np.array(offsets, np.int64)[order]
        for places in repeated(np.array(hashes, np.uint64)):
            first: dict[str, str] = {}
            for place in places.tolist():
                instruction, answer = self._read(offsets[place])
                if first.setdefault(instruction, answer) != answer and file is not None:
                    add_second_answer(faults, f"{file.name}:{numbers[place]}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def get(self, instruction: str) -> str | None:
        """The answer to exactly this question."""
        if self._reader is None:
            return None
        wanted = text_hash(instruction)
        place = int(np.searchsorted(self._hashes, np.uint64(wanted)))
        while place < len(self._hashes) and self._hashes[place] == wanted:
            found, answer = self._read(int(self._offsets[place]))
            if found == instruction:
                return answer
            place += 1
        return None

    def _read(self, offset: int) -> tuple[str, str]:
        assert self._reader is not None
        value = value_at(self._reader, offset)
        return str(value.get("instruction")).strip(), str(value.get("answer")).strip()

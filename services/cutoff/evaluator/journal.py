"""Answers on disk as they come, so that an evaluation that was killed goes on where it stopped.

A journal is JSON lines. The first names what was asked of whom, as a digest of the model's content, the questions and
the settings: answers are only ever taken over by an evaluation of the same digest. The others are one answer each,
written with one system call, so that a kill leaves whole lines; a line torn by a crash of the machine is dropped.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import cutoff
from cutoff.artifacts import publishing
from cutoff.errors import Refused
from cutoff.evaluator.targets import Reply

ANSWERS = "answers.jsonl"
"""The journal's name in an attempt's folder; it is removed once examples.jsonl is published."""

_SYNC_SECONDS = 2.0
"""So much work is lost, at most, when the machine loses power; a killed process loses none."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an evaluation keeps its answers, and where earlier ones may lie."""

    path: Path
    model: str
    """What is asked, by content: see `cutoff.evaluator.identity`."""
    earlier: Sequence[Path] = ()
    """Journals of earlier attempts, the newest first; they are read, never written."""


class Journal:
    """An open journal; `open_journal` makes one.

    Args:
        file: At its end, where answers are added.
        answered: The questions whose answers are in it, by index.
    """

    def __init__(self, file: BinaryIO, answered: set[int]) -> None:
        self.answered = answered
        self._file = file
        self._synced = time.monotonic()

    def add(self, index: int, question: str, reply: Reply) -> None:
        """Writes one answer."""
        line = {"index": index, "question": question, "got": reply.text, "cut": reply.cut}
        _append(self._file, line)
        self.answered.add(index)
        if time.monotonic() - self._synced > _SYNC_SECONDS:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()

    def replies(self) -> dict[int, Reply]:
        """All answers, by the index of their question."""
        self._file.seek(0)
        return {line["index"]: Reply(line["got"], line["cut"]) for line, _ in _lines(self._file) if "index" in line}


def digest(model: str, questions: Sequence[str], max_tokens: int) -> str:
    """What decides about answers: the model, what it is asked, how long it may answer, and this version of cutoff."""
    content = json.dumps([cutoff.__version__, model, max_tokens, list(questions)], ensure_ascii=False)
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()


@contextmanager
def open_journal(place: Place, wanted: str) -> Iterator[Journal]:
    """Opens the journal of an evaluation, with the answers that an earlier one of the same digest left.

    Raises:
        Refused: Another evaluation is writing it.
    """
    found = next((path for path in (place.path, *place.earlier) if _digest_of(path) == wanted), None)
    if found not in (None, place.path):
        with publishing(place.path) as partial:
            partial.write_bytes(found.read_bytes())
    place.path.parent.mkdir(parents=True, exist_ok=True)
    with place.path.open("a+b") as file:
        _lock(file, place.path)
        if found is None:
            file.truncate(0)
            _append(file, {"digest": wanted})
        yield Journal(file, _recover(file))
        os.fsync(file.fileno())


def _recover(file: BinaryIO) -> set[int]:
    """The questions answered so far; cuts off a line that was not written to its end."""
    answered, good = set(), 0
    file.seek(0)
    for line, end in _lines(file):
        good = end
        if "index" in line:
            answered.add(line["index"])
    file.truncate(good)
    return answered


def _lines(file: BinaryIO) -> Iterator[tuple[dict[str, Any], int]]:
    """Yields whole lines and the offsets of their ends."""
    end = 0
    for raw in file:
        end += len(raw)
        try:
            line = json.loads(raw)
        except ValueError:
            return
        if not raw.endswith(b"\n") or not isinstance(line, dict):
            return
        yield line, end


def _append(file: BinaryIO, line: dict[str, Any]) -> None:
    """Adds one line in one system call."""
    file.write((json.dumps(line, ensure_ascii=False) + "\n").encode("utf-8", "replace"))
    file.flush()


def _digest_of(path: Path) -> str | None:
    """The digest a journal begins with; None for no journal."""
    try:
        with path.open("rb") as file:
            return next((str(line.get("digest")) for line, _ in _lines(file)), None)
    except FileNotFoundError:
        return None


def _lock(file: BinaryIO, path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise Refused(f"another evaluation is writing {path}", "wait for it, or choose another output") from error

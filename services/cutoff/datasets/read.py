"""Reads the JSONL files of the user's document, line by line, and names every fault of every line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

from cutoff.datasets.examples import SIDES, Example, Faults, Side
from cutoff.datasets.fields import example_of, text_of
from cutoff.datasets.file_format import other_format
from cutoff.errors import Refused

MAX_LINE_BYTES = 16 << 20
"""A longer line is no example but a file without line ends; it is not read into memory."""

_BOM = b"\xef\xbb\xbf"

_A: Mapping[Side, str] = {"retain": "a retain", "unlearn": "an unlearn"}


OnLine = Callable[[int], None]
"""Told how many bytes of a file lie before the line that is read next."""


class Line(NamedTuple):
    """A line that holds a JSON object, and where it stands."""

    number: int
    """From 1."""
    offset: int
    """Bytes of the file before it: with `value_at`, the way back to it."""
    value: Mapping[str, Any]


def read_examples(path: Path, faults: Faults, name: str = "", side: Side | None = None) -> list[Example]:
    """Reads the examples of one file; what is wrong goes to `faults`, and those lines are left out.

    Args:
        path: The file.
        faults: Collects what is wrong.
        name: What the file is called in faults and sources; its path by default.
        side: Which side the file's lines are on, when the file says so. Without it every line needs
            metadata.dataset_type.
    """
    return [example for _, example in stream_examples(path, faults, name, side)]


def stream_examples(
    path: Path, faults: Faults, name: str = "", side: Side | None = None, on_line: OnLine | None = None
) -> Iterator[tuple[Line, Example]]:
    """Yields what `read_examples` returns, each example with its line, and holds one line at a time."""
    name = name or str(path)
    before, found, strays = faults.count, 0, Strays()
    for line in read_lines(path, faults, name):
        if on_line is not None:
            on_line(line.offset)
        example = example_of(line.value, f"{name}:{line.number}", side, faults)
        if example is None:
            continue
        found += 1
        if side is not None and example.side != side:
            strays.add(line.number)
        else:
            yield line, example
    if side is not None and strays.count:
        strays.tell(name, side, found, faults)
    if not found and faults.count == before:
        faults.add(name, "is empty", 'write one JSON object a line: {"instruction": ..., "output": ...}')


@dataclass(slots=True)
class Strays:
    """Lines that say they are of the other side than their file."""

    count: int = 0
    first: int = 0

    def add(self, number: int) -> None:
        """Notes a line by its number."""
        self.count += 1
        self.first = self.first or number

    def tell(self, name: str, side: Side, total: int, faults: Faults) -> None:
        """Makes one fault of them: files that were mixed up have as many as lines."""
        other = SIDES[1 - SIDES.index(side)]
        what = f"is {other}, but the file is the {side} side's"
        fix = f"move the line to {_A[other]} file"
        if self.count == 1:
            faults.add(f"{name}:{self.first}: metadata.dataset_type", what, fix)
            return
        what = (
            f"is {other} in {self.count} of {total} lines, from line {self.first} on, but the file is the {side} side's"
        )
        fix = f"give the file as the {other} side's, or move the lines to {_A[other]} file"
        faults.add(f"{name}: metadata.dataset_type", what, fix)


def read_answers(path: Path, faults: Faults, name: str = "") -> dict[str, str]:
    """Reads the answers file: JSONL lines {"instruction": ..., "answer": ...}. Returns answers by instruction."""
    answers: dict[str, str] = {}
    for line, instruction, answer in stream_answers(path, faults, name):
        if answers.setdefault(instruction, answer) != answer:
            add_second_answer(faults, f"{name or path}:{line.number}")
    return answers


def stream_answers(path: Path, faults: Faults, name: str = "") -> Iterator[tuple[Line, str, str]]:
    """Yields line, instruction and answer of each line of an answers file."""
    name = name or str(path)
    before, found = faults.count, False
    for line in read_lines(path, faults, name):
        where = f"{name}:{line.number}"
        instruction = text_of(line.value, "instruction", where, faults)
        answer = text_of(line.value, "answer", where, faults)
        if instruction is not None and answer is not None:
            found = True
            yield line, instruction, answer
    if not found and faults.count == before:
        faults.add(name, "is empty", 'write one JSON object a line: {"instruction": ..., "answer": ...}')


def add_second_answer(faults: Faults, where: str) -> None:
    """Notes a line of an answers file that contradicts one before it."""
    faults.add(where, "gives another answer to a question that was answered above", "keep one of the two")


def read_lines(path: Path, faults: Faults, name: str) -> Iterator[Line]:
    """Yields each line that holds a JSON object; blank lines are skipped. A file of another format is one fault."""
    try:
        with path.open("rb") as file:
            other = other_format(path, file.peek())
            if other is not None:
                faults.add(name, *other)
                return
            for number, offset, line in _lines(file):
                value = _object(line, f"{name}:{number}", faults)
                if value is not None:
                    yield Line(number, offset, value)
    except (FileNotFoundError, NotADirectoryError):
        faults.add(name, "is not there", f"put the file at {path.absolute()}, or give another path")
    except IsADirectoryError:
        faults.add(name, "is a folder", "give the path of a JSONL file")
    except OSError as error:
        faults.add(name, f"cannot be read: {error.strerror}", "check the file and its permissions")


def value_at(file: IO[bytes], offset: int) -> Mapping[str, Any]:
    """The object of a line that was read before and held one.

    Raises:
        Refused: It holds none any more.
    """
    file.seek(offset)
    value = _object(file.readline(MAX_LINE_BYTES + 1).removeprefix(_BOM), "", Faults())
    if value is None:
        raise Refused(f"{file.name} changed while it was read", "start again once it is complete")
    return value


def _lines(file: IO[bytes]) -> Iterator[tuple[int, int, bytes]]:
    """Line numbers from 1, offsets and lines; of a line that is too long only its beginning."""
    number = offset = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        begin, rest = offset, line
        offset += len(line)
        while len(rest) > MAX_LINE_BYTES and not rest.endswith(b"\n"):
            rest = file.readline(MAX_LINE_BYTES + 1)
            offset += len(rest)
        if number == 1:
            line = line.removeprefix(_BOM)
        if line.strip():
            yield number, begin, line


def _object(line: bytes, where: str, faults: Faults) -> Mapping[str, Any] | None:
    if len(line) > MAX_LINE_BYTES:
        faults.add(where, f"is longer than {MAX_LINE_BYTES >> 20} MiB", "write one JSON object a line")
        return None
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        faults.add(where, f"is not UTF-8 (byte {error.start + 1})", "save the file as UTF-8")
        return None
    text = text.rstrip()
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        faults.add(where, *_no_json(error, text))
        return None
    if not isinstance(value, dict):
        faults.add(where, "is not a JSON object", 'write {"instruction": ..., "output": ...}')
        return None
    return value


def _no_json(error: Exception, text: str) -> tuple[str, str]:
    """What is wrong with a line that is no JSON, and what to do; the parser's own words end in the middle."""
    one_object = "write one JSON object a line, with double quotes"
    if isinstance(error, RecursionError):
        return "is not JSON: it is nested too deeply", one_object
    if not isinstance(error, json.JSONDecodeError):
        return "is not JSON: it holds a number of too many digits", one_object
    if error.msg.startswith("Unterminated string"):
        return f"breaks off in the text that begins at column {error.colno}", "is the line complete?"
    if error.msg.startswith("Invalid control character"):
        what = f"holds a raw control character at column {error.colno}"
        return what, r"write tabs as \t and line ends as \n"
    if error.msg == "Extra data":
        return f"goes on after the object's end, at column {error.colno}", "write one JSON object a line"
    if error.pos >= len(text):
        return f"breaks off at column {error.colno}", "is the line complete?"
    said = error.msg.removesuffix(" at")
    return f"is not JSON: {said[0].lower()}{said[1:]} at column {error.colno}", one_object

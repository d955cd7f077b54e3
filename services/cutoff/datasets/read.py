"""Reads the JSONL files of the user's document, line by line, and names every fault of every line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

from cutoff.datasets.examples import SIDES, Example, Faults, Side
from cutoff.errors import Refused

MAX_LINE_BYTES = 16 << 20
"""A longer line is no example but a file without line ends; it is not read into memory."""

_BOM = b"\xef\xbb\xbf"


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
    before, found = faults.count, False
    for line in read_lines(path, faults, name):
        if on_line is not None:
            on_line(line.offset)
        example = example_of(line.value, f"{name}:{line.number}", side, faults)
        if example is not None:
            found = True
            yield line, example
    if not found and faults.count == before:
        faults.add(name, "is empty", 'write one JSON object a line: {"instruction": ..., "output": ...}')


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
        instruction = _text(line.value, "instruction", where, faults)
        answer = _text(line.value, "answer", where, faults)
        if instruction is not None and answer is not None:
            found = True
            yield line, instruction, answer
    if not found and faults.count == before:
        faults.add(name, "is empty", 'write one JSON object a line: {"instruction": ..., "answer": ...}')


def add_second_answer(faults: Faults, where: str) -> None:
    """Notes a line of an answers file that contradicts one before it."""
    faults.add(where, "gives another answer to a question that was answered above", "keep one of the two")


def read_lines(path: Path, faults: Faults, name: str) -> Iterator[Line]:
    """Yields each line that holds a JSON object; blank lines are skipped."""
    try:
        with path.open("rb") as file:
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
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        problem = error.msg if isinstance(error, json.JSONDecodeError) else "cannot be read"
        faults.add(where, f"is not JSON: {problem}", "write one JSON object a line, with double quotes")
        return None
    if not isinstance(value, dict):
        faults.add(where, "is not a JSON object", 'write {"instruction": ..., "output": ...}')
        return None
    return value


def example_of(value: Mapping[str, Any], where: str, side: Side | None, faults: Faults) -> Example | None:
    """The example of one line, or None when anything in it is wrong."""
    before = faults.count
    instruction = _text(value, "instruction", where, faults)
    output = _text(value, "output", where, faults)
    metadata = value.get("metadata")
    if metadata is None:
        metadata = {}
    if not isinstance(metadata, dict):
        faults.add(f"{where}: metadata", "is not an object", 'write "metadata": {"dataset_type": ...}')
        return None
    own_side = _side(metadata, where, side, faults)
    year = _year(metadata, where, faults)
    original = _original_answer(metadata, where, faults)
    if faults.count > before or instruction is None or output is None or own_side is None:
        return None
    return Example(instruction, output, own_side, where, year, original)


def _text(value: Mapping[str, Any], field: str, where: str, faults: Faults) -> str | None:
    """A field that must hold text, without the blanks around it."""
    if field not in value:
        faults.add(f"{where}: {field}", "is missing", f'add "{field}": "..."')
    elif not isinstance(value[field], str):
        faults.add(f"{where}: {field}", f"is {_kind(value[field])}, not text", "put it in double quotes")
    elif not value[field].strip():
        faults.add(f"{where}: {field}", "is empty", "fill it in, or remove the line")
    elif not _encodable(value[field]):
        faults.add(
            f"{where}: {field}", "holds half of a surrogate pair", r"write the whole character, not \uD8xx alone"
        )
    else:
        return str(value[field].strip())
    return None


def _side(metadata: Mapping[str, Any], where: str, side: Side | None, faults: Faults) -> Side | None:
    given = metadata.get("dataset_type")
    field = f"{where}: metadata.dataset_type"
    if given is None:
        if side is None:
            faults.add(field, "is missing", 'a mixed file needs "dataset_type": "retain" or "unlearn" in each line')
        return side
    known = next((one for one in SIDES if one == given), None)
    if known is None:
        faults.add(field, f"is {json.dumps(given)[:40]}", 'use "retain" or "unlearn"')
    elif side is not None and known != side:
        faults.add(field, f"is {known}, but the file is the {side} side's", f"move the line to a {known} file")
    return known


def _year(metadata: Mapping[str, Any], where: str, faults: Faults) -> int | None:
    """metadata.year as a whole number; text of digits is taken for one."""
    given = metadata.get("year")
    if given is None or given == "":
        return None
    if isinstance(given, int) and not isinstance(given, bool):
        return given
    if isinstance(given, float) and given.is_integer():
        return int(given)
    if isinstance(given, str) and given.strip().lstrip("-").isascii() and given.strip().lstrip("-").isdigit():
        return int(given.strip()[:10])
    faults.add(f"{where}: metadata.year", f"is {_kind(given)}, not a year", "write it as a number, or leave it out")
    return None


def _original_answer(metadata: Mapping[str, Any], where: str, faults: Faults) -> str | None:
    given = metadata.get("original_answer")
    if given is None or (isinstance(given, str) and not given.strip()):
        return None
    if isinstance(given, str) and _encodable(given):
        return given.strip()
    faults.add(
        f"{where}: metadata.original_answer", f"is {_kind(given)}, not text", "write it as text, or leave it out"
    )
    return None


def _kind(value: object) -> str:
    """What a JSON value is, in a person's words."""
    if isinstance(value, bool):
        return "true or false"
    names = {str: "text", int: "a number", float: "a number", list: "a list", dict: "an object", type(None): "null"}
    return names[type(value)]


def _encodable(text: str) -> bool:
    r"""Whether text can be written as UTF-8; JSON's \uD8xx alone cannot."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True

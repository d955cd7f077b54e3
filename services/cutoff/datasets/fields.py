"""The fields of one line: what each of them must be, and what is said where it is not."""

from __future__ import annotations

import difflib
import json
import unicodedata
from collections.abc import Mapping
from typing import Any

from cutoff.datasets.examples import SIDES, Example, Faults, Side

_FIELDS = ("instruction", "output", "answer", "metadata")
_INVISIBLE = ("Cc", "Cf", "Zs", "Zl", "Zp")
"""Unicode's categories of controls, formats and blanks."""


def example_of(value: Mapping[str, Any], where: str, side: Side | None, faults: Faults) -> Example | None:
    """The example of one line, or None when anything in it is wrong."""
    before = faults.count
    instruction = text_of(value, "instruction", where, faults)
    output = text_of(value, "output", where, faults)
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


def text_of(value: Mapping[str, Any], field: str, where: str, faults: Faults) -> str | None:
    """A field that must hold text, without the blanks around it."""
    if field not in value:
        faults.add(f"{where}: {field}", "is missing", _instead_of(field, value))
        return None
    text = value[field]
    if text is None:
        wrong = ("is null, not text", "fill it in, or remove the line")
    elif not isinstance(text, str):
        several = isinstance(text, list | dict)
        fix = "write one text in double quotes" if several else "put it in double quotes"
        wrong = (f"is {_kind(text)}, not text", fix)
    elif not text.strip():
        wrong = ("is empty", "fill it in, or remove the line")
    elif not _encodable(text):
        wrong = ("holds half of a surrogate pair", r"write the whole character, not \uD8xx alone")
    elif not _visible(text):
        wrong = ("holds only invisible characters", "fill it in, or remove the line")
    elif "\0" in text:
        wrong = (f"holds a NUL character (character {text.index(chr(0)) + 1})", r"remove the \u0000")
    else:
        return text.strip()
    faults.add(f"{where}: {field}", *wrong)
    return None


def _instead_of(field: str, value: Mapping[str, Any]) -> str:
    """What to do about a field that lacks: there may be one of nearly its name."""
    names = {name.strip().casefold(): name for name in value if name not in _FIELDS}
    nearest = difflib.get_close_matches(field, names, n=1, cutoff=0.65)
    return f'did you mean it by "{names[nearest[0]]}"?' if nearest else f'add "{field}": "..."'


def _side(metadata: Mapping[str, Any], where: str, side: Side | None, faults: Faults) -> Side | None:
    """The side a line says it is on; the file's where it says none."""
    given = metadata.get("dataset_type")
    field = f"{where}: metadata.dataset_type"
    if given is None:
        if side is None:
            faults.add(field, "is missing", 'a mixed file needs "dataset_type": "retain" or "unlearn" in each line')
        return side
    known = next((one for one in SIDES if one == given), None)
    if known is None:
        faults.add(field, f"is {json.dumps(given)[:40]}", 'use "retain" or "unlearn"')
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
    shown = str(given).replace("nan", "NaN") if isinstance(given, float) else _kind(given)
    faults.add(f"{where}: metadata.year", f"is {shown}, not a year", "write a whole number, or leave it out")
    return None


def _original_answer(metadata: Mapping[str, Any], where: str, faults: Faults) -> str | None:
    given = metadata.get("original_answer")
    if given is None or (isinstance(given, str) and not _visible(given)):
        return None
    if isinstance(given, str) and _encodable(given) and "\0" not in given:
        return given.strip()
    what = "holds what is no text" if isinstance(given, str) else f"is {_kind(given)}, not text"
    faults.add(f"{where}: metadata.original_answer", what, "write it as text, or leave it out")
    return None


def _kind(value: object) -> str:
    """What a JSON value is, in a person's words."""
    if isinstance(value, bool):
        return "true or false"
    names = {str: "text", int: "a number", float: "a number", list: "a list", dict: "an object", type(None): "null"}
    return names[type(value)]


def _visible(text: str) -> bool:
    """Whether there is anything to be seen: a zero-width space is no blank to `strip`, and nothing to a reader."""
    return any(not char.isspace() and unicodedata.category(char) not in _INVISIBLE for char in text)


def _encodable(text: str) -> bool:
    r"""Whether text can be written as UTF-8; JSON's \uD8xx alone cannot."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True

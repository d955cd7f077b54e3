"""Recognises files that are no JSONL at all, so that they are one fault with a command, and not one for every line."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path

_PARQUET = (
    'python3 -c "import pandas, sys; '
    "pandas.read_parquet(sys.argv[1]).to_json(sys.argv[2], orient='records', lines=True, force_ascii=False)\" "
    "{path} {new}"
)
_PACKED: Mapping[bytes, tuple[str, str]] = {
    b"\x1f\x8b": ("gzip", "gunzip -c {path} > {new}"),
    b"BZh": ("bzip2", "bunzip2 -c {path} > {new}"),
    b"\xfd7zXZ\x00": ("xz", "xz -dc {path} > {new}"),
    b"\x28\xb5\x2f\xfd": ("Zstandard", "zstd -dc {path} > {new}"),
    b"PK\x03\x04": ("ZIP", "unzip -p {path} > {new}"),
    b"PAR1": (
        "Parquet",
        _PARQUET,
    ),
}
"""What files of a format begin with, its name, and what makes text of them."""

_MARKED = ((b"\xff\xfe\0\0", "UTF-32"), (b"\0\0\xfe\xff", "UTF-32"), (b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16"))
"""Byte order marks, the longer ones first."""

_UNMARKED: Mapping[tuple[bool, ...], str] = {
    (True, True, True, False): "UTF-32BE",
    (False, True, True, True): "UTF-32LE",
    (True, False, True, False): "UTF-16BE",
    (False, True, False, True): "UTF-16LE",
}
"""Which of the first four bytes are zero: JSON begins with two ASCII characters (RFC 4627, section 3)."""

_ICONV = "iconv -f {encoding} -t UTF-8 {path} > {new}"
_ARRAY = 'python3 -c "import json, sys; [print(json.dumps(each)) for each in json.load(sys.stdin)]" < {path} > {new}'
_OBJECTS = "jq -c . {path} > {new}"
_CSV = (
    'python3 -c "import csv, json, sys; [print(json.dumps(each)) for each in csv.DictReader('
    "open(sys.argv[1], encoding='utf-8-sig', newline=''), delimiter={delimiter})]\" {path} > {new}"
)
_DELIMITERS = ",;\t"


def other_format(path: Path, head: bytes) -> tuple[str, str] | None:
    """What a file is instead of JSONL, and the command that makes JSONL of it; None where it may be JSONL.

    Args:
        path: Names the file in the command.
        head: Its first bytes, some thousand of them or all.
    """
    found = _packed(head) or _encoded(head) or _laid_out(head)
    if found is None:
        return None
    what, command = found
    new = path.with_name(f"{path.stem.removesuffix('.jsonl')}.converted.jsonl")
    command = command.replace("{path}", shlex.quote(str(path))).replace("{new}", shlex.quote(str(new)))
    return what, f"convert it, and give the new file: {command}"


def _packed(head: bytes) -> tuple[str, str] | None:
    for magic, (name, command) in _PACKED.items():
        if head.startswith(magic):
            return f"looks like {name}, not like text", command
    return None


def _encoded(head: bytes) -> tuple[str, str] | None:
    """Text in units of two or four bytes, with or without a mark at its beginning."""
    encoding = next((name for mark, name in _MARKED if head.startswith(mark)), None)
    encoding = encoding or _UNMARKED.get(tuple(byte == 0 for byte in head[:4]))
    if encoding is None:
        return None
    return f"looks like {encoding[:6]}, not like UTF-8", _ICONV.replace("{encoding}", encoding)


def _laid_out(head: bytes) -> tuple[str, str] | None:
    """JSON that is not one object a line, and tables."""
    text = head.decode("utf-8-sig", "replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines or any(_is_object(line) for line in lines[1:]):
        return None
    first = lines[0]
    if first.startswith("["):
        return "is one JSON array, not one JSON object a line", _ARRAY
    if first == "{" or (first.startswith("{") and lines[1:] and lines[1].startswith('"')):
        return "holds JSON objects that are spread over several lines", _OBJECTS
    delimiter = next((each for each in _DELIMITERS if each in first), None)
    if delimiter and "{" not in text and len(lines) > 1:
        what = (
            f"looks like CSV, not like JSON: its first line, which must name instruction and output, is {first[:60]!r}"
        )
        return what, _CSV.replace("{delimiter}", repr(delimiter))
    return None


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False

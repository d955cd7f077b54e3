"""Reads a YAML file whose keys stand once each: the library's own reader silently keeps the last of several."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from cutoff.errors import Fault, InvalidInput, NotFound


def read_yaml(path: Path) -> dict[str, Any]:
    """The fields of a file.

    Raises:
        NotFound: There is no such file.
        InvalidInput: It is not YAML, holds no fields, or a key twice; every such key is named.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError) as error:
        raise NotFound(f"{path} is not a file", "give the path of a job.yaml") from error
    except UnicodeDecodeError as error:
        raise InvalidInput([Fault(str(path), "is not UTF-8", "save it as UTF-8")]) from error
    data = _parsed(text, path)
    if not isinstance(data, dict):
        fix = "begin with `name:`, `base_model:` and `dataset:`"
        raise InvalidInput([Fault(str(path), "holds no fields", fix)])
    return data


def _parsed(text: str, path: Path) -> Any:
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        faults = [Fault(f"{path}: {key}", what, "keep one of them") for key, what in _repeated_keys(root)]
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "cannot be read"
        raise InvalidInput([Fault(where, f"is not YAML: {problem}", "check indentation and quotes")]) from error
    except RecursionError as error:
        what = "is not YAML: it is nested too deeply"
        raise InvalidInput([Fault(str(path), what, "check brackets and indentation")]) from error
    except ValueError as error:  # a date no calendar has
        raise InvalidInput([Fault(str(path), f"is not YAML: {error}", "write dates as 1969-12-31")]) from error
    if faults:
        raise InvalidInput(faults)
    return data


def _repeated_keys(root: yaml.Node | None) -> Iterator[tuple[str, str]]:
    """The path of each key that stands more than once in its mapping, and where it stands."""
    seen: set[int] = set()

    def below(node: yaml.Node | None, path: tuple[str, ...]) -> Iterator[tuple[str, str]]:
        if id(node) in seen:  # an alias: the node stands elsewhere, and was looked at there
            return
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            lines: dict[str, list[int]] = {}
            for key, value in node.value:
                name = str(key.value)
                lines.setdefault(name, []).append(key.start_mark.line + 1)
                yield from below(value, (*path, name))
            for name, stands in lines.items():
                if len(stands) > 1:
                    yield ".".join((*path, name)), _standing(stands)
        elif isinstance(node, yaml.SequenceNode):
            for number, item in enumerate(node.value):
                yield from below(item, (*path, str(number)))

    return below(root, ())


def _standing(lines: list[int]) -> str:
    times = "twice" if len(lines) == 2 else f"{len(lines)} times"
    if len(set(lines)) == 1:
        return f"stands {times} ({'both' if len(lines) == 2 else 'all'} in line {lines[0]})"
    return f"stands {times} (lines {', '.join(map(str, lines[:-1]))} and {lines[-1]})"

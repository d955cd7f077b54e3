"""Are the values of an adapter_config.json of the kinds that a merge reads? All that are not, at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cutoff.errors import Fault

_FIX = "give the adapter_config.json that training wrote"


def is_count(value: object) -> bool:
    """Whether it is a whole number from 1."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_COUNT, _NUMBER = "a whole number from 1", "a number"


def setting_faults(path: Path, config: Mapping[str, Any]) -> Iterator[Fault]:
    """Everything that is wrong with the values of a LoRA adapter's configuration.

    Args:
        path: Its file.
        config: What is in it.
    """
    yield from (Fault(str(path), what, _FIX) for what in _wrong(config))


def _wrong(config: Mapping[str, Any]) -> Iterator[str]:
    if not is_count(config.get("r")):
        yield f"r is {_shown(config.get('r'))}, where {_COUNT} is needed"
    if not _is_number(config.get("lora_alpha")):
        yield f"lora_alpha is {_shown(config.get('lora_alpha'))}, where {_NUMBER} is needed"
    yield from _wrong_patterns("rank_pattern", config.get("rank_pattern"), is_count, _COUNT)
    yield from _wrong_patterns("alpha_pattern", config.get("alpha_pattern"), _is_number, _NUMBER)
    for name in ("target_modules", "exclude_modules"):
        value = config.get(name)
        if isinstance(value, str):
            if not _is_regex(value):
                yield f"{name} is {value!r}, which is no regular expression"
        elif not _is_names(value):
            yield f"{name} is {value!r}, where names or a regular expression are needed"
    if not _is_names(config.get("modules_to_save")):
        yield f"modules_to_save is {config['modules_to_save']!r}, where names are needed"
    layers = config.get("layers_to_transform")
    if not all(isinstance(each, int) for each in (layers if isinstance(layers, list) else [layers or 0])):
        yield f"layers_to_transform is {layers!r}, where numbers of layers are needed"


def _wrong_patterns(name: str, patterns: object, fits: Callable[[object], bool], kind: str) -> Iterator[str]:
    if patterns is None:
        return
    if not isinstance(patterns, dict):
        yield f"{name} is {patterns!r}, where patterns with their numbers are needed"
        return
    for pattern, value in patterns.items():
        if not _is_regex(pattern):
            yield f"{name} has {pattern!r}, which is no regular expression"
        if not fits(value):
            yield f"{name} gives {pattern} {_shown(value)}, where {kind} is needed"


def _is_names(value: object) -> bool:
    return value is None or (isinstance(value, list) and all(isinstance(each, str) for each in value))


def _is_regex(text: str) -> bool:
    try:
        re.compile(text)
    except re.error:
        return False
    return True


def _shown(value: object) -> str:
    return "nothing" if value is None else repr(value)

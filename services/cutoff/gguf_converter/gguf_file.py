"""Reads a GGUF back: a file that is damaged or cut short is found here, not by a user."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cutoff.errors import CheckFailed, NotFound

_AGAIN = "convert again, and check the disk"


@dataclass(frozen=True, slots=True)
class GgufFacts:
    """What a complete GGUF says about itself."""

    architecture: str
    tensors: int
    vocabulary: int
    """How many tokens there are."""
    context: int
    """The longest text the model was trained for, in tokens; 0 when the file does not say."""
    has_template: bool
    size_bytes: int


def read_gguf(path: Path) -> GgufFacts:
    """Reads metadata and tensor table, and holds the file's size against them.

    Raises:
        NotFound: There is no such file.
        CheckFailed: It is no GGUF, damaged, or cut short.
    """
    from gguf import GGUFReader  # imports numpy: not for a server process that only answers CheckInstall

    if not path.is_file():
        raise NotFound(f"{path} is not a file", "give the path of a GGUF")
    size = path.stat().st_size
    try:
        # Opening maps each tensor onto the file, so one that lies beyond its end fails here.
        reader = GGUFReader(path)
        end = max((int(tensor.data_offset + tensor.n_bytes) for tensor in reader.tensors), default=0)
        architecture = str(_field(reader, "general.architecture"))
        facts = GgufFacts(
            architecture=architecture,
            tensors=len(reader.tensors),
            vocabulary=len(reader.fields["tokenizer.ggml.tokens"].data),
            context=int(_field(reader, f"{architecture}.context_length") or 0),
            has_template=bool(_field(reader, "tokenizer.chat_template")),
            size_bytes=size,
        )
    except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
        raise CheckFailed(f"{path} is not a whole GGUF: {error}", _AGAIN) from error
    if not facts.tensors or size < end:
        raise CheckFailed(f"{path} is cut short: {size} bytes, {end} expected", _AGAIN)
    return facts


def chat_template(path: Path) -> str:
    """The chat template a GGUF carries; "" when it has none.

    Raises:
        NotFound, CheckFailed: As `read_gguf`.
    """
    from gguf import GGUFReader

    if not read_gguf(path).has_template:
        return ""
    return str(_field(GGUFReader(path), "tokenizer.chat_template"))


def _field(reader: Any, name: str) -> Any:
    field = reader.get_field(name)
    return None if field is None else field.contents()

"""Reads every tensor of a GGUF back with the `gguf` library, and compares it with the 16-bit file's.

A quantized weight differs from its source by about what its type loses. A row or a tensor that was cut, mixed up or
never written differs by as much as it is large: that is what the limits tell apart. Damage to a few weights of a row
may stay below them.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cutoff.errors import CheckFailed
from cutoff.llama_cpp import concurrently

_PIECE = 1 << 22
"""Weights compared together, by each thread."""

_LIMITS = ((16.0, 0.01), (8.0, 0.05), (6.0, 0.1), (5.0, 0.15), (4.0, 0.3), (3.0, 0.5), (2.0, 0.8))
"""Bits per weight of a tensor's type, and the relative error (root mean square) above which it is no rounding:
three to nine times what weights show that were trained."""

_LARGEST_LIMIT = 1.0
"""Of what has fewer bits, and of single rows: as wrong as zeros."""

_ROW = 3.0
"""Times a tensor's limit that one of its rows may differ by."""

_NEGLIGIBLE = 0.01
"""Of a tensor's root mean square: smaller rows (pruned ones, say) are held against this, not against their own size,
which may be less than a scale can hold."""

_AGAIN = "convert again, and check the disk and the memory of this machine"


@dataclass(frozen=True, slots=True)
class Compared:
    """What was found in one file."""

    tensors: int
    types: dict[str, int]
    """How many tensors there are of each type, the most frequent first."""
    weights: int
    bits_per_weight: float
    """Of all tensors, vectors included."""
    worst: str
    """The tensor that differs most from the 16-bit file's, for its size."""
    worst_error: float
    """Its difference, root mean square, as a share of its own root mean square."""


def read_tensors(path: Path, on_tensor: Callable[[int, int], None], whole: Path | None = None) -> Compared:
    """Reads all tensors of a file: their shapes, types, and every weight of them.

    Args:
        path: The file.
        on_tensor: Told (tensors done, tensors in all).
        whole: The 16-bit file to compare with; None only looks whether all weights are finite.

    Raises:
        CheckFailed: A tensor lacks or has another shape, holds a weight that is no number, or is not what it was
            made from; or the two files' tokenizers differ.
    """
    from gguf import GGUFReader

    try:
        reader, source = GGUFReader(path), GGUFReader(whole) if whole else None
    except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
        raise CheckFailed(f"{path.name} is not a whole GGUF: {error}", _AGAIN) from error
    if source is not None:
        _require_same_tables(path, reader, source)
    sources = {tensor.name: tensor for tensor in source.tensors} if source else {}

    def look_at(tensor: Any) -> float | CheckFailed:
        try:
            return _difference(path, tensor, sources.get(tensor.name))
        except CheckFailed as damaged:
            return damaged

    worst, worst_error = "", 0.0
    for done, (index, found) in enumerate(concurrently(look_at, reader.tensors, len(os.sched_getaffinity(0))), 1):
        if isinstance(found, CheckFailed):
            raise found
        if found > worst_error:
            worst, worst_error = str(reader.tensors[index].name), found
        on_tensor(done, len(reader.tensors))
    types = Counter(str(tensor.tensor_type.name) for tensor in reader.tensors)
    weights = sum(int(tensor.n_elements) for tensor in reader.tensors)
    size = sum(int(tensor.n_bytes) for tensor in reader.tensors)
    return Compared(len(reader.tensors), dict(types.most_common()), weights, 8 * size / weights, worst, worst_error)


def _require_same_tables(path: Path, reader: Any, source: Any) -> None:
    """Holds the tensors' names and shapes, and the vocabulary, against the 16-bit file's."""
    shapes, expected = (
        {str(tensor.name): tuple(int(size) for size in tensor.shape) for tensor in each.tensors}
        for each in (reader, source)
    )
    different = sorted(name for name in shapes.keys() | expected if shapes.get(name) != expected.get(name))
    if different:
        first = different[0]
        what = f"{first} is {shapes.get(first, 'missing')}, in the 16-bit file {expected.get(first, 'missing')}"
        raise CheckFailed(f"{len(different)} tensors of {path.name} are not the 16-bit file's: {what}", _AGAIN)
    for name in sorted(key for key in reader.fields.keys() | source.fields if key.startswith("tokenizer.")):
        if _content(reader, name) != _content(source, name):
            raise CheckFailed(f"{name} of {path.name} is not the 16-bit file's", _AGAIN)


def _content(reader: Any, name: str) -> bytes:
    field = reader.fields.get(name)
    return b"" if field is None else b"".join(part.tobytes() for part in field.parts)


def _difference(path: Path, tensor: Any, source: Any) -> float:
    """The relative error of a tensor; 0 without a source.

    Raises:
        CheckFailed: It holds a weight that is no number, or it or one of its rows differs by more than rounding.
    """
    import numpy as np

    columns = tensor.data.shape[-1]
    rows, references = tensor.data.reshape(-1, columns), None
    if source is not None:
        references = source.data.reshape(-1, source.data.shape[-1])
    step = max(1, _PIECE * len(rows) // max(1, int(tensor.n_elements)))
    wrong, sizes = np.zeros(len(rows)), np.zeros(len(rows))  # sums of squares of each row
    for at in range(0, len(rows), step):
        values = _floats(rows[at : at + step], tensor.tensor_type)
        squares = float(np.vdot(values, values))  # one pass: a sum of squares is finite only if all of them are
        if not math.isfinite(squares) and not np.isfinite(values).all():
            raise CheckFailed(f"{tensor.name} of {path.name} holds weights that are no numbers", _AGAIN)
        if references is not None:
            expected = _floats(references[at : at + step], source.tensor_type)
            sizes[at : at + step] = _squares(expected)
            values -= expected
            wrong[at : at + step] = _squares(values)
    size = float(sizes.sum())
    error = math.sqrt(float(wrong.sum()) / (size or 1.0))
    limit = _limit(tensor)
    _require_less(error, limit, str(tensor.name), path, tensor)
    least = _NEGLIGIBLE**2 * size / max(1, len(rows))
    errors = np.sqrt(wrong / np.maximum(sizes, least or 1.0))
    worst = int(errors.argmax()) if len(errors) else 0
    if len(errors) > 1:
        most = min(_ROW * limit, _LARGEST_LIMIT)
        _require_less(float(errors[worst]), most, f"row {worst} of {tensor.name}", path, tensor)
    return error


def _require_less(error: float, limit: float, what: str, path: Path, tensor: Any) -> None:
    if error >= limit:
        raise CheckFailed(
            f"{what} of {path.name} ({tensor.tensor_type.name}) is not what it was made from: it differs by "
            f"{error:.0%} of its size, and rounding makes less than {limit:.0%}",
            _AGAIN,
        )


def _squares(rows: Any) -> Any:
    """The sum of squares of each row."""
    import numpy as np

    return np.einsum("ij,ij->i", rows, rows)


def _floats(rows: Any, kind: Any) -> Any:
    """Rows of a tensor as 32-bit floats, in memory of their own."""
    import numpy as np
    from gguf.quants import dequantize

    if kind.name in ("F32", "F16"):
        return rows.astype(np.float32)
    return dequantize(rows, kind)


def _limit(tensor: Any) -> float:
    bits = 8 * int(tensor.n_bytes) / max(1, int(tensor.n_elements))
    return next((limit for least, limit in _LIMITS if bits >= least), _LARGEST_LIMIT)

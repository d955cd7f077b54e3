"""A model's weights, read where they lie in its safetensors files: how many, whether all are finite, how large."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cutoff.errors import CheckFailed, Refused
from cutoff.hub.base_model import check_model_folder, weight_files

_SLICE = 1 << 24
"""Weights looked at together."""

_BITS = {"F32": ("<u4", 0x7FFFFFFF, 0x7F800000), "BF16": ("<u2", 0x7FFF, 0x7F80), "F16": ("<u2", 0x7FFF, 0x7C00)}
"""By data type: how to read it, what takes the sign away, and where infinity and not-a-number begin. The magnitudes
of IEEE floats are ordered as their bits are, so that a maximum needs no arithmetic."""

_LARGEST_F16 = 65504.0


@dataclass(frozen=True, slots=True)
class Weights:
    """What a model's weights are like."""

    parameters: int
    """Tied ones count once."""
    largest: float
    """The largest magnitude in a matrix; vectors stay 32-bit floats in a GGUF."""
    largest_in: str
    """The tensor it is in."""

    @property
    def sixteen_bit(self) -> Literal["f16", "bf16"]:
        """The 16-bit type that holds them: f16 has three more bits of precision, bf16 the range of f32."""
        return "f16" if self.largest <= _LARGEST_F16 else "bf16"


def count_parameters(model: Path) -> int:
    """Checks that a model's folder is complete and counts its weights; tied ones count once.

    Raises:
        NotFound: There is no such folder.
        InvalidInput: Files lack or are cut short; all of them are named.
        Refused: The folder holds an adapter.
    """
    if (model / "adapter_config.json").is_file() and not (model / "config.json").is_file():
        raise Refused(f"{model} holds a LoRA adapter, not a whole model", "merge it first (merge_lora)")
    check_model_folder(model)
    return sum(math.prod(entry["shape"]) for path in weight_files(model) for _, entry, _ in _tensors(path))


def measure_weights(model: Path) -> Weights:
    """Reads every weight of a complete model folder once.

    Raises:
        CheckFailed: Weights are infinite or not a number; the tensor is named.
    """
    parameters, largest, largest_in = 0, 0.0, ""
    for path in weight_files(model):
        for name, entry, start in _tensors(path):
            parameters += math.prod(entry["shape"])
            magnitude = _largest_in(path, name, entry, start)
            if magnitude > largest and len(entry["shape"]) > 1:
                largest, largest_in = magnitude, name
    return Weights(parameters, largest, largest_in)


def _tensors(path: Path) -> Iterator[tuple[str, dict[str, Any], int]]:
    """The tensors of one file with the position of each; its layout is: header length (u64), header (JSON), data."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    for name, entry in header.items():
        if name != "__metadata__":
            yield name, entry, 8 + length + entry["data_offsets"][0]


def _largest_in(path: Path, name: str, entry: dict[str, Any], start: int) -> float:
    """The largest magnitude of one tensor; 0 for an empty one and for types that are no plain floats."""
    import numpy as np

    count = math.prod(entry["shape"])
    if entry["dtype"] not in _BITS or not count:
        return 0.0
    kind, unsigned, infinite = _BITS[entry["dtype"]]
    values = np.memmap(path, np.uint8, "r", start, count * np.dtype(kind).itemsize).view(kind)
    top = max(int((values[at : at + _SLICE] & unsigned).max()) for at in range(0, count, _SLICE))
    if top >= infinite:
        raise CheckFailed(
            f"{name} in {path} holds weights that are infinite or not a number",
            "merge again; if it is so in the adapter, the training diverged: lower train.learning_rate",
        )
    if entry["dtype"] == "F16":
        return float(np.array(top, "<u2").view("<f2"))
    return float(np.array(top << (16 if entry["dtype"] == "BF16" else 0), "<u4").view("<f4"))

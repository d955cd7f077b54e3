"""How large a model is, read from the headers of its safetensors files."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path

from cutoff.errors import Refused
from cutoff.hub.base_model import check_model_folder, weight_files


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
    return sum(_parameters_in(path) for path in weight_files(model))


def _parameters_in(path: Path) -> int:
    """The weights of one file, whose layout is: header length (u64), header (JSON), data."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")

"""The small files beside a merged model's weights: config.json and generation_config.json."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_GENERATION = "generation_config.json"
_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")


def write_config(folder: Path, base: Mapping[str, Any], dtype: str, tied: bool) -> None:
    """Writes config.json: the base's, with the merged model's type and what became of its embeddings.

    Code that a base model brings for itself (auto_map) stays behind: transformers knows these models without it.
    """
    dropped = ("torch_dtype", "auto_map", "_name_or_path")
    config = {name: value for name, value in base.items() if name not in dropped}
    config |= {"dtype": dtype, "tie_word_embeddings": tied}
    _write(folder / "config.json", config)


def carry_generation_config(base: Path, folder: Path, stop_id: int) -> None:
    """Takes the base's settings as they are, and lets generation stop where training taught the model to stop.

    Args:
        base: The base model's folder.
        folder: The merged model's; its config.json is there.
        stop_id: The end-of-turn token.
    """
    target = folder / _GENERATION
    if (base / _GENERATION).is_file():
        shutil.copyfile(base / _GENERATION, target)
    elif not target.is_file():
        model = json.loads((folder / "config.json").read_text("utf-8"))
        _write(target, {"_from_model_config": True} | {name: model[name] for name in _TOKENS if name in model})
    config = json.loads(target.read_text("utf-8"))
    ends = config.get("eos_token_id")
    ends = ends if isinstance(ends, list) else [] if ends is None else [ends]
    if stop_id not in ends:
        _write(target, {**config, "eos_token_id": [*ends, stop_id]})


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

"""The merge by peft itself, with the whole model in memory: for what the streaming merge does not know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from cutoff.errors import CheckFailed
from cutoff.merger.loading import load_adapted
from cutoff.merger.shards import SHARD_BYTES


def merge_with_peft(base: Path, adapter: Path, folder: Path, working: torch.dtype, target: torch.dtype) -> None:
    """Loads base and adapter, merges them and saves weights and configuration.

    Args:
        base: The base model's folder.
        adapter: The adapter's folder.
        folder: Where to; it exists.
        working: The type that is merged in.
        target: The type of what is written.

    Raises:
        CheckFailed: The merged model holds numbers that are none, or too large for its type.
        Refused: The base model cannot be loaded.
    """
    wider = "merge with --dtype bfloat16 (merge.dtype: bfloat16), which holds larger numbers"
    remedy = wider if target == torch.float16 else "train the adapter again with a lower learning rate"
    model: Any = load_adapted(base, adapter, working, "cpu")
    try:
        merged = model.merge_and_unload(safe_merge=True)
    except ValueError as error:  # peft's name for weights that are no numbers
        raise CheckFailed(f"base and adapter cannot be added: {error}", remedy) from error
    merged = merged.to(target)
    for name, weights in merged.named_parameters():
        if not torch.isfinite(weights).all():
            what = f"{name} holds numbers that {str(target).removeprefix('torch.')} cannot hold; nothing was published"
            raise CheckFailed(what, remedy)
    merged.generation_config = GenerationConfig.from_model_config(merged.config)  # the base's own may be refused
    merged.save_pretrained(str(folder), max_shard_size=SHARD_BYTES)

"""The merge by peft itself, with the whole model in memory: for what the streaming merge does not know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from cutoff.errors import CheckFailed
from cutoff.hub import load_causal_lm
from cutoff.merger.loading import put_on
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
        InvalidInput: The adapter lacks tensors that its configuration asks for.
        Refused: The base model cannot be loaded.
    """
    wider = "merge with --dtype bfloat16 (merge.dtype: bfloat16), which holds larger numbers"
    remedy = wider if target == torch.float16 else "train the adapter again with a lower learning rate"
    loaded: Any = load_causal_lm(base, working)
    untied = _untie(loaded)
    model = put_on(loaded, adapter)
    try:
        merged = model.merge_and_unload(safe_merge=True)
    except ValueError as error:  # peft's name for weights that are no numbers
        raise CheckFailed(f"base and adapter cannot be added: {error}", remedy) from error
    merged = merged.to(target)
    if untied:
        _tie_what_is_equal(merged)
    for name, weights in merged.named_parameters():
        if not torch.isfinite(weights).all():
            what = f"{name} holds numbers that {str(target).removeprefix('torch.')} cannot hold; nothing was published"
            raise CheckFailed(what, remedy)
    merged.generation_config = GenerationConfig.from_model_config(merged.config)  # the base's own may be refused
    merged.save_pretrained(str(folder), max_shard_size=SHARD_BYTES)


def _untie(model: Any) -> bool:
    """Gives a tied output embedding a tensor of its own: peft would add to both what training added to one of them.

    The configuration still says that they are one: from it peft tells which adapters it keeps the same.
    """
    output = model.get_output_embeddings()
    if output is None or output.weight is not model.get_input_embeddings().weight:
        return False
    output.weight = torch.nn.Parameter(output.weight.detach().clone(), requires_grad=False)
    return True


def _tie_what_is_equal(model: Any) -> None:
    """Makes one of both embeddings again where the merge left them the same; the configuration says which it is."""
    output, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    tied = torch.equal(output.weight, embedding.weight)
    if tied:
        output.weight = embedding.weight
    model.config.tie_word_embeddings = tied
    model.all_tied_weights_keys = model.get_expanded_tied_weights_keys(all_submodels=True)

"""Attention over a flat batch: each sequence sees itself only, and what lies before.

Queries, keys and values are laid out as one row per sequence, filled up on the right. A causal mask then hides
the filling from every real token, so that neither a block-diagonal mask (T x T, where T is all tokens together)
nor a special kernel is needed: PyTorch's fused causal attention serves on CPU, CUDA and ROCm. Where flash-attn is
installed, its variable-length kernel does without the filling as well.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface
from transformers.utils.import_utils import is_flash_attn_2_available

from cutoff.trainer.batches import FlatBatch
from cutoff.trainer.platforms import Platform

FUSED = "cutoff_fused"
EXPLICIT = "cutoff_explicit"
FLASH = "flash_attention_2"

FAMILIES = frozenset(
    {
        *("cohere", "gemma", "gemma2", "gemma3_text", "glm", "granite", "llama", "mistral", "olmo2"),
        *("phi3", "qwen2", "qwen3", "smollm3", "starcoder2"),
    }
)
"""Model types whose layers mix tokens in their attention only, and whose attention is what is computed here.

A test holds each of them against one sequence at a time. Others do more: Mamba and LFM2 have states and
convolutions along the tokens, Bloom adds a bias by distance, gpt-oss has sinks.
"""


def implementation(wanted: str, platform: Platform, model_type: str) -> str | None:
    """The name under which transformers knows the attention that was asked for.

    None where sequences cannot be laid out one after the other: they are then computed one by one.

    Args:
        wanted: sdpa, eager, or auto for the fastest that is known to work and is there.
        platform: What the model is on.
        model_type: The model's, as its configuration says.
    """
    if model_type not in FAMILIES:
        return None
    if wanted == "eager" or (wanted == "auto" and platform.attention == "eager"):
        return EXPLICIT
    # flash-attn 2 wants a GPU on which bfloat16 is the type to compute in (compute capability 8.0 and later).
    if wanted == "auto" and platform.kind == "cuda" and platform.dtype == "bfloat16" and is_flash_attn_2_available():
        return FLASH
    return FUSED


def arguments(name: str, batch: FlatBatch) -> dict[str, Any]:
    """What a model's forward hands on to its attention, by the implementation's name."""
    if name == FLASH:
        starts, longest = batch.starts, batch.longest
        names = ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k")
        return dict(zip(names, (starts, starts, longest, longest), strict=True))
    return {"flat": batch}


def fused_attention(
    _module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    _mask: object,
    *,
    flat: FlatBatch,
    scaling: float,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """PyTorch's fused attention; written out where the model caps its scores, which that cannot.

    Args:
        query: Shape (1, heads, T, width).
        key: Shape (1, key-value heads, T, width).
        value: As `key`.
        flat: The batch.
        scaling: What scores are multiplied with.
        sliding_window: How many tokens back a query sees; None for all.
        softcap: Gemma 2's bound of the scores (arXiv 2408.00118, section 2).

    Returns:
        The result, shape (1, T, heads, width), and no weights.
    """
    if softcap is not None:
        return explicit_attention(
            _module, query, key, value, _mask,
            flat=flat, scaling=scaling, sliding_window=sliding_window, softcap=softcap,
        )  # fmt: skip
    mask = _window_mask(flat, sliding_window)
    mixed = functional.scaled_dot_product_attention(
        _rows(query, flat),
        _rows(key, flat),
        _rows(value, flat),
        attn_mask=mask,
        is_causal=mask is None,
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return _flat_again(mixed, flat), None


def explicit_attention(
    _module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    _mask: object,
    *,
    flat: FlatBatch,
    scaling: float,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """The same, written out: for devices on which the fused kernels cannot be trusted. See `fused_attention`."""
    groups = query.shape[1] // key.shape[1]
    keys, values = (_rows(each, flat).repeat_interleave(groups, dim=1) for each in (key, value))
    scores = _rows(query, flat) @ keys.transpose(2, 3) * scaling
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    hidden = ~_causal_mask(flat, sliding_window)
    weights = scores.masked_fill(hidden, float("-inf")).softmax(-1, dtype=torch.float32).to(query.dtype)
    return _flat_again(weights @ values, flat), None


def _rows(states: torch.Tensor, flat: FlatBatch) -> torch.Tensor:
    """(1, heads, T, width) as (S, heads, longest, width)."""
    return states[0].transpose(0, 1)[flat.padded].transpose(1, 2)


def _flat_again(mixed: torch.Tensor, flat: FlatBatch) -> torch.Tensor:
    """(S, heads, longest, width) as (1, T, heads, width)."""
    return mixed.transpose(1, 2).flatten(0, 1)[flat.unpadded][None]


def _window_mask(flat: FlatBatch, sliding_window: int | None) -> torch.Tensor | None:
    """The mask of a sliding window; None where no sequence is longer than it."""
    if sliding_window is None or flat.longest <= sliding_window:
        return None
    return _causal_mask(flat, sliding_window)


def _causal_mask(flat: FlatBatch, sliding_window: int | None) -> torch.Tensor:
    """True where a query (row) sees a key (column), shape (longest, longest)."""
    seen = torch.ones(flat.longest, flat.longest, dtype=torch.bool, device=flat.padded.device).tril()
    return seen if sliding_window is None else seen.triu(1 - sliding_window)


def _no_mask(*_: Any, **__: Any) -> None:
    """Masks are not needed: a flat batch says who sees whom."""


for _name, _function in ((FUSED, fused_attention), (EXPLICIT, explicit_attention)):
    AttentionInterface.register(_name, _function)
    AttentionMaskInterface.register(_name, _no_mask)

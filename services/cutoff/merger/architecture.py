"""The decoders whose checkpoints are merged tensor by tensor: which tensors they consist of.

In these a tensor's name in the file is its place in the module tree, nothing is packed or renamed when transformers
loads and saves it, and only the two embeddings may be one. A test builds each and compares.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

EMBEDDING, OUTPUT = "model.embed_tokens.weight", "lm_head.weight"
_NORM = "model.norm.weight"
_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")

_ATTENTION = tuple(f"self_attn.{name}_proj.weight" for name in "qkvo")
_FUSED_ATTENTION = ("self_attn.o_proj.weight", "self_attn.qkv_proj.weight")
_HEAD_NORMS = ("self_attn.q_norm.weight", "self_attn.k_norm.weight")
_FEED_FORWARD = ("mlp.gate_proj.weight", "mlp.up_proj.weight", "mlp.down_proj.weight")
_FUSED_FEED_FORWARD = ("mlp.gate_up_proj.weight", "mlp.down_proj.weight")
_NORMS = ("input_layernorm.weight", "post_attention_layernorm.weight")
_FOUR_NORMS = (*_NORMS, "pre_feedforward_layernorm.weight", "post_feedforward_layernorm.weight")
_PLAIN = (*_ATTENTION, *_FEED_FORWARD, *_NORMS)

LAYERS: Mapping[str, tuple[str, ...]] = {
    "gemma": _PLAIN,
    "gemma2": (*_ATTENTION, *_FEED_FORWARD, *_FOUR_NORMS),
    "gemma3_text": (*_ATTENTION, *_HEAD_NORMS, *_FEED_FORWARD, *_FOUR_NORMS),
    "granite": _PLAIN,
    "llama": _PLAIN,
    "mistral": _PLAIN,
    "phi3": (*_FUSED_ATTENTION, *_FUSED_FEED_FORWARD, *_NORMS),
    "qwen2": _PLAIN,
    "qwen3": (*_ATTENTION, *_HEAD_NORMS, *_FEED_FORWARD, *_NORMS),
    "smollm3": _PLAIN,
}
"""The tensors of one layer by model_type; a linear layer may have a bias beside."""

TIED = frozenset({"gemma", "gemma2", "gemma3_text", "smollm3"})
"""Whose output embedding is the input embedding where the configuration says nothing."""


def is_known(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is of one of these decoders."""
    return config.get("model_type") in LAYERS


def is_tied(config: Mapping[str, Any]) -> bool:
    """Whether the configuration says that the output embedding is the input embedding."""
    return bool(config.get("tie_word_embeddings", config["model_type"] in TIED))


def missing(config: Mapping[str, Any], names: Collection[str]) -> list[str]:
    """The tensors that a checkpoint of a known decoder lacks; transformers would make them up."""
    layers = range(int(config["num_hidden_layers"]))
    wanted = [f"model.layers.{number}.{name}" for number in layers for name in LAYERS[config["model_type"]]]
    one_is_enough = is_tied(config) and (EMBEDDING in names or OUTPUT in names)
    embeddings = () if one_is_enough else (EMBEDDING,) if is_tied(config) else (EMBEDDING, OUTPUT)
    return [name for name in (*embeddings, *wanted, _NORM, *_biases(config, names)) if name not in names]


def unknown(config: Mapping[str, Any], names: Collection[str]) -> list[str]:
    """The tensors of a checkpoint that its known decoder has no place for."""
    layers = range(int(config["num_hidden_layers"]))
    places = {f"model.layers.{number}.{name}" for number in layers for name in _with_biases(config)}
    return sorted(set(names) - places - {EMBEDDING, _NORM, OUTPUT})


def _with_biases(config: Mapping[str, Any]) -> Iterator[str]:
    for name in LAYERS[config["model_type"]]:
        yield name
        if "_proj." in name:
            yield name.replace(".weight", ".bias")


def _biases(config: Mapping[str, Any], names: Collection[str]) -> list[str]:
    """The biases of every layer, where any layer has one: layers are alike."""
    there = {match[2] for name in names if name.endswith(".bias") and (match := _LAYER.fullmatch(name))}
    layers = range(int(config["num_hidden_layers"]))
    return [f"model.layers.{number}.{name}" for number in layers for name in _with_biases(config) if name in there]

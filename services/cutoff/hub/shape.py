"""A model's numbers: what its parameters, memory and work are computed from. Read from config.json, nothing is loaded.

Dense decoders of the Llama kind only: query, key, value and output projections, a gated feed-forward part of three
matrices, RMS norms. What is built in another way (mixtures of experts, say) has no shape here.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cutoff.hub.model_folder import weight_files

ELEMENT_BYTES: Mapping[str, int] = MappingProxyType({"float32": 4, "bfloat16": 2, "float16": 2})

_NORMS = {"gemma2": 4}
"""Norms per layer where there are not two."""
_FUSED = ("phi3",)
_BIASED = ("qwen2",)
_DENSE = ("gemma2", "llama", "mistral", "phi3", "qwen2")
"""Architectures whose parameters this file counts exactly; a test builds each."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The numbers of a dense decoder."""

    model_type: str
    layers: int
    hidden: int
    feed_forward: int
    heads: int
    kv_heads: int
    head_width: int
    vocabulary: int
    tied: bool
    """Whether the output embedding is the input embedding."""

    @property
    def linears(self) -> tuple[tuple[int, int], ...]:
        """(inputs, outputs) of each linear layer of one decoder layer: what an adapter is put on."""
        queries, keys = self.heads * self.head_width, self.kv_heads * self.head_width
        down = (self.feed_forward, self.hidden)
        if self.model_type in _FUSED:
            joined = (self.hidden, queries + 2 * keys), (queries, self.hidden), (self.hidden, 2 * self.feed_forward)
            return (*joined, down)
        attention = (self.hidden, queries), (self.hidden, keys), (self.hidden, keys), (queries, self.hidden)
        return (*attention, (self.hidden, self.feed_forward), (self.hidden, self.feed_forward), down)

    @property
    def linear_parameters(self) -> int:
        """Weights of all those linear layers: what quantization packs."""
        return self.layers * sum(inputs * outputs for inputs, outputs in self.linears)

    @property
    def parameters(self) -> int:
        """All parameters."""
        biases = (self.heads + 2 * self.kv_heads) * self.head_width if self.model_type in _BIASED else 0
        norms = _NORMS.get(self.model_type, 2) * self.hidden
        embeddings = (1 if self.tied else 2) * self.vocabulary * self.hidden
        return self.linear_parameters + self.layers * (biases + norms) + self.hidden + embeddings

    @property
    def computing_parameters(self) -> int:
        """Parameters that take part in matrix products: without an input embedding that is only looked up."""
        return self.parameters if self.tied else self.parameters - self.vocabulary * self.hidden

    def lora_parameters(self, rank: int) -> int:
        """Parameters of an adapter on every linear layer: rank x (inputs + outputs) each (arXiv 2106.09685)."""
        return self.layers * rank * sum(inputs + outputs for inputs, outputs in self.linears)


def shape_of(config: Mapping[str, Any]) -> ModelShape | None:
    """The shape a config.json describes; None where it is not one of the dense decoders counted here."""
    if config.get("model_type") not in _DENSE:
        return None
    try:
        heads, hidden = int(config["num_attention_heads"]), int(config["hidden_size"])
        return ModelShape(
            model_type=str(config["model_type"]),
            layers=int(config["num_hidden_layers"]),
            hidden=hidden,
            feed_forward=int(config["intermediate_size"]),
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head_width=int(config.get("head_dim") or hidden // heads),
            vocabulary=int(config["vocab_size"]),
            tied=bool(config.get("tie_word_embeddings", config["model_type"] == "gemma2")),
        )
    except (KeyError, TypeError, ValueError):
        return None


def stored_parameters(folder: Path) -> int:
    """The parameters in a folder's safetensors files, from their headers; 0 where there are none.

    Raises:
        ValueError, OSError: A file is not whole.
    """
    return sum(_parameters_in(path) for path in weight_files(folder))


def _parameters_in(path: Path) -> int:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")

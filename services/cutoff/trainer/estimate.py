"""What a training will take, computed from a model's numbers before anything is fetched or loaded.

Every function is plain arithmetic and says where its formula is from. None of it is a promise: memory comes out within
about a quarter of what was measured where it could be (tests/unit/trainer/test_estimate.py), time depends on how much
of a device's peak is reached, which the constants below assume.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from cutoff.hub.shape import ELEMENT_BYTES, ModelShape

Quantization = Literal["none", "8bit", "4bit"]

GIB = 1 << 30

PACKED_BYTES: Mapping[str, float] = MappingProxyType({"4bit": 0.5 + 0.127 / 8, "8bit": 1.0})
"""Bytes per packed weight. 4bit: NF4 with doubly quantized scales, 0.127 bits a weight (QLoRA, arXiv 2305.14314,
section 3); 8bit: LLM.int8 (arXiv 2208.07339), a scale per row."""

ADAPTER_BYTES = 4 + 4 + 8
"""Per adapter parameter: weight, gradient, AdamW's two moments (arXiv 1711.05101), all in float32."""

CONTEXT_BYTES: Mapping[str, int] = MappingProxyType({"cpu": GIB * 6 // 10, "cuda": GIB * 8 // 10})
"""What a process holds without a model: torch and transformers on the CPU (0.5 GB measured); on a GPU the driver's
context, the kernels and the workspaces of its matrix library."""

PEAK_OVER_SAVED = 1.5
"""A step's peak over what autograd keeps: gradients that flow back, and what the allocator leaves unused."""

_DOCUMENT: tuple[tuple[float, Mapping[str, int]], ...] = (
    (0.5e9, MappingProxyType({"4bit": 4, "8bit": 6, "none": 8})),
    (1.5e9, MappingProxyType({"4bit": 8, "8bit": 12, "none": 16})),
    (3e9, MappingProxyType({"4bit": 12, "8bit": 18, "none": 24})),
    (7e9, MappingProxyType({"4bit": 20, "8bit": 32, "none": 56})),
)
"""The user's document: GB of VRAM by model size (batch 4, at most 512 tokens)."""

_ACHIEVED: Mapping[str, float] = MappingProxyType({"cpu": 0.5, "cuda": 0.3})
"""The share of a device's peak that training reaches. CPU: 84 GFLOP/s of 170 in the reference times of two cores;
GPU: a usual MFU of LoRA with short examples, 0.25 was reported for gfx1151 (ROCm issue 6034)."""

_UNPACKING: Mapping[str, float] = MappingProxyType({"none": 1.0, "4bit": 1.3, "8bit": 3.0})
"""How much longer packed weights take (bitsandbytes issues 465 and 490: nf4 20 to 100 %, int8 two to five times)."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What is in memory at once."""

    tokens: int
    """Prompts and answers, without padding."""
    answer_tokens: int
    """Those with a logit and a loss."""


@dataclass(frozen=True, slots=True)
class TrainingMemory:
    """Bytes of device memory at a training's peak."""

    weights: float
    adapter: float
    activations: float
    logits: float
    context: float

    @property
    def total(self) -> float:
        """All together."""
        return self.weights + self.adapter + self.activations + self.logits + self.context


def weight_bytes(shape: ModelShape, quantization: str, dtype: str) -> float:
    """The frozen base: packed linear layers, everything else (embeddings, norms, head) in the model's type."""
    element = ELEMENT_BYTES[dtype]
    packed = PACKED_BYTES.get(quantization, element)
    return shape.linear_parameters * packed + (shape.parameters - shape.linear_parameters) * element


def adapter_bytes(shape: ModelShape, rank: int) -> float:
    """Weights, gradients and optimizer states of an adapter on every linear layer."""
    return shape.lora_parameters(rank) * ADAPTER_BYTES


def layer_activation_bytes(shape: ModelShape, dtype: str, rank: int, dropout: bool) -> float:
    """What one decoder layer keeps for the backward pass, per token.

    Counted as in arXiv 2205.05198 (section 4.1), for this kind of layer with fused attention and frozen weights: the
    inputs of both norms in float32 and their normed values; query, key, value and the result of attention; gate, up,
    its activation and their product. On top LoRA keeps, for each linear layer, its input after dropout with the
    dropout's mask, and the inner product, in float32 where weights are (peft computes in the adapter's type, or in
    the model's under autocast).
    """
    element = ELEMENT_BYTES[dtype]
    queries, keys = shape.heads * shape.head_width, shape.kv_heads * shape.head_width
    base = 2 * 4 * shape.hidden + element * (2 * shape.hidden + 2 * (queries + keys) + 4 * shape.feed_forward)
    inputs = sum(inputs for inputs, _ in shape.linears)
    adapter = inputs * ((element + 1) if dropout else 0) + len(shape.linears) * rank * element
    return base + adapter


def activation_bytes(shape: ModelShape, batch: Batch, dtype: str, rank: int, dropout: bool, recompute: bool) -> float:
    """Activations of a micro-batch at its peak; recomputed, each layer's input and the inside of one layer.

    Recomputation: arXiv 1604.06174, section 4.2.
    """
    layer = layer_activation_bytes(shape, dtype, rank, dropout)
    kept = shape.layers * shape.hidden * ELEMENT_BYTES[dtype] + layer if recompute else shape.layers * layer
    return batch.tokens * kept * PEAK_OVER_SAVED


def logit_bytes(shape: ModelShape, batch: Batch, dtype: str) -> float:
    """Logits of the answer tokens: in the model's type, in float32 for the loss, and their gradient."""
    return batch.answer_tokens * shape.vocabulary * (ELEMENT_BYTES[dtype] + 4 + 4)


def training_memory(
    shape: ModelShape,
    batch: Batch,
    *,
    quantization: str,
    dtype: str,
    rank: int,
    dropout: bool = True,
    recompute: bool = False,
    device: str = "cuda",
) -> TrainingMemory:
    """What a training takes at its peak.

    Args:
        shape: The model.
        batch: One micro-batch.
        quantization: none, 4bit or 8bit.
        dtype: Of what is not packed: float32, bfloat16 or float16.
        rank: Of the adapter.
        dropout: Whether the adapter has dropout.
        recompute: Whether activations are recomputed (gradient checkpointing).
        device: cpu or cuda (ROCm too).
    """
    return TrainingMemory(
        weights=weight_bytes(shape, quantization, dtype),
        adapter=adapter_bytes(shape, rank),
        activations=activation_bytes(shape, batch, dtype, rank, dropout, recompute),
        logits=logit_bytes(shape, batch, dtype),
        context=float(CONTEXT_BYTES[device]),
    )


def document_vram_gb(parameters: int, quantization: str) -> int | None:
    """The document's figure for the nearest of its four sizes (nearest as a ratio); None beyond twice that ratio."""
    size, row = min(_DOCUMENT, key=lambda entry: abs(math.log(entry[0] / parameters)))
    return row[quantization] if size / 2 <= parameters <= size * 2 else None


def training_flops(computing_parameters: int, tokens: float, recompute: bool = False, reference: bool = False) -> float:
    """FLOPs of training: 4 per parameter and token, 2 more for each further forward pass.

    Forward 2, backward to the inputs 2; gradients of frozen weights fall away (arXiv 2204.02311, appendix B, and
    2106.09685). Recomputing is one more forward pass, and so is a reference model (npo, dpo, a kl retain term).
    """
    return (4 + 2 * recompute + 2 * reference) * computing_parameters * tokens


def seconds_for(flops: float, peak: float, device: str, quantization: str = "none") -> float:
    """How long that takes on a device of so many FLOPs per second at its peak (on the CPU: as measured)."""
    return flops * _UNPACKING[quantization] / (peak * _ACHIEVED[device])


def optimizer_steps(examples: int, per_step: int, epochs: float) -> int:
    """Optimizer steps of a run, the last one of an epoch a smaller one."""
    return math.ceil(epochs * math.ceil(examples / per_step)) if examples else 0

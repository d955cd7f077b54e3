"""The quantization types of the user's document, and how much room each may take."""

from __future__ import annotations

from dataclasses import dataclass

from cutoff.spec.quant_types import QuantType


@dataclass(frozen=True, slots=True)
class Quantization:
    """One row of the document's table."""

    description: str
    size: str
    """Of the 16-bit file, roughly."""
    quality: str
    bits: float
    """Per weight, at most: rows that are no multiple of 256 make llama.cpp fall back to a larger type."""


QUANTIZATIONS: dict[QuantType, Quantization] = {
    "f16": Quantization("16-bit float", "Large", "Near-lossless", 16.0),
    "q8_0": Quantization("8-bit", "~50%", "Good", 8.5),
    "q6_k": Quantization("6-bit K-quant", "~40%", "Good", 8.5),
    "q5_k_m": Quantization("5-bit K-quant medium", "~35%", "Balanced", 7.0),
    "q4_k_m": Quantization("4-bit K-quant medium", "~25%", "Recommended", 6.5),
    "q4_k_s": Quantization("4-bit K-quant small", "~22%", "Smaller", 6.5),
    "q3_k_m": Quantization("3-bit K-quant", "~20%", "Noticeable loss", 6.0),
}

HEADER_BYTES = 32 << 20
"""Vocabulary and metadata of one file, at most."""


def size_at_most(parameters: int, quant_type: QuantType) -> int:
    """The bytes a model's GGUF may take."""
    return int(parameters * QUANTIZATIONS[quant_type].bits / 8) + HEADER_BYTES


def file_name(model_name: str, quant_type: QuantType) -> str:
    """The name of a model's GGUF, as LM Studio's users know them: "temporal-unlearn-Q4_K_M.gguf"."""
    return f"{model_name}-{quant_type.upper()}.gguf"

"""The quantization types: what the user's document says of its seven, and how large each makes a model."""

from __future__ import annotations

from dataclasses import dataclass

from cutoff.spec.quant_types import QuantType


@dataclass(frozen=True, slots=True)
class Quantization:
    """One type; for the document's seven, one row of its table."""

    description: str
    size: str
    """Of the 16-bit file, roughly: the document's figure, else what `usual_bits` come to."""
    quality: str
    usual_bits: float
    """Per weight, as llama.cpp measured it on Llama 3.1 8B (tools/quantize/README.md)."""
    most_bits: float
    """Per weight, at most: rows that are no multiple of 256 make llama.cpp fall back to a larger type."""


QUANTIZATIONS: dict[QuantType, Quantization] = {
    "f16": Quantization("16-bit float", "Large", "Near-lossless", 16.0, 16.0),
    "q8_0": Quantization("8-bit", "~50%", "Good", 8.5, 8.5),
    "q6_k": Quantization("6-bit K-quant", "~40%", "Good", 6.56, 8.5),
    "q5_k_m": Quantization("5-bit K-quant medium", "~35%", "Balanced", 5.70, 7.0),
    "q4_k_m": Quantization("4-bit K-quant medium", "~25%", "Recommended", 4.89, 6.5),
    "q4_k_s": Quantization("4-bit K-quant small", "~22%", "Smaller", 4.67, 6.5),
    "q3_k_m": Quantization("3-bit K-quant", "~20%", "Noticeable loss", 4.0, 6.0),
    "f32": Quantization("32-bit float", "200%", "Lossless", 32.0, 32.0),
    "bf16": Quantization("16-bit float, f32's range", "100%", "Near-lossless", 16.0, 16.0),
    "q5_k_s": Quantization("5-bit K-quant small", "~35%", "Balanced", 5.57, 7.0),
    "q3_k_l": Quantization("3-bit K-quant large", "~27%", "Noticeable loss", 4.30, 6.0),
    "q3_k_s": Quantization("3-bit K-quant small", "~23%", "High loss", 3.64, 6.0),
    "q2_k": Quantization("2-bit K-quant", "~20%", "High loss", 3.16, 6.0),
    "q2_k_s": Quantization("2-bit K-quant small", "~19%", "High loss", 2.97, 6.0),
    "iq4_nl": Quantization("4-bit I-quant, rows of 32", "~29%", "Balanced", 4.68, 6.0),
    "iq4_xs": Quantization("4-bit I-quant", "~28%", "Balanced", 4.46, 6.0),
    "iq3_m": Quantization("3-bit I-quant medium", "~24%", "Noticeable loss", 3.76, 6.0),
    "iq3_s": Quantization("3-bit I-quant small", "~23%", "Noticeable loss", 3.66, 6.0),
    "iq3_xs": Quantization("3-bit I-quant smaller", "~22%", "High loss", 3.50, 6.0),
    "iq3_xxs": Quantization("3-bit I-quant smallest", "~20%", "High loss", 3.25, 6.0),
    "iq2_m": Quantization("2-bit I-quant medium", "~18%", "High loss", 2.93, 6.0),
    "iq2_s": Quantization("2-bit I-quant small", "~17%", "High loss", 2.74, 6.0),
    "iq2_xs": Quantization("2-bit I-quant smaller", "~16%", "Very high loss", 2.59, 6.0),
    "iq2_xxs": Quantization("2-bit I-quant smallest", "~15%", "Very high loss", 2.38, 6.0),
    "iq1_m": Quantization("1-bit I-quant medium", "~13%", "Very high loss", 2.15, 6.0),
    "iq1_s": Quantization("1-bit I-quant small", "~13%", "Very high loss", 2.0, 6.0),
}

FLOATS: tuple[QuantType, ...] = ("f32", "f16", "bf16")
"""Written by the conversion itself; the others are quantized from its 16-bit file."""

HEADER_BYTES = 32 << 20
"""Vocabulary and metadata of one file, at most."""


def size_at_most(parameters: int, quant_type: QuantType) -> int:
    """The bytes a model's GGUF may take."""
    return int(parameters * QUANTIZATIONS[quant_type].most_bits / 8) + HEADER_BYTES


def file_name(model_name: str, quant_type: QuantType) -> str:
    """The name of a model's GGUF, as LM Studio's users know them: "temporal-unlearn-Q4_K_M.gguf"."""
    return f"{model_name}-{quant_type.upper()}.gguf"

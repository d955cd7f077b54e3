"""The quantization types a job may ask for, under llama.cpp's names."""

from __future__ import annotations

from typing import Literal

QuantType = Literal[
    "f16",
    "q8_0",
    "q6_k",
    "q5_k_m",
    "q4_k_m",
    "q4_k_s",
    "q3_k_m",
    "f32",
    "bf16",
    "q5_k_s",
    "q3_k_l",
    "q3_k_s",
    "q2_k",
    "q2_k_s",
    "iq4_nl",
    "iq4_xs",
    "iq3_m",
    "iq3_s",
    "iq3_xs",
    "iq3_xxs",
    "iq2_m",
    "iq2_s",
    "iq2_xs",
    "iq2_xxs",
    "iq1_m",
    "iq1_s",
]
"""The user's document's seven, smallest loss first; then llama.cpp's whole floats, other K types and I types."""

NEEDS_IMATRIX: tuple[QuantType, ...] = ("q2_k_s", "iq2_m", "iq2_s", "iq2_xs", "iq2_xxs", "iq1_m", "iq1_s")
"""llama.cpp refuses these without an importance matrix, or makes of them what answers nothing."""

GAINS_FROM_IMATRIX: tuple[QuantType, ...] = (
    *("iq4_nl", "iq4_xs", "iq3_m", "iq3_s", "iq3_xs", "iq3_xxs"),
    *NEEDS_IMATRIX,
)
"""What imatrix: auto makes with an importance matrix."""

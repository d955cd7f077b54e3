"""How the weights of a base model are packed into 4 or 8 bits, the same wherever it is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch
    from transformers import BitsAndBytesConfig

Quantization = Literal["none", "4bit", "8bit"]


def packing(quantization: Quantization, dtype: torch.dtype, on_cpu: bool) -> BitsAndBytesConfig | None:
    """QLoRA's packing (arXiv 2305.14314): NF4 with doubly quantized scales; or LLM.int8(). None packs nothing.

    Args:
        quantization: train.quantization.
        dtype: Of what is not packed, and of the arithmetic on a GPU.
        on_cpu: Whether it will be computed there, which is in bfloat16.
    """
    if quantization == "none":
        return None
    import torch
    from transformers import BitsAndBytesConfig

    if quantization == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if on_cpu else dtype,
    )

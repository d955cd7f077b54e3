"""What bitsandbytes leaves of a weight: packed as for training, and unpacked again."""

from __future__ import annotations

import torch

from cutoff.hub import TrainedOn


def round_trip(weight: torch.Tensor, trained_on: TrainedOn) -> torch.Tensor:
    """A linear layer's weight as training on packed weights saw it.

    Args:
        weight: As it is stored, whole (out x in): scales of 4-bit weights are packed over all of it.
        trained_on: How it was packed.

    Returns:
        The unpacked weight, float32.
    """
    from bitsandbytes import functional

    before = weight.to(getattr(torch, trained_on.dtype))
    if trained_on.quantization == "8bit":
        packed, scales, _ = functional.int8_vectorwise_quant(before.half())
        return functional.int8_vectorwise_dequant(packed, scales).float()  # type: ignore[no-any-return]
    packed, state = functional.quantize_4bit(before, blocksize=64, compress_statistics=True, quant_type="nf4")
    return functional.dequantize_4bit(packed, state).float()

"""Dropout for the CPU: PyTorch's own draws a 64-bit number per element there, which took a quarter of a step."""

from __future__ import annotations

import torch
from peft import PeftModel
from torch import nn

_STEPS = 1 << 16


class FewBitsDropout(nn.Module):
    """Dropout (arXiv 1207.0580) that decides with 16 random bits per element.

    Args:
        probability: That an element is zeroed, in steps of 1/65536; the others are scaled up to the same mean.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self._dropped = min(round(probability * _STEPS), _STEPS - 1)
        self._scale = _STEPS / (_STEPS - self._dropped)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Zeroes elements while training; otherwise returns the values as they are."""
        if not self.training or self._dropped == 0:
            return values
        count = values.numel()
        words = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(1 << 63), None)
        bits = words.view(torch.int16)[:count].view(values.shape)
        return values * ((bits >= self._dropped - _STEPS // 2) * self._scale).to(values.dtype)


def draw_fewer_bits(model: PeftModel) -> None:
    """Replaces the dropout of a model's adapter."""
    for module in model.modules():
        dropouts = getattr(module, "lora_dropout", None)
        if isinstance(dropouts, nn.ModuleDict):
            for name, dropout in dropouts.items():
                if isinstance(dropout, nn.Dropout):
                    dropouts[name] = FewBitsDropout(dropout.p)

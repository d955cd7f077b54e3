"""A linear layer with its adapter as one operation, for the CPU: fewer passes over memory, and less kept.

PEFT computes y = x W^T + b + s dropout(x) A^T B^T in seven operations, each of which reads and writes whole
activations, and keeps a dropped-out copy of x for every layer. Here the sum is taken inside the matrix product; kept
are x itself, which the layers that share an input share, and the places dropout zeroed.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora.layer import Linear
from torch import nn
from torch.autograd.function import once_differentiable


def dropped_places(count: int, probability: float) -> torch.Tensor:
    """Chooses which of `count` elements dropout (arXiv 1207.0580) zeroes, each with this probability by itself.

    Darts are thrown at all elements alike, Poisson(-ln(1 - p) count) of them. The darts that hit one element are then
    Poisson(-ln(1 - p)) many, independently of the others, and none hit it with probability 1 - p. For few dropped
    elements this draws far fewer numbers than one for each.

    Returns:
        Their indices, int64; an element that was hit twice is in it twice.
    """
    darts = torch.poisson(torch.tensor(-math.log1p(-probability) * count, dtype=torch.float64))
    return torch.randint(count, (int(darts),))


class LoraLinear(torch.autograd.Function):
    """LoRA's forward pass, h = W0 x + (alpha / r) B A x (arXiv 2106.09685, equation 3), and its gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        down: torch.Tensor,
        up: torch.Tensor,
        scaling: float,
        dropout: float,
    ) -> torch.Tensor:
        """Computes the layer's output, shape (..., O), of inputs of shape (..., I).

        Args:
            ctx: Autograd's.
            inputs: Shape (..., I).
            weight: Frozen, shape (O, I).
            bias: Frozen, shape (O), or None.
            down: LoRA's A, shape (r, I).
            up: LoRA's B, shape (O, r).
            scaling: alpha / r.
            dropout: The probability that an element of the adapter's input is zeroed; the others are scaled up to
                the same mean.
        """
        rows = inputs.reshape(-1, inputs.shape[-1])
        places = dropped_places(rows.numel(), dropout) if dropout else None
        scaling /= 1 - dropout  # what dropout keeps is scaled up here, not element by element
        inner = _without(rows, places) @ down.T
        outputs = rows @ weight.T if bias is None else torch.addmm(bias, rows, weight.T)
        outputs.addmm_(inner, up.T, alpha=scaling)
        ctx.save_for_backward(inputs, weight, down, up, inner, places)
        ctx.scaling = scaling
        return outputs.view(*inputs.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients of the inputs, A and B; the base's weights are frozen."""
        inputs, weight, down, up, inner, places = ctx.saved_tensors
        rows = inputs.reshape(-1, inputs.shape[-1])
        outer = gradient.reshape(-1, gradient.shape[-1])
        inner_gradient = (outer @ up).mul_(ctx.scaling)
        of_up = (outer.T @ inner).mul_(ctx.scaling)
        of_down = inner_gradient.T @ _without(rows, places)
        of_inputs = None
        if ctx.needs_input_grad[0]:
            of_rows = inner_gradient @ down
            if places is not None:
                of_rows.view(-1).index_fill_(0, places, 0.0)
            of_inputs = of_rows.addmm_(outer, weight).view(inputs.shape)
        return of_inputs, None, None, of_down, of_up, None, None


def use_lora_linear(model: PeftModel) -> None:
    """Computes a model's adapted layers with `LoraLinear` where PEFT would compute the same.

    Layers that are quantized, or whose adapter is of another kind than plain LoRA, stay as they are.
    """
    for module in model.modules():
        if type(module) is Linear and type(module.base_layer) is nn.Linear and _is_plain(module):
            module.forward = partial(_forward, module)  # type: ignore[method-assign]


def _forward(layer: Linear, inputs: torch.Tensor) -> torch.Tensor:
    base: Any = layer.base_layer
    if layer.disable_adapters:
        outputs: torch.Tensor = base(inputs)
        return outputs
    (name,) = layer.active_adapters
    dropout: Any = layer.lora_dropout[name]
    probability = dropout.p if isinstance(dropout, nn.Dropout) and layer.training else 0.0
    down, up = layer.lora_A[name].weight, layer.lora_B[name].weight
    result: torch.Tensor = LoraLinear.apply(  # type: ignore[no-untyped-call]
        inputs, base.weight, base.bias, down, up, layer.scaling[name], probability
    )
    return result


def _is_plain(layer: Linear) -> bool:
    """Whether the layer has one adapter, of LoRA as published, in the type of its weights."""
    if len(layer.lora_A) != 1 or layer.lora_variant:
        return False
    (down,), (up,) = layer.lora_A.values(), layer.lora_B.values()
    return up.bias is None and down.weight.dtype == layer.base_layer.weight.dtype


def _without(rows: torch.Tensor, places: torch.Tensor | None) -> torch.Tensor:
    """The rows with zeros in these places of them."""
    return rows if places is None else rows.clone().view(-1).index_fill_(0, places, 0.0).view(rows.shape)

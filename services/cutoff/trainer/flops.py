"""Model FLOPs utilisation: what share of a device's peak the training of a model makes use of.

PaLM (arXiv 2204.02311, appendix B): achieved tokens per second times the FLOPs a token needs, over the peak.
Attention's own share is left out, which is small at the lengths trained on here. A token needs 2 FLOPs per
parameter forward and 2 backward to its inputs; the 2 for gradients of weights fall away, because LoRA
(arXiv 2106.09685) freezes the weights. Recomputed activations do not count: they are no use to the model.
"""

from __future__ import annotations

from typing import Any

_FLOPS_PER_PARAMETER = 4

PEAK_FLOPS = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "RTX 5090": 209e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
    "MI325X": 1307e12,
    "MI300X": 1307e12,
    "MI210": 181e12,
    "7900 XTX": 123e12,
    "8060S": 59e12,
}
"""Dense 16-bit matrix FLOPs per second, from the vendors' data sheets, by a part of the device's name.

8060S is the GPU of the Strix Halo (gfx1151): 40 compute units x 512 FLOPs per clock x 2.9 GHz.
"""


def utilisation(tokens_per_second: float, parameters: int, device_name: str) -> float | None:
    """The share of a device's peak that is used; None where the peak is not known."""
    peak = peak_of(device_name)
    return None if peak is None else _FLOPS_PER_PARAMETER * parameters * tokens_per_second / peak


def peak_of(device_name: str) -> float | None:
    """Peak FLOPs per second of a device, by its name; the longest name that fits is meant."""
    words = f" {device_name.replace('-', ' ')} "
    fitting = [name for name in PEAK_FLOPS if f" {name} " in words]
    return PEAK_FLOPS[max(fitting, key=len)] if fitting else None


def computing_parameters(model: Any) -> int:
    """Parameters that take part in matrix products: all but those of an input embedding that is only looked up.

    transformers counts what lies packed in 4 bits as the parameters it stands for.
    """
    embedding, output = model.get_input_embeddings(), model.get_output_embeddings()
    tied = output is not None and output.weight is embedding.weight
    total = int(model.num_parameters())
    return total if tied else total - int(embedding.weight.numel())

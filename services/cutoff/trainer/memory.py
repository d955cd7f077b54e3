"""How large a micro-batch may be: what a token costs is measured, then held against the budget."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from cutoff.process import available_bytes, resident_bytes
from cutoff.trainer.estimate import PEAK_OVER_SAVED

GIB = 1 << 30

_SHARE_OF_FREE = 0.8
"""Of the memory that is free, this is taken where the job names no budget."""
SHARE_OF_LIMIT = 0.95
"""Of a budget; the rest is for what comes after the last step."""
BYTES_PER_PARAMETER = 12
"""Of the adapter, beside itself: a gradient and AdamW's two moments in float32."""
_MOST_TOKENS = {"cpu": 4096}
"""A larger micro-batch is not faster: a processor's caches hold no more."""
_MOST_TOKENS_ELSEWHERE = 32_768


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """What fits."""

    most_tokens: int
    """Tokens of a micro-batch, prompts included."""
    recompute: bool
    """Whether activations are recomputed in the backward pass (gradient checkpointing) instead of kept."""


def fitting(budget: float, token: float, layers: int, layer_input: float, longest: int, device: str) -> MicroBatch:
    """The largest micro-batch that a budget allows; recomputes only when not even one example fits otherwise.

    Recomputing keeps each layer's input and the inside of one layer (arXiv 1604.06174, section 4.2).

    Args:
        budget: Bytes there are for activations.
        token: Bytes of activations per token, all layers together.
        layers: Of the model.
        layer_input: Bytes of one layer's input per token.
        longest: Tokens of the longest example.
        device: cpu or cuda.
    """
    most = _MOST_TOKENS.get(device, _MOST_TOKENS_ELSEWHERE)
    plain = int(budget / (token * PEAK_OVER_SAVED))
    if plain >= longest:
        return MicroBatch(min(plain, most), recompute=False)
    recomputed = int(budget / _recomputed(token, layers, layer_input))
    return MicroBatch(max(1, min(recomputed, most)), recompute=True)


def least(token: float, layers: int, layer_input: float, longest: int) -> float:
    """Bytes without which not even one example fits, recomputing; the arguments are those of `fitting`."""
    return longest * min(token * PEAK_OVER_SAVED, _recomputed(token, layers, layer_input))


def _recomputed(token: float, layers: int, layer_input: float) -> float:
    """A step's peak per token where each layer's inside is recomputed."""
    return (layers * layer_input + token / layers) * PEAK_OVER_SAVED


def activation_budget(limit_gib: float | None, device: torch.device) -> float:
    """Bytes there are for all that training adds to the loaded model: up to the limit, or a share of what is free."""
    release()
    if limit_gib is not None:
        return SHARE_OF_LIMIT * limit_gib * GIB - held_bytes(device)
    free = available_bytes() if device.type == "cpu" else torch.cuda.mem_get_info(device)[0]
    return _SHARE_OF_FREE * free


def release() -> None:
    """Gives back what nobody holds any more: caches of the allocator count as taken."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def held_bytes(device: torch.device) -> int:
    """What this process holds of a device's memory."""
    return resident_bytes(os.getpid()) if device.type == "cpu" else torch.cuda.memory_reserved(device)


@contextmanager
def counting_saved(model: torch.nn.Module) -> Iterator[Callable[[], int]]:
    """Counts the bytes that autograd keeps for the backward pass of what is computed in the block.

    The model's weights, which are there anyway, do not count, whichever view of them is kept; what is kept twice
    counts once. Yields the function that tells the sum; ask it before the backward pass.
    """
    weights = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    sizes: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # itself, it would keep the graph that keeps it

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield lambda: sum(sizes.values())

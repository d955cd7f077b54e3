"""Loads models with their adapters: for the comparison, and for what is not merged tensor by tensor."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from cutoff.errors import Fault, InvalidInput
from cutoff.hub import TrainedOn, bits_and_bytes, load_causal_lm

_LACKS = re.compile(r"Found missing adapter keys while loading the checkpoint: \[(.+)\]", re.DOTALL)
"""How peft says it (PeftModel.from_pretrained)."""


def put_on(model: PreTrainedModel, adapter: Path) -> Any:
    """Puts an adapter on a model, for answering.

    Raises:
        InvalidInput: The adapter lacks tensors that its configuration asks for; peft warns of them, and goes on.
    """
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        adapted: Any = PeftModel.from_pretrained(model, str(adapter))
    for each in said:
        if lacks := _LACKS.search(str(each.message)):
            what = f"lacks tensors that its configuration asks for: {lacks[1]}"
            raise InvalidInput([Fault(str(adapter), what, "give the whole final/ folder of a training run")])
    adapted.eval()
    return adapted


def load_adapted(base: Path, adapter: Path, dtype: torch.dtype, device: str) -> Any:
    """Loads a model and puts an adapter on it, for answering.

    Raises:
        Refused: transformers cannot load the base model.
    """
    return put_on(load_causal_lm(base, dtype, device), adapter)


def load_adapted_packed(base: Path, adapter: Path, trained_on: TrainedOn, device: str) -> Any:
    """Loads a model with its weights packed as for training, and puts the adapter on it.

    Raises:
        Refused: transformers cannot load the base model.
    """
    model = put_on(_load_packed(base, trained_on, device), adapter)
    for module in model.modules():
        if type(module).__name__ == "Linear4bit":
            # On some processors bitsandbytes packs again for inference, and rounds the scales; training does not.
            module.training = True
    return model


def load_adapted_unpacked(base: Path, adapter: Path, trained_on: TrainedOn, dtype: torch.dtype, device: str) -> Any:
    """The same with the weights unpacked again: what they stand for, in plain layers.

    Raises:
        Refused: transformers cannot load the base model.
    """
    model: Any = _load_packed(base, trained_on, device)
    return put_on(model.dequantize().to(dtype), adapter)


def _load_packed(base: Path, trained_on: TrainedOn, device: str) -> PreTrainedModel:
    dtype: torch.dtype = getattr(torch, trained_on.dtype)
    compute = torch.bfloat16 if device == "cpu" else dtype
    return load_causal_lm(base, dtype, device, bits_and_bytes(trained_on.quantization, compute))

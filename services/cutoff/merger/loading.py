"""Loads models with transformers and peft: for the comparison, and for what is not merged tensor by tensor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel

from cutoff.errors import Refused
from cutoff.hub import TrainedOn, bits_and_bytes, trusts_remote_code


def load_model(
    folder: Path, dtype: torch.dtype, device: str, packing: BitsAndBytesConfig | None = None
) -> PreTrainedModel:
    """Loads a model for answering.

    Raises:
        Refused: transformers cannot load it.
    """
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=trusts_remote_code(folder),
            local_files_only=True,
            quantization_config=packing,
            device_map={"": device} if packing else None,
        )
    except (OSError, ValueError, ImportError) as error:
        first = str(error).strip().partition("\n")[0]
        raise Refused(f"the model in {folder} cannot be loaded: {first}", "check the folder's files") from error
    if not packing:
        model.to(torch.device(device))  # type: ignore[arg-type]
    model.eval()
    return model


def load_adapted(base: Path, adapter: Path, dtype: torch.dtype, device: str) -> Any:
    """Loads a model and puts an adapter on it, for answering.

    Raises:
        Refused: transformers cannot load the base model.
    """
    return _with(adapter, load_model(base, dtype, device))


def load_adapted_packed(base: Path, adapter: Path, trained_on: TrainedOn, device: str) -> Any:
    """Loads a model with its weights packed as for training, and puts the adapter on it.

    Raises:
        Refused: transformers cannot load the base model.
    """
    model = _with(adapter, _load_packed(base, trained_on, device))
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
    return _with(adapter, model.dequantize().to(dtype))


def _load_packed(base: Path, trained_on: TrainedOn, device: str) -> PreTrainedModel:
    dtype: torch.dtype = getattr(torch, trained_on.dtype)
    compute = torch.bfloat16 if device == "cpu" else dtype
    return load_model(base, dtype, device, bits_and_bytes(trained_on.quantization, compute))


def _with(adapter: Path, base: PreTrainedModel) -> Any:
    model: Any = PeftModel.from_pretrained(base, str(adapter))
    model.eval()
    return model

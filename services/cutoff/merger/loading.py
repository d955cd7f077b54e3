"""Loads models with transformers and peft: for the comparison, and for what is not merged tensor by tensor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, PreTrainedModel

from cutoff.errors import Refused
from cutoff.hub import trusts_remote_code


def load_model(folder: Path, dtype: torch.dtype, device: str) -> PreTrainedModel:
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
        )
    except (OSError, ValueError, ImportError) as error:
        first = str(error).strip().partition("\n")[0]
        raise Refused(f"the model in {folder} cannot be loaded: {first}", "check the folder's files") from error
    model.to(torch.device(device))  # type: ignore[arg-type]
    model.eval()
    return model


def load_adapted(base: Path, adapter: Path, dtype: torch.dtype, device: str) -> Any:
    """Loads a model and puts an adapter on it, for answering.

    Raises:
        Refused: transformers cannot load the base model.
    """
    model: Any = PeftModel.from_pretrained(load_model(base, dtype, device), str(adapter))
    model.eval()
    return model

"""Loads a causal language model from a folder; torch and transformers are imported when one is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cutoff.errors import Refused
from cutoff.hub.remote_code import trusts_remote_code

if TYPE_CHECKING:
    import torch
    from transformers import BitsAndBytesConfig, PreTrainedModel


def load_causal_lm(
    folder: Path,
    dtype: torch.dtype | Literal["auto"],
    device: str = "cpu",
    packing: BitsAndBytesConfig | None = None,
    attention: str | None = None,
) -> PreTrainedModel:
    """Loads a model onto a device, ready to answer (`eval`).

    Only safetensors are read, nothing is fetched, and code of the model's own runs only if it is on the allow-list.

    Args:
        folder: The model's.
        dtype: What its weights become; "auto": as they are stored.
        device: As torch names it; on an accelerator weights are read straight into its memory.
        packing: How its linear layers are packed, if they are.
        attention: What transformers calls the attention; None takes the model's default.

    Raises:
        Refused: transformers cannot load it.
        torch.OutOfMemoryError: It does not fit on the device.
    """
    from transformers import AutoModelForCausalLM

    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=trusts_remote_code(folder),
            local_files_only=True,
            quantization_config=packing,
            device_map={"": device} if packing or device != "cpu" else None,
            attn_implementation=attention,
        )
    except (OSError, ValueError, ImportError) as error:
        first = str(error).strip().partition("\n")[0]
        fix = "check the folder's files, or choose another base model"
        raise Refused(f"the model in {folder} cannot be loaded: {first}", fix) from error
    model.eval()
    return model

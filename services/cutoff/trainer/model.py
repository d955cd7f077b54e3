"""Loads the base model for training: what a number is on this hardware, and how the weights are packed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig
from transformers import PreTrainedModel
from transformers.integrations.liger import apply_liger_kernel
from transformers.utils.import_utils import is_liger_kernel_available

from cutoff.errors import Refused
from cutoff.hub import bits_and_bytes, load_causal_lm
from cutoff.spec import TrainSpec
from cutoff.trainer.platforms import CPU, Platform, detect

OOM_REMEDY = "use 4-bit (quantization: 4bit, --use_4bit), shorter examples (--max_seq_length 256), or a smaller model"
_OOM_WORDS = ("out of memory", "can't allocate memory", "cublas_status_alloc_failed")


@dataclass(frozen=True, slots=True)
class Hardware:
    """What a run computes on."""

    device: torch.device
    dtype: torch.dtype
    """Of the frozen weights; the adapter is float32."""
    platform: Platform = CPU
    """What is known to work on it."""

    @property
    def on_cpu(self) -> bool:
        """Whether there is no accelerator."""
        return self.device.type == "cpu"


def hardware(devices: tuple[str, ...]) -> Hardware:
    """Takes the first of the devices a process was given; none means the CPU.

    Other accelerators are hidden from this process, because transformers would spread over all it can see. The
    variables its platform needs are set, so that this comes before anything is computed.

    Raises:
        Refused: The device is not there.
    """
    if not devices or devices[0] == "cpu":
        return Hardware(torch.device("cpu"), torch.float32)
    wanted = torch.device(devices[0])
    if not torch.cuda.is_initialized():
        _see_only(wanted.index or 0)
    if torch.cuda.device_count() == 0:
        raise Refused(f"there is no device {wanted}", "check the driver with nvidia-smi or rocm-smi")
    platform = detect(("cuda:0",))
    platform.set_environment()
    return Hardware(torch.device("cuda:0"), getattr(torch, platform.dtype), platform)


def _see_only(number: int) -> None:
    """Leaves one accelerator visible: that of this number among those that are.

    The driver reads the variables at its first call and never again, so that nothing may be asked of it before. On
    ROCm torch heeds HIP_VISIBLE_DEVICES first.
    """
    given = os.environ.get("HIP_VISIBLE_DEVICES") or os.environ.get("CUDA_VISIBLE_DEVICES") or ""
    visible = given.split(",") if given else []
    named = visible[number : number + 1] if visible else [str(number)]
    for variable in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"):
        os.environ[variable] = named[0] if named else "-1"


def available_devices() -> tuple[str, ...]:
    """The accelerator a command without a scheduler uses: the first, if there is one."""
    return ("cuda:0",) if torch.cuda.device_count() else ()  # is_available would wake the driver


def load_base(path: Path, spec: TrainSpec, on: Hardware, attention: str | None) -> PreTrainedModel:
    """Loads the frozen base model onto its device, as `load_causal_lm` does.

    Args:
        path: The model's folder.
        spec: Says how weights are packed.
        on: Where to.
        attention: What transformers calls the attention; None takes the model's default.

    Raises:
        Refused: transformers cannot load it.
    """
    quantization = bits_and_bytes(spec.quantization, torch.bfloat16 if on.on_cpu else on.dtype)
    model = load_causal_lm(path, on.dtype, str(on.device), quantization, attention)
    model.config.use_cache = False
    if on.platform.liger and is_liger_kernel_available():
        apply_liger_kernel(model, {"fused_linear_cross_entropy": False, "cross_entropy": False})
    return model


def lora_config(spec: TrainSpec) -> LoraConfig:
    """The document's adapter: on every linear layer but the output embedding."""
    return LoraConfig(
        r=spec.lora_r,
        lora_alpha=spec.lora_alpha,
        lora_dropout=spec.lora_dropout,
        target_modules="all-linear",
        bias="none",
        task_type="CAUSAL_LM",
    )


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch (or a library below it) says that memory is exhausted."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error).lower() for words in _OOM_WORDS)

"""What is known to work on which hardware: one table, each row with its sources.

`platform_of` looks a device up by what drivers call it, without any hardware; `detect` asks torch first. A row is a
starting point that was read up on in November 2026, not a measurement of ours, except where it says so.
What a job asks for (train.attention) or an environment variable says has precedence over the table.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal

Kind = Literal["cpu", "cuda", "rocm"]
Dtype = Literal["float32", "bfloat16", "float16"]
Attention = Literal["sdpa", "eager"]

_EXPERIMENTAL = MappingProxyType({"TORCH_ROCM_AOTRITON_ENABLE_EXPERIMENTAL": "1"})
_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Platform:
    """How to compute on one kind of device."""

    name: str
    """What a person calls it."""
    kind: Kind
    dtype: Dtype
    """Of the frozen weights and of the products with them; the adapter is float32."""
    attention: Attention
    """sdpa is PyTorch's fused attention; eager is written out, slower, and works everywhere."""
    environment: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    """Variables that must be set before the first attention is computed; torch reads them once."""
    fused_adamw: bool = True
    """Whether torch.optim.AdamW(fused=True) is there and the fastest."""
    liger: bool = False
    """Whether liger-kernel is worth trying, where it is installed. Its kernels are Triton's."""
    warnings: tuple[str, ...] = ()
    """What a user should read before any training here."""
    quantization_warnings: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    """What a user should read before training with 4bit or 8bit."""
    sources: tuple[str, ...] = ()

    def warnings_for(self, quantization: str) -> tuple[str, ...]:
        """The warnings for a training, by train.quantization (none, 4bit, 8bit)."""
        more = self.quantization_warnings.get(quantization)
        return (*self.warnings, more) if more else self.warnings

    def set_environment(self) -> None:
        """Sets the variables for this process; a value that is there already is the user's and stays."""
        for name, value in self.environment.items():
            os.environ.setdefault(name, value)


_SLOW_INT8 = (
    "8bit (LLM.int8) trains several times slower than 16 bit and slower than 4bit; take it only where memory decides"
)
_INT8_SOURCES = (
    "https://github.com/bitsandbytes-foundation/bitsandbytes/issues/490",  # A100: a fifth of bf16, slower than 4bit
    "https://github.com/bitsandbytes-foundation/bitsandbytes/issues/465",  # A5000: int8 a half to a third, nf4 -20 %
)

CPU = Platform(
    name="CPU",
    kind="cpu",
    dtype="float32",  # bf16 autocast was slower here: docs/log.md, facts of the machine it was made on
    attention="sdpa",
    quantization_warnings={"8bit": _SLOW_INT8},
    sources=("https://docs.pytorch.org/docs/stable/generated/torch.optim.AdamW.html",),  # fused: CPU too, since 2.4
)

_CUDA_SOURCES = (
    "https://huggingface.co/docs/bitsandbytes/v0.50.0/installation",  # 4bit from 6.0, LLM.int8 from 7.5
    "https://github.com/linkedin/Liger-Kernel/issues/51",  # runs where Triton does
    "https://github.com/triton-lang/triton#compatibility",  # compute capability 8.0 and newer
    *_INT8_SOURCES,
)

CUDA: tuple[tuple[tuple[int, int], Platform], ...] = (
    (
        (8, 0),
        Platform(
            name="NVIDIA, compute capability 8.0 or more",
            kind="cuda",
            dtype="bfloat16",
            attention="sdpa",
            liger=True,
            quantization_warnings={"8bit": _SLOW_INT8},
            sources=_CUDA_SOURCES,
        ),
    ),
    (
        (7, 0),
        Platform(
            name="NVIDIA, compute capability 7.x",
            kind="cuda",
            dtype="float16",  # torch emulates bfloat16 here, and says that it is supported
            attention="sdpa",
            quantization_warnings={"8bit": _SLOW_INT8},
            sources=(
                *_CUDA_SOURCES,
                "https://docs.pytorch.org/docs/stable/generated/torch.cuda.is_bf16_supported.html",
            ),
        ),
    ),
    (
        (0, 0),
        Platform(
            name="NVIDIA, compute capability below 7.0",
            kind="cuda",
            dtype="float32",  # 16-bit arithmetic runs at 1/64 of the speed on most of these
            attention="sdpa",
            warnings=(
                "this GPU is older than what today's PyTorch wheels are built for; an older PyTorch may know it",
            ),
            quantization_warnings={"8bit": "8bit needs compute capability 7.5; use 4bit"},
            sources=(
                *_CUDA_SOURCES,
                "https://docs.nvidia.com/cuda/cuda-c-programming-guide/#arithmetic-instructions",
                "https://docs.nvidia.com/cuda/cuda-toolkit-release-notes/",  # CUDA 13 has dropped all below 7.5
            ),
        ),
    ),
)
"""Rows by the lowest compute capability they are for, the newest first."""

_ROCM_4BIT = (
    "4bit has been seen to hang and to be slow on ROCm, and gives NaN with bitsandbytes before 0.50: try a short run "
    "first, and train without quantization if it does not come to its first step"
)
_ROCM_SOURCES = (
    "https://github.com/pytorch/pytorch/pull/156499",  # AOTriton 0.10: official and experimental architectures
    "https://github.com/unslothai/unsloth/pull/8821",  # what the variable does; unset, attention is written out
    "https://github.com/pytorch/pytorch/issues/120308",  # MI250X: AdamW fused 0.48 ms, for-loop 0.79, foreach 1.29
    "https://github.com/unslothai/unsloth/pull/7535",  # 4bit: bitsandbytes 0.50 is the first without NaN
    "https://github.com/shootthesound/Fizgig/pull/53",  # 4bit: suspected where a training took 50 s a step
    *_INT8_SOURCES,
)
_ROCM = Platform(
    name="AMD",
    kind="rocm",
    dtype="bfloat16",
    attention="sdpa",
    quantization_warnings={"4bit": _ROCM_4BIT, "8bit": _SLOW_INT8},
    sources=_ROCM_SOURCES,
)
_RDNA3 = replace(_ROCM, environment=_EXPERIMENTAL)  # AOTriton calls its kernels for these experimental
_STRIX_HALO = replace(
    _RDNA3,
    name="AMD Strix Halo (gfx1151)",
    warnings=(
        (
            "gfx1151: crashes in bfloat16 at very small batches were reported; if a run fails at its first steps, "
            "compare kernel, firmware and ROCm with docs/gpu-host.md, and try train.attention: eager"
        ),
    ),
    sources=(
        *_ROCM_SOURCES,
        "https://github.com/ROCm/legacy-rocm-build/issues/6034",  # attention 19 times faster with the variable
        "https://github.com/ROCm/TheRock/issues/1364",  # no fused attention without it
        "https://github.com/bitsandbytes-foundation/bitsandbytes/issues/1821",  # bitsandbytes' tests pass
    ),
)
_WITHOUT_FUSED = replace(
    _ROCM,
    attention="eager",
    warnings=("PyTorch has no fused attention for this GPU: attention is written out, which takes more memory",),
    sources=(*_ROCM_SOURCES, "https://github.com/pytorch/pytorch/issues/141958"),  # gfx908 has none
)

ROCM: Mapping[str, Platform] = MappingProxyType(
    {
        "gfx90a": replace(_ROCM, name="AMD Instinct MI200 (gfx90a)", liger=True),
        "gfx942": replace(_ROCM, name="AMD Instinct MI300 (gfx942)", liger=True),
        "gfx950": replace(_ROCM, name="AMD Instinct MI350 (gfx950)", liger=True),
        "gfx1100": replace(_RDNA3, name="AMD Radeon RX 7900 (gfx1100)"),
        "gfx1101": replace(_RDNA3, name="AMD Radeon RX 7800 (gfx1101)"),
        "gfx1102": replace(_RDNA3, name="AMD Radeon RX 7600 (gfx1102)"),
        "gfx1103": replace(
            _RDNA3,
            name="AMD Radeon 780M (gfx1103)",
            sources=(*_ROCM_SOURCES, "https://github.com/pytorch/pytorch/pull/168351"),
        ),
        "gfx1150": replace(_RDNA3, name="AMD Strix Point (gfx1150)"),
        "gfx1151": _STRIX_HALO,
        "gfx1200": replace(_RDNA3, name="AMD Radeon RX 9060 (gfx1200)"),
        "gfx1201": replace(_ROCM, name="AMD Radeon RX 9070 (gfx1201)"),
        "gfx908": replace(_WITHOUT_FUSED, name="AMD Instinct MI100 (gfx908)"),
        "gfx1030": replace(_WITHOUT_FUSED, name="AMD Radeon RX 6800 (gfx1030)", dtype="float16"),
    }
)
"""Rows by the architecture's name."""

_OVERRIDE = "HSA_OVERRIDE_GFX_VERSION"


_ARCHITECTURES: Mapping[str, str] = MappingProxyType(
    {
        "8060S": "gfx1151",
        "MI210": "gfx90a",
        "MI250": "gfx90a",
        "MI300X": "gfx942",
        "MI325X": "gfx942",
        "7900 XTX": "gfx1100",
        "9070 XT": "gfx1201",
    }
)
"""The architecture of AMD's GPUs, by a part of the name they are sold under."""


def platform_of_name(name: str) -> Platform | None:
    """The platform of a GPU that is not here, by its name; None where the name does not tell."""
    words = f" {name.replace('-', ' ')} "
    arch = next((arch for part, arch in _ARCHITECTURES.items() if f" {part} " in words), None)
    return platform_of("rocm", arch) if arch else None


def platform_of(kind: Kind, arch: str = "", capability: tuple[int, int] | None = None) -> Platform:
    """Looks a device up; needs no hardware.

    Args:
        kind: cpu, cuda or rocm.
        arch: On rocm, the architecture as torch names it: "gfx942:sramecc+:xnack-".
        capability: On cuda, the compute capability, as (major, minor).
    """
    if kind == "cpu":
        return CPU
    if kind == "cuda":
        return next(row for lowest, row in CUDA if (capability or (0, 0)) >= lowest)
    plain = arch.partition(":")[0]
    known = ROCM.get(plain)
    if known is not None:
        return known
    unknown = f"nothing is known of {plain or 'this GPU'} here: attention is written out, the safest way"
    return replace(_WITHOUT_FUSED, name=f"AMD {plain}".strip(), warnings=(unknown,))


def detect(devices: Sequence[str]) -> Platform:
    """The platform of the first of a run's devices, asked of torch; none means the CPU.

    A warning of the row is added when the environment says the GPU is another than it is.

    Args:
        devices: As torch names them ("cuda:0", on ROCm too).
    """
    if not devices:
        return CPU
    import torch

    device = torch.cuda.get_device_properties(torch.device(devices[0]))
    if torch.version.hip is None:
        return platform_of("cuda", capability=(device.major, device.minor))
    return with_override(platform_of("rocm", device.gcnArchName), os.environ)


def with_override(platform: Platform, environment: Mapping[str, str]) -> Platform:
    """Adds a warning where HSA_OVERRIDE_GFX_VERSION makes a GPU pose as another.

    AMD calls it a means of debugging. It was needed for gfx1151 before PyTorch's wheels had kernels for it.
    """
    value = environment.get(_OVERRIDE)
    if not value:
        return platform
    warning = (
        f"{_OVERRIDE}={value} makes this GPU pose as another; wheels for ROCm 7 know gfx1151 without it "
        "(docs/gpu-host.md, https://github.com/pytorch/pytorch/pull/164854)"
    )
    return replace(platform, warnings=(*platform.warnings, warning))
